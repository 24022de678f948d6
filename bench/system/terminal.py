"""Terminal output: progress of jobs (updated in place on a terminal, single lines elsewhere) and aligned tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.system import formatting
from bench.system.progress import Status
from bench.system.visible_text import visible, visible_line


class PipeConsole(Console):
    """A console whose broken pipe is an error as on every other stream. Rich would exit with code 1."""

    def on_broken_pipe(self) -> None:
        raise


console = PipeConsole(highlight=False, soft_wrap=not sys.stdout.isatty())
tables = PipeConsole(highlight=False, width=1000)  # wide enough that no column of a table is cut off
MAX_CELL = 200
"""Characters of a cell that are printed, at most."""


def say(line: str) -> None:
    """Print one line. Brackets in it are not interpreted as markup; control characters are shown, not executed."""
    console.print(Text(visible(line)))


class UpdatedLine:
    """A line of progress: updated in place on a terminal, elsewhere one line per tenth of the work."""

    def __init__(self) -> None:
        self.printed_at = 0.0
        self.tenth = -1  # tenths of the work at the last call

    def show(self, fraction: float, line: Callable[[], str]) -> None:
        """Print the line of this fraction of the work, unless one was printed just before."""
        now, tenth = time.monotonic(), int(fraction * 10)
        if console.is_terminal:
            if now - self.printed_at >= 0.2 or fraction >= 1:
                console.print(Text(line()), end="\r", overflow="ellipsis", no_wrap=True)
                self.printed_at = now
        elif tenth > self.tenth:
            say(line())
        self.tenth = tenth

    def close(self) -> None:
        if console.is_terminal:
            console.print(" " * (console.width - 1), end="\r")


class ProgressLine(UpdatedLine):
    """The progress of one job."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self.first: Status | None = None

    def __call__(self, status: Status) -> None:
        self.first = self.first or status
        self.show(status.fraction, lambda: self.line(status))

    def line(self, status: Status) -> str:
        assert self.first is not None
        left, elapsed = seconds_left(self.first, status), status.seconds
        rates = ""
        if elapsed:  # on a GPU, the seconds of the first updates are not known at once
            rates = f"{status.pairs / elapsed:,.0f} pairs/s  {status.target_tokens / elapsed:,.0f} tokens/s"
        parts = [
            f"  {self.title}  {min(1.0, status.fraction):4.0%}",
            f"{status.updates:,} updates",
            rates,
            f"loss {status.loss:.2f}" if status.loss is not None else "",
            f"GLEU {status.reward:.2f}" if status.reward is not None else "",
            f"best {status.best_text}" if status.best_text else "",
            f"{formatting.duration(left)} left" if left is not None and status.fraction < 1 else "",
        ]
        return "  ".join(part for part in parts if part)


class CountLine(UpdatedLine):
    """The progress of work that is counted, such as sentences. Work of less than `SECONDS` prints nothing."""

    SECONDS = 2.0

    def __init__(self, title: str, unit: str, total: int) -> None:
        super().__init__()
        self.title, self.unit, self.total = title, unit, total
        self.began = time.monotonic()
        self.tenth = 0

    def __call__(self, count: int) -> None:
        elapsed = time.monotonic() - self.began
        if elapsed >= self.SECONDS and count < self.total:
            self.show(count / self.total, lambda: self.line(count, elapsed))

    def line(self, count: int, elapsed: float) -> str:
        left = formatting.duration(elapsed * (self.total - count) / count)
        return f"  {self.title}  {count / self.total:4.0%}  {count / elapsed:,.0f} {self.unit}/s  {left} left"

    def close(self) -> None:
        """End the line, and print how long the work took."""
        elapsed = time.monotonic() - self.began
        if elapsed >= self.SECONDS:
            super().close()
            rate = f"{self.total / elapsed:,.0f} {self.unit}/s"
            say(f"  {self.title}: {self.total:,} {self.unit} in {formatting.duration(elapsed)}, {rate}")


@dataclass
class RunningJob:
    """A job on the board: its name, the clock reading at its start, and its first and last status."""

    name: str
    started_at: float
    first: Status | None = None
    last: Status | None = None


