"""What a person sees while jobs run: a live line on a terminal, quiet lines elsewhere, aligned numbers with units."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.system import formatting
from bench.system.progress import Status

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
tables = Console(highlight=False, width=1000)  # a table is as wide as it must be: nothing is cut off


def say(line: str) -> None:
    """One line, printed as it is: nothing in it is markup."""
    console.print(Text(line))


def printable(text: str) -> str:
    r"""The text with control characters written as \xNN, so that no corpus steers a terminal; all else as it is."""
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" else c for c in text)


class ProgressLine:
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
        left, took = remaining(self.first, status), status.seconds
        rates = f"{status.pairs / took:,.0f} pairs/s  {status.target_tokens / took:,.0f} tokens/s" if took else ""
        parts = [
            f"  {self.title}  {min(1.0, status.fraction):4.0%}",
            f"{status.updates:,} updates",
            rates,  # a GPU has not been asked at once what its first updates took
            f"loss {status.loss:.2f}" if status.loss is not None else "",
            f"GLEU {status.reward:.2f}" if status.reward is not None else "",
            f"best {status.best:.1f} BLEU" if status.best is not None else "",
            f"{formatting.duration(left)} left" if left is not None and status.fraction < 1 else "",
        ]
        return "  ".join(part for part in parts if part)

    def close(self) -> None:
        if console.is_terminal:
            console.print(" " * (console.width - 1), end="\r")


class ProgressBoard:
    """Jobs that run at once: on a terminal a table renewed in place; elsewhere a line when a job begins or ends, and
    once a minute one for those under way. Lines of the jobs stand above the table.
    """

    EVERY = 60.0

    def __init__(self, total: int) -> None:
        self.total, self.begun, self.ended, self.began = total, 0, 0, time.monotonic()
        self.jobs: dict[int, tuple[str, float, Status | None, Status | None]] = {}  # name, begin, first and last status
        self.said_at = self.began
        self.live = Live(get_renderable=self.view, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> ProgressBoard:
        if console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def message(self, line: str) -> None:
        say(f"  {line}")

    def job_started(self, worker: int, name: str) -> None:
        self.begun += 1
        self.jobs[worker] = (name, time.monotonic(), None, None)
        say(f"[{self.begun}/{max(self.total, self.begun)}] {name}: begins, worker {worker}")

    def job_progress(self, worker: int, status: Status) -> None:
        name, begin, first, _ = self.jobs[worker]
        self.jobs[worker] = (name, begin, first or status, status)
        if not console.is_terminal and time.monotonic() - self.said_at >= self.EVERY:
            self.said_at = time.monotonic()
            for row in self.rows():
                say("  " + "  ".join(part for part in row if part))
            say(f"  {self.summary()}")

    def job_ended(self, worker: int, what: str) -> None:
        """`what` says how, and with what."""
        name, begin, _, _ = self.jobs.pop(worker)
        self.ended += 1
        say(f"  {name}: {what}, {formatting.duration(time.monotonic() - begin)}")

    def rows(self) -> list[list[str]]:
        """Worker, job, part of its budget spent, best validation BLEU, time left."""
        rows = []
        for worker, (name, _, first, status) in sorted(self.jobs.items()):
            if first is None or status is None:
                rows.append([str(worker), name, "prepares", "", ""])
                continue
            left = remaining(first, status)
            rows.append(
                [
                    str(worker),
                    name,
                    f"{min(1.0, status.fraction):4.0%}",
                    f"{status.best:.1f} BLEU" if status.best is not None else "",
                    "is judged" if status.fraction >= 1 else f"{formatting.duration(left)} left" if left is not None else "",
                ]
            )
        return rows

    def summary(self) -> str:
        spent = self.ended + sum(min(1.0, last.fraction) for *_, last in self.jobs.values() if last)
        elapsed = time.monotonic() - self.began
        left = (
            f", about {formatting.duration(elapsed / spent * (self.total - spent))} left"
            if self.ended and spent < self.total
            else ""
        )
        return f"{self.ended} of {self.total} jobs, {formatting.duration(elapsed)}{left}"

    def view(self) -> Table:
        heads = (("worker", "right"), ("job", "left"), ("spent", "right"), ("best", "right"), ("", "left"))
        view = Table(box=None, pad_edge=False, header_style="bold", caption=self.summary(), caption_justify="left")
        for heading, side in heads:
            view.add_column(heading, justify="right" if side == "right" else "left", no_wrap=True)
        for row in self.rows():
            view.add_row(*(Text(cell) for cell in row))
        return view


def remaining(first: Status, status: Status) -> float | None:
    """Seconds of training that are left, by the speed since the first report; None before it is known."""
    done, spent = status.fraction - first.fraction, status.seconds - first.seconds
    return max(0.0, spent / done * (1 - status.fraction)) if done > 0 and spent > 0 else None


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """An aligned table. `columns` are (heading, left | right)."""
    view = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", title_style="bold")
    for heading, side in columns:
        view.add_column(Text(heading), justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows:
        view.add_row(*(Text(cell) for cell in row))
    tables.print(view)
