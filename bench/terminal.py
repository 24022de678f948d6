"""What a person sees while jobs run: a live line on a terminal, quiet lines elsewhere, aligned numbers with units."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.training import Status

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
tables = Console(highlight=False, width=1000)  # a table is as wide as it must be: nothing is cut off


def say(line: str) -> None:
    """One line, printed as it is: nothing in it is markup."""
    console.print(Text(line))


def printable(text: str) -> str:
    r"""The text with control characters written as \xNN, so that no corpus steers a terminal; all else as it is."""
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" else c for c in text)


def seconds(value: float) -> str:
    """1:02:03, 4:05 or 7.3 s."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def quantity(value: float) -> str:
    """1.23e15 above a million, 12,345 above a thousand, three digits below."""
    if abs(value) >= 1e6:
        return f"{value:.2e}".replace("e+", "e")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interval(low: float | None, high: float | None) -> str:
    """[low, high], or nothing where there is none."""
    return "" if low is None or high is None else f"[{quantity(low)}, {quantity(high)}]"


class Live:
    """The line of a job that trains. On a terminal it is renewed in place; elsewhere one line a tenth of the way."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.shown_at = 0.0
        self.tenth = -1
        self.first: Status | None = None

    def __call__(self, status: Status) -> None:
        self.first = self.first or status
        now = time.monotonic()
        tenth = int(status.fraction * 10)
        if console.is_terminal:
            if now - self.shown_at >= 0.2 or status.fraction >= 1:
                console.print(Text(self.line(status)), end="\r", overflow="ellipsis", no_wrap=True)
                self.shown_at = now
        elif tenth > self.tenth:
            say(self.line(status))
        self.tenth = tenth

    def line(self, status: Status) -> str:
        assert self.first is not None
        done, spent = status.fraction - self.first.fraction, status.seconds - self.first.seconds
        left = spent / done * (1 - status.fraction) if done > 0 else None
        parts = [
            f"  {self.title}  {min(1.0, status.fraction):4.0%}",
            f"{status.updates:,} updates",
            f"{status.pairs / status.seconds:,.0f} pairs/s  {status.target_tokens / status.seconds:,.0f} tokens/s",
            f"loss {status.loss:.2f}" if status.loss is not None else "",
            f"best {status.best:.1f} BLEU" if status.best is not None else "",
            f"{seconds(max(0.0, left))} left" if left is not None and status.fraction < 1 else "",
        ]
        return "  ".join(part for part in parts if part)

    def close(self) -> None:
        if console.is_terminal:
            console.print(" " * (console.width - 1), end="\r")


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """An aligned table. `columns` are (heading, left | right)."""
    view = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", title_style="bold")
    for heading, side in columns:
        view.add_column(Text(heading), justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows:
        view.add_row(*(Text(cell) for cell in row))
    tables.print(view)
