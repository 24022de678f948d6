"""What commands do with reports: write them, print their tables, and show them in the store.

Slow imports stand inside the functions, as in main.py.
"""

from __future__ import annotations

import errno
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import DEFAULT_UI_PORT, PROGRAM

if TYPE_CHECKING:
    from bench.tracking import ui_view
    from bench.tracking.reading import Reader
    from bench.tracking.store import Store
    from reports.report import Report

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of the operating system that say that a file or folder may not be written."""


def publish(store: Store, suite: str, out: Path, reader: Reader | None = None) -> str:
    """Writes the report of a suite to `out` and, with the comparison and the totals, to the store.

    Args:
        reader: The runs of the report; those of the store by default.

    Returns:
        The id of the suite's MLflow experiment.
    """
    from reports.report import read

    report, experiment = read(reader or store, suite), store.experiment_id(suite)
    write(report, out)
    if parent := store.parent_run(suite):
        store.log_to_parent(suite, out, "report")
        here = {run.id for run in store.runs(suite)}  # runs of other machines have no page to link to
        store.summarize(parent.id, report.metrics(), report.description(experiment, parent.id, here))
        if shown := report.view(experiment, parent.id):
            store.set_view(suite, "suite", *shown)
    return experiment


def write(report: Report, out: Path) -> Path:
    """Writes a report, prints its table and the names of its files, and returns the page."""
    from bench.system import terminal

    try:
        files = report.write(out)
    except OSError as error:
        raise cannot_write(error) from error
    print_table(report)
    pages = [file for file in files if file.parent == out]
    for file in pages:
        terminal.say(f"{file}")
    if plots := len(files) - len(pages):
        terminal.say(f"{out / 'plots'} ({plots} files)")
    return pages[0]


def print_table(report: Report) -> None:
    """Prints the comparison of a report, and what a reader must know of it."""
    from bench.system import terminal

    terminal.table(*report.table())
    for note in report.notes():
        terminal.say(note)


def cannot_write(error: OSError, flag: str = "--out") -> Exception:
    """The error to raise if a folder of results cannot be written: it names the flag if writing is not allowed."""
    if error.errno not in NOT_WRITABLE:
        return error
    return ValueError(f"{error.filename}: {error.strerror}; choose a folder that can be written with {flag}")


def say_where_to_compare(store: Store, experiment: str, kind: ui_view.Kind) -> None:
    """Prints the address of a comparison in the MLflow UI; without a server, with the command that serves it."""
    from bench.system import terminal
    from bench.tracking import ui_view
    from bench.tracking.reading import public_address
    from bench.tracking.store import TrackingSettings
    from bench.tracking.ui import HOST

    if store.database is None:
        terminal.say(f"compare the runs in MLflow: {ui_view.address(public_address(store.uri), experiment, kind)}")
        return
    folder = store.settings.folder
    flag = "" if folder == TrackingSettings().folder else f" --tracking.folder {shlex.quote(folder)}"
    address = ui_view.address(f"http://{HOST}:{DEFAULT_UI_PORT}", experiment, kind)
    terminal.say(f"compare the runs in MLflow: {PROGRAM} ui --open{flag}  ({address})")
