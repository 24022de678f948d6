"""Writes a report in every form: a page, Markdown, LaTeX, tidy CSV, and its plots as files."""

from __future__ import annotations

import csv as csv_module
import functools
import io
from collections.abc import Callable
from pathlib import Path

import jinja2

from bench.training import write_beside
from reports import formatting, plots, table
from reports.context import Context, metric_order

COLUMNS = (
    "suite",
    "corpus",
    "test_set",
    "row",
    "preset",
    "direction",
    "seeds",
    "metric",
    "value",
    "low",
    "high",
    "unit",
    "run",
)
"""Of the tidy CSV. Scripts lean on them."""

ALWAYS = [name for name in list(formatting.METRICS)[:11]]
"""Metrics that have a line in the CSV for every row, empty where not measured."""


def csv(context: Context) -> str:
    """The tidy table: one line per row, direction, test set and metric. What was not measured is empty."""
    text = io.StringIO()
    writer = csv_module.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for track in context.tracks:
        for row in context.rows:
            cell = row.cells[track]
            seeds, run_ids = " ".join(map(str, cell.runs)), " ".join(run.id for run in cell.runs.values())
            wanted = {
                (test_set, name)
                for name in ALWAYS
                for test_set in ((track.test_sets or ("",)) if formatting.metric(name).score else ("",))
            } | set(cell.numbers)
            for name in metric_order([name for _, name in wanted]):
                for test_set in (*track.test_sets, ""):
                    if (test_set, name) not in wanted:
                        continue
                    number = cell.numbers.get((test_set, name))
                    ends = [number.value, number.low, number.high] if number else [None] * 3
                    unit = number.unit if number else ""
                    writer.writerow(
                        [context.suite, track.corpus, test_set, row.id, track.preset, track.direction, seeds, name]
                        + [formatting.exact(end) for end in ends]
                        + [unit, run_ids]
                    )
    return text.getvalue()


def terminal(context: Context) -> tuple[list[tuple[str, str]], list[list[str]], str]:
    """Columns, rows and title for bench.terminal.table: the measured part of the main table."""
    main = table.main(context)
    kept = [number for number, column in enumerate(main.columns) if not column.group.startswith("Published")]
    columns = [main.columns[number] for number in kept]
    headings = [(f"{c.group.split(',')[0]} {c.heading}" if c.group else c.heading, c.side) for c in columns]
    lines = []
    for row in main.rows:
        cells = [
            f"{entry.text} [{entry.details[0]}]" if column.group.startswith("BLEU") and entry.details else entry.text
            for column, entry in ((main.columns[number], row[number]) for number in kept)
        ]
        lines.append([*cells, " ".join(run[: table.SHORT] for run in row[0].run_ids) or formatting.MISSING])
    return [*headings, ("Run", "left")], lines, f"{main.caption} ({context.suite})"


@functools.cache
def _templates() -> jinja2.Environment:
    folder = Path(__file__).parent / "templates"
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def page(context: Context) -> str:
    """The page: one file that needs no other."""
    return (
        _templates()
        .get_template("page.html.j2")
        .render(context=context, table=table.main(context), plots=plots.all_plots(context), short=table.SHORT)
    )


def all_forms(context: Context, out: Path) -> list[Path]:
    """Writes every form into `out`, each beside its place and then renamed; returns the files."""
    contents: dict[str, Callable[[], str]] = {
        "report.html": lambda: page(context),
        "report.csv": lambda: csv(context),
    }
    return [_write(out / name, content()) for name, content in contents.items()]


def _write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    write_beside(path, lambda beside: beside.write_bytes(data) and None)
    return path