class ProgressBoard:
    """The progress of jobs that run at the same time.

    On a terminal it is a table that is updated in place, below the messages of the jobs. Elsewhere it prints a line
    when a job starts or ends, and once a minute a line for each running job.

    Args:
        total: Number of jobs expected.
        equal_budgets: Whether all jobs have the same budget. If not, no remaining time is shown: the jobs that have
            ended do not tell it. `bench plan` does.
    """

    INTERVAL_S = 60.0

    def __init__(self, total: int, equal_budgets: bool = True) -> None:
        self.equal_budgets = equal_budgets
        self.total, self.started, self.ended, self.started_at = total, 0, 0, time.monotonic()
        self.jobs: dict[int, RunningJob] = {}  # by worker
        self.printed_at = self.started_at
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
        self.started += 1
        self.jobs[worker] = RunningJob(name, time.monotonic())
        say(f"[{self.started}/{max(self.total, self.started)}] {name}: starts on worker {worker}")

    def job_progress(self, worker: int, status: Status) -> None:
        job = self.jobs[worker]
        job.first, job.last = job.first or status, status
        if not console.is_terminal and time.monotonic() - self.printed_at >= self.INTERVAL_S:
            self.printed_at = time.monotonic()
            for row in self.rows():
                say("  " + "  ".join(part for part in row if part))
            say(f"  {self.summary()}")

    def job_ended(self, worker: int, outcome: str) -> None:
        """Print how a job ended: `outcome` is its state and its result."""
        job = self.jobs.pop(worker)
        self.ended += 1
        say(f"  {job.name}: {outcome}, {formatting.duration(time.monotonic() - job.started_at)}")

    def rows(self) -> list[list[str]]:
        """Return a row per running job: worker, job, share of its budget used, best validation score, time left."""
        rows = []
        for worker, job in sorted(self.jobs.items()):
            if job.first is None or job.last is None:
                rows.append([str(worker), job.name, "preparing", "", ""])
                continue
            status, left = job.last, seconds_left(job.first, job.last)
            fraction = f"{min(1.0, status.fraction):4.0%}"
            time_left = f"{formatting.duration(left)} left" if left is not None else ""
            state = "evaluation" if status.fraction >= 1 else time_left
            rows.append([str(worker), job.name, fraction, status.best_text, state])
        return rows

    def summary(self) -> str:
        done = self.ended + sum(min(1.0, job.last.fraction) for job in self.jobs.values() if job.last)
        elapsed = time.monotonic() - self.started_at
        left = (
            f", about {formatting.duration(elapsed / done * (self.total - done))} left"
            if self.equal_budgets and self.ended and done < self.total
            else ""
        )
        return f"{self.ended} of {self.total} jobs, {formatting.duration(elapsed)}{left}"

    def view(self) -> Table:
        headings = (("worker", "right"), ("job", "left"), ("budget", "right"), ("best", "right"), ("", "left"))
        view = Table(box=None, pad_edge=False, header_style="bold", caption=self.summary(), caption_justify="left")
        for heading, side in headings:
            view.add_column(heading, justify="right" if side == "right" else "left", no_wrap=True)
        for row in self.rows():
            view.add_row(*(Text(cell) for cell in row))
        return view


def seconds_left(first: Status, status: Status) -> float | None:
    """Return the seconds of training that are left, at the speed since the first status, or None if it is unknown."""
    fraction, seconds = status.fraction - first.fraction, status.seconds - first.seconds
    return max(0.0, seconds / fraction * (1 - status.fraction)) if fraction > 0 and seconds > 0 else None


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print an aligned table. Each column is a heading and its alignment, left or right. Cells may have any text.

    A longer cell is cut to MAX_CELL characters, because it would take the width of the other columns.
    """
    view = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", title_style="bold")
    for heading, side in columns:
        view.add_column(Text(visible(heading)), justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows:
        view.add_row(*(Text(formatting.shortened(visible_line(cell), MAX_CELL)) for cell in row))
    tables.print(view)
