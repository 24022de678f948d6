"""The tables of a report as text: columns, entries and what they sort by. Page, Markdown, LaTeX and terminal print them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reports import formatting as f
from reports.context import Cell, Context, Number, Row, Track

SHORT = 8
"""Characters of a run's id that are printed; the whole id stands in the CSV and behind the link."""


@dataclass(frozen=True)
class Column:
    """A column; neighbours with the same group stand under one heading."""

    heading: str
    group: str = ""
    side: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class Entry:
    """What stands where a row and a column meet.

    Attributes:
        text: The value.
        details: Lines below it in smaller type: interval, seeds, note.
        sort: What the column is sorted by; nothing sorts last.
        best: Significantly the best of its column.
        run_ids: Runs behind the row.
    """

    text: str
    details: tuple[str, ...] = ()
    sort: float | str | None = None
    best: bool = False
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table with what its caption says."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings that span columns: (heading, number of columns)."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and column.group and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans


COSTS = ("latency_p50_ms", "latency_p95_ms", "sentences_per_s", "peak_memory_bytes", "wall_s")


def main(context: Context) -> Table:
    """Transformer vs. traditional models."""
    tracks = context.tracks
    measured = [
        Column("Model", side="left"),
        Column("Year"),
        Column(f.metric("params").heading),
        *(Column(track.label, "BLEU, 95 % interval") for track in tracks),
        *(Column(track.label, "Training FLOPs") for track in tracks),
        *(Column(*_grouped(metric)) for metric in COSTS),
    ]
    directions = ("en-de", "en-fr")
    published = [
        *(Column(direction.upper(), "Published BLEU") for direction in directions),
        *(Column(direction.upper(), "Published FLOPs") for direction in directions),
        Column("Source", "Published", "left"),
    ]
    return Table(
        "comparison",
        "Transformer vs. traditional models",
        (*measured, *published),
        tuple((*_measured(context, row), *_published(row, directions)) for row in context.rows),
    )


def _grouped(name: str) -> tuple[str, str]:
    metric = f.metric(name)
    if name.startswith("latency"):
        return metric.label.split()[-1], "Latency, ms"
    return metric.heading, ""


def _measured(context: Context, row: Row) -> list[Entry]:
    cells = [row.cells[track] for track in context.tracks]
    run_ids = tuple(run.id for cell in cells for run in cell.runs.values())
    details = tuple(line for line in (row.note,) if line)
    first = next((cell for cell in cells if cell.runs), None)

    def cost(name: str) -> Entry:
        number = first.number(name) if first else None
        return Entry(f.value(name, number.value if number else None), sort=number.value if number else None)

    return [
        Entry(row.name, details, row.name, run_ids=run_ids),
        Entry(str(row.year or f.MISSING), sort=row.year),
        cost("params"),
        *(_score(row.cells[track], track) for track in context.tracks),
        *(_cost_of(row.cells[track], "train_flops") for track in context.tracks),
        *(cost(name) for name in COSTS),
    ]


def _score(cell: Cell, track: Track) -> Entry:
    number = cell.number("bleu", track.test_sets[0]) if track.test_sets else None
    if number is None:
        return Entry(cell.state if cell.state != "finished" else f.MISSING)
    return Entry(f.value("bleu", number.value), score_details("bleu", number), number.value)


def score_details(name: str, number: Number) -> tuple[str, ...]:
    """The interval of a score, and its seeds one by one if there are several."""
    lines = [f.interval(name, number.low, number.high)]
    if len(number.seeds) > 1:
        lines.append("seeds " + ", ".join(f.value(name, value) for value in number.seeds.values()))
    return tuple(line for line in lines if line)


def _cost_of(cell: Cell, name: str) -> Entry:
    number = cell.number(name)
    return Entry(f.value(name, number.value if number else None), sort=number.value if number else None)


def _published(row: Row, directions: Sequence[str]) -> list[Entry]:
    line = row.published
    bleu = [line.bleu.get(direction) if line else None for direction in directions]
    flops = [line.flops.get(direction) if line else None for direction in directions]
    return [
        *(Entry(f.value("bleu", number), sort=number) for number in bleu),
        *(Entry(f.value("train_flops", number), sort=number) for number in flops),
        Entry(line.citation if line else f.MISSING, sort=line.citation if line else None),
    ]
