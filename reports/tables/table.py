"""What a table of a report is, and the first of them: the comparison. The others stand in tables.py."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.system import formatting
from reports.gathering.context import Cell, Context, Number, Row, Track
from reports.text import metric_format
from reports.text.catalogue import Catalogue

SHORT = 8
"""Characters of a run's id that are printed; the whole id stands in the CSV and behind the link."""


@dataclass(frozen=True)
class Column:
    """A column; neighbours with the same group stand under one heading.

    Attributes:
        own: Whether it holds numbers of this suite's runs, not published ones.
    """

    label: str
    unit: str = ""
    group: str = ""
    side: Literal["left", "right"] = "right"
    own: bool = True

    @property
    def heading(self) -> str:
        return f"{self.label}, {self.unit}" if self.unit else self.label

    @property
    def whole(self) -> str:
        """The heading that tells it from every other column."""
        return f"{self.group}, {self.heading}" if self.group and self.heading else self.group or self.heading


@dataclass(frozen=True)
class Run:
    """A run behind a row: which one of them it is, and its address, or none."""

    id: str
    label: str
    link: str

    @property
    def short(self) -> str:
        return self.id[:SHORT]


@dataclass(frozen=True)
class Entry:
    """What stands where a row and a column meet.

    Attributes:
        text: The value.
        details: Lines below it in smaller type: interval, seeds.
        sort: What the column is sorted by; nothing sorts last.
        best: Significantly the best of its column.
        quiet: Whether it says only that there is no number.
        mark: Letter of its footnote.
        runs: The runs behind the row.
    """

    text: str
    details: tuple[str, ...] = ()
    sort: float | str | None = None
    best: bool = False
    quiet: bool = False
    mark: str = ""
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table with what its caption says; footnotes are (letter, text)."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    footnotes: tuple[tuple[str, str], ...] = ()

    def kept(self, which: Literal["all", "own", "published"]) -> list[int]:
        """Numbers of the columns to print: all; or the first, and of ours or the published ones those with a number."""
        return [
            n
            for n, column in enumerate(self.columns)
            if which == "all"
            or not n
            or (column.own == (which == "own") and not all(row[n].quiet for row in self.rows))
        ]

    def lines(self, which: Literal["all", "own", "published"]) -> list[tuple[Entry, ...]]:
        """The rows to print with these columns: of published numbers only those that there are."""
        kept = self.kept(which)[1:]
        return [row for row in self.rows if which != "published" or not all(row[n].quiet for n in kept)]

    def heads(self, kept: Sequence[int]) -> list[tuple[str, int, int]]:
        """The upper line of the head over these columns: (heading, which of them is the first, how many)."""
        spans: list[tuple[str, int, int]] = []
        for place, column in enumerate(self.columns[number] for number in kept):
            if spans and column.group and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1], spans[-1][2] + 1)
            else:
                spans.append((column.group or column.heading, place, 1))
        return spans

    @property
    def spans(self) -> list[tuple[str, int, int]]:
        return self.heads(self.kept("all"))

    @property
    def edges(self) -> set[int]:
        """Columns before which a line is drawn: where our numbers end and published ones begin."""
        return {n for n in range(1, len(self.columns)) if self.columns[n - 1].own != self.columns[n].own}


LATENCY = ("latency_p50_ms", "latency_p95_ms")
SPEED = ("sentences_per_s", "peak_memory_bytes", "wall_s")
COSTS = ("clock_flops", "energy_j")
DIRECTIONS = ("en-de", "en-fr")
NONE = Entry(formatting.MISSING, quiet=True)


def of(name: str, number: Number | None) -> Entry:
    """A number as an entry, without its interval."""
    value = number.value if number else None
    return NONE if value is None else Entry(metric_format.value(name, value), sort=value)


def score(name: str, number: Number | None) -> Entry:
    """A score with its interval, and its seeds one by one if there are several."""
    if number is None:
        return NONE
    lines = [metric_format.interval(name, number.low, number.high)]
    if len(number.seeds) > 1:
        lines.append(", ".join(metric_format.value(name, value) for value in number.seeds.values()))
    return replace(of(name, number), details=tuple(line for line in lines if line))


def text(content: str) -> Entry:
    """Words, sorted by themselves."""
    return Entry(content, sort=content)


def main(context: Context) -> Table:
    """The comparison: what each row measured, and what its paper published."""
    say, tracks = context.catalogue, context.tracks
    cost, latency = say("table.cost"), say("table.latency")
    several = len(tracks) > 1
    columns = [
        Column(say("table.model"), side="left"),
        Column(say("table.year")),
        Column(say.label("params"), say.unit("params")),
        *(Column(track.label, group=say("metric.bleu")) for track in tracks),
        *(
            Column(f"{say('table.counted')}{f' {track.label}' if several else ''}", say.unit("train_flops"), cost)
            for track in tracks
        ),
        Column(say("table.clock"), say.unit("clock_flops"), cost),
        Column(say("table.energy"), say.unit("energy_j"), cost),
        Column("p50", group=f"{latency}, {say.unit(LATENCY[0])}"),
        Column("p95", group=f"{latency}, {say.unit(LATENCY[1])}"),
        *(Column(say.label(name), say.unit(name)) for name in SPEED),
        *(Column(direction.upper(), group=say("table.published_bleu"), own=False) for direction in DIRECTIONS),
        *(
            Column(direction.upper(), group=f"{say('table.published_cost')}, {say.unit('train_flops')}", own=False)
            for direction in DIRECTIONS
        ),
    ]
    best = {track: _best(context, track) for track in tracks}
    marks = iter(string.ascii_lowercase)
    footnotes = {row.id: (next(marks, "*"), say.recorded(row.note)) for row in context.rows if row.note}
    rows = []
    for row in context.rows:
        cells = [row.cells[track] for track in tracks]
        first = next((cell for cell in cells if cell.runs), cells[0])
        mark = footnotes[row.id][0] if row.note else ""
        rows.append(
            (
                Entry(row.name, sort=row.name, mark=mark, runs=_runs(context, cells)),
                Entry(str(row.year), sort=row.year) if row.year else NONE,
                of("params", first.number("params")),
                *(_bleu(say, row.cells[track], row.id == best[track]) for track in tracks),
                *(of("train_flops", row.cells[track].number("train_flops")) for track in tracks),
                *(_or_not(say, first, name) for name in COSTS),
                *(of(name, first.number(name)) for name in (*LATENCY, *SPEED)),
                *_published(row),
            )
        )
    return Table("comparison", say("table.caption"), tuple(columns), tuple(rows), tuple(footnotes.values()))


def _runs(context: Context, cells: Sequence[Cell]) -> tuple[Run, ...]:
    several = len(context.tracks) > 1
    return tuple(
        Run(
            run.id,
            f"{cell.track.label} " * several + context.catalogue("table.seed", seed=seed),
            context.link(run.id),
        )
        for cell in cells
        for seed, run in cell.runs.items()
    )


def _or_not(say: Catalogue, cell: Cell, name: str) -> Entry:
    """A cost that only some machines give. Where it is not there, that is said in words."""
    entry = of(name, cell.number(name))
    return Entry(say("not_measured"), quiet=True) if entry is NONE and cell.runs else entry


def _bleu(say: Catalogue, cell: Cell, best: bool) -> Entry:
    entry = score("bleu", cell.number("bleu", cell.track.test_set))
    if entry is NONE:
        return Entry(say(f"state.{cell.state}")) if cell.state != "finished" else NONE
    return replace(entry, best=best)


def _best(context: Context, track: Track) -> str:
    """Id of the row whose BLEU is significantly above that of every other row, or nothing."""
    scored = [row.id for row in context.scored(track)]
    tests = [context.comparison(track, row, scored[0]) for row in scored[1:]]
    return scored[0] if tests and all(test and test.verdict == "worse" for test in tests) else ""


def _published(row: Row) -> list[Entry]:
    line = row.published
    if line is None:
        return [NONE] * 4
    bleu, flops = ([numbers.get(direction) for direction in DIRECTIONS] for numbers in (line.bleu, line.flops))
    return [
        *(NONE if number is None else Entry(formatting.published_score(number), sort=number) for number in bleu),
        *(NONE if number is None else Entry(formatting.power_of_ten(number, 1), sort=number) for number in flops),
    ]
