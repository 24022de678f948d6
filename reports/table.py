"""The tables of a report: columns, entries, sort keys. Page, Markdown, LaTeX and terminal print them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from reports import formatting as f
from reports.context import TITLE, Cell, Context, Number, Row, Track

SHORT = 8
"""Characters of a run's id that are printed; the whole id stands in the CSV and behind the link."""


@dataclass(frozen=True)
class Column:
    """A column; neighbours with the same group stand under one heading.

    Attributes:
        own: Whether it holds numbers of this suite's runs, not published ones.
    """

    heading: str
    group: str = ""
    side: Literal["left", "right"] = "right"
    own: bool = True

    @property
    def label(self) -> str:
        """The heading without its unit."""
        return self.heading.partition(", ")[0]

    @property
    def unit(self) -> str:
        return self.heading.partition(", ")[2]

    @property
    def whole(self) -> str:
        """The heading that tells it from every other column."""
        return f"{self.group}, {self.heading}" if self.group and self.heading else self.group or self.heading


@dataclass(frozen=True)
class Entry:
    """What stands where a row and a column meet.

    Attributes:
        text: The value.
        details: Lines below it in smaller type: interval, seeds, note.
        sort: What the column is sorted by; nothing sorts last.
        best: Significantly the best of its column.
        runs: Ids of the runs behind the row, each with its address (or none).
    """

    text: str
    details: tuple[str, ...] = ()
    sort: float | str | None = None
    best: bool = False
    runs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Table:
    """A table with what its caption says."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]

    def kept(self, which: Literal["all", "own", "published"]) -> list[int]:
        """Numbers of the columns to print: the first, and ours or the published ones."""
        return [n for n, column in enumerate(self.columns) if which == "all" or not n or column.own == (which == "own")]

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


SPEED = ("latency_p50_ms", "latency_p95_ms", "sentences_per_s", "peak_memory_bytes", "wall_s")
DIRECTIONS = ("en-de", "en-fr")
NONE = Entry(f.MISSING)


def of(name: str, number: Number | None) -> Entry:
    """A number as an entry, without its interval."""
    value = number.value if number else None
    return NONE if value is None else Entry(f.value(name, value), sort=value)


def score(name: str, number: Number | None) -> Entry:
    """A score with its interval, and its seeds one by one if there are several."""
    if number is None:
        return NONE
    lines = [f.interval(name, number.low, number.high)]
    if len(number.seeds) > 1:
        lines.append("seeds " + ", ".join(f.value(name, value) for value in number.seeds.values()))
    return replace(of(name, number), details=tuple(line for line in lines if line))


def main(context: Context) -> Table:
    """The comparison: what each row measured, and what its paper published."""
    tracks, extra = context.tracks, _extra_costs(context)
    columns = [
        Column("Model", side="left"),
        Column("Year"),
        Column(f.metric("params").heading),
        *(Column(track.label, "BLEU") for track in tracks),
        *(Column(track.label, "Training FLOPs, counted") for track in tracks),
        *(Column(f.metric(name).heading) for name in extra),
        Column("p50", "Latency, ms"),
        Column("p95", "Latency, ms"),
        *(Column(f.metric(name).heading) for name in SPEED[2:]),
        *(Column(direction.upper(), "Published BLEU", own=False) for direction in DIRECTIONS),
        *(Column(direction.upper(), "Published cost, FLOP", own=False) for direction in DIRECTIONS),
        Column("Published in", side="left", own=False),
    ]
    best = {track: _best(context, track) for track in tracks}
    rows = []
    for row in context.rows:
        cells = [row.cells[track] for track in tracks]
        first = next((cell for cell in cells if cell.runs), cells[0])
        runs = tuple((run.id, context.link(run.id)) for cell in cells for run in cell.runs.values())
        rows.append(
            (
                Entry(row.name, (row.note,) if row.note else (), row.name, runs=runs),
                Entry(str(row.year), sort=row.year) if row.year else NONE,
                of("params", first.number("params")),
                *(_bleu(row.cells[track], row.id == best[track]) for track in tracks),
                *(of("train_flops", row.cells[track].number("train_flops")) for track in tracks),
                *(of(name, first.number(name)) for name in (*extra, *SPEED)),
                *_published(row),
            )
        )
    return Table("comparison", TITLE, tuple(columns), tuple(rows))


def _extra_costs(context: Context) -> list[str]:
    """Costs that only some machines give: the clock estimate, joules. Never in the column of counted FLOPs."""
    names = {
        metric: number.unit
        for row in context.rows
        for cell in row.cells.values()
        for (test_set, metric), number in cell.numbers.items()
        if not test_set and number.value is not None and (metric == "clock_flops" or number.unit == "J")
    }
    return sorted(names)


def _bleu(cell: Cell, best: bool) -> Entry:
    entry = score("bleu", cell.number("bleu", cell.track.test_set))
    if entry is NONE:
        return Entry(cell.state if cell.state != "finished" else f.MISSING)
    return replace(entry, best=best)


def _best(context: Context, track: Track) -> str:
    """Id of the row whose BLEU is significantly above that of every other row, or nothing."""
    scored = [row.id for row in context.scored(track)]
    tests = [context.comparison(track, scored[0], row) for row in scored[1:]]
    return scored[0] if tests and all(test and test.verdict == "better" for test in tests) else ""


def _published(row: Row) -> list[Entry]:
    line = row.published
    if line is None:
        return [NONE] * 5
    bleu, flops = ([numbers.get(direction) for direction in DIRECTIONS] for numbers in (line.bleu, line.flops))
    return [
        *(NONE if number is None else Entry(f.score(number), sort=number) for number in bleu),
        *(NONE if number is None else Entry(f.power(number, 1), sort=number) for number in flops),
        Entry(line.citation, sort=line.citation),
    ]


def scores(context: Context) -> Table:
    """Every test set with every metric of quality."""
    several = len(context.tracks) > 1
    metrics = ("bleu", "chrf", "ter", "bleu_shuffled_references")
    columns = [
        Column("Model", side="left"),
        *([Column("Direction", side="left")] if several else []),
        Column("Test set", side="left"),
        *(Column(f.metric(name).heading) for name in metrics),
    ]
    rows = [
        (
            Entry(row.name, sort=row.name),
            *([Entry(track.label, sort=track.label)] if several else []),
            Entry(test_set, sort=test_set),
            *(score(name, row.cells[track].number(name, test_set)) for name in metrics),
        )
        for track in context.tracks
        for test_set in track.test_sets
        for row in context.rows
        if row.cells[track].runs
    ]
    return Table("scores", "Scores on every test set", tuple(columns), tuple(rows))


def significance(context: Context) -> Table:
    """Each row against the baseline."""
    several = len(context.tracks) > 1
    columns = [
        Column("Model", side="left"),
        *([Column("Direction", side="left")] if several else []),
        Column("BLEU"),
        Column("Difference"),
        Column("95 % interval"),
        Column("p"),
        Column("p after Holm"),
        Column("Verdict", side="left"),
    ]
    rows = []
    for track in context.tracks:
        for row in context.rows:
            test = context.comparison(track, row.id, context.baseline)
            if test is None:
                continue
            rows.append(
                (
                    Entry(row.name, sort=row.name),
                    *([Entry(track.label, sort=track.label)] if several else []),
                    of("bleu", row.cells[track].number("bleu", track.test_set)),
                    Entry(f.difference("bleu", test.difference), sort=test.difference),
                    Entry(f.interval("bleu", test.low, test.high), sort=test.low),
                    NONE if test.p is None else Entry(f.small(test.p), sort=test.p),
                    NONE if test.adjusted is None else Entry(f.small(test.adjusted), sort=test.adjusted),
                    Entry(test.verdict, sort=test.verdict),
                )
            )
    name = context.row(context.baseline).name
    return Table("significance", f"Difference in BLEU from {name}", tuple(columns), tuple(rows))


def sources(context: Context) -> Table:
    """Validation loss with the true and with shuffled sources."""
    several = len(context.tracks) > 1
    names = ("validation_loss", "validation_loss_shuffled_sources")
    columns = [
        Column("Model", side="left"),
        *([Column("Direction", side="left")] if several else []),
        Column("True sources"),
        Column("Shuffled sources"),
        Column("Lost by shuffling"),
    ]
    rows = []
    for track in context.tracks:
        for row in context.rows:
            true, shuffled = (row.cells[track].value(name) for name in names)
            if true is None or shuffled is None:
                continue
            rows.append(
                (
                    Entry(row.name, sort=row.name),
                    *([Entry(track.label, sort=track.label)] if several else []),
                    *(of(name, row.cells[track].number(name)) for name in names),
                    Entry(f.difference(names[0], shuffled - true), sort=shuffled - true),
                )
            )
    return Table("sources", "Validation loss, nats/token", tuple(columns), tuple(rows))


def published(context: Context) -> Table:
    """Table 2 of Vaswani et al. 2017, whole."""
    columns = [
        Column("Model", side="left"),
        *(Column(direction.upper(), "BLEU", own=False) for direction in DIRECTIONS),
        *(Column(direction.upper(), "Training cost, FLOP by the clock", own=False) for direction in DIRECTIONS),
        *(Column(direction.upper(), "Days × devices", "left", own=False) for direction in DIRECTIONS),
        Column("Source", side="left", own=False),
    ]
    rows = [
        (
            Entry(line.row, sort=line.row),
            *(NONE if (b := line.bleu.get(d)) is None else Entry(f.score(b), sort=b) for d in DIRECTIONS),
            *(NONE if (c := line.flops.get(d)) is None else Entry(f.power(c, 1), sort=c) for d in DIRECTIONS),
            *(Entry(line.clock.get(d, "").replace(" x ", " × ") or f.MISSING) for d in DIRECTIONS),
            Entry(line.citation, sort=line.citation),
        )
        for line in context.published
    ]
    return Table(
        "published", "As published: table 2 of Vaswani et al. 2017, WMT 2014, newstest2014", tuple(columns), tuple(rows)
    )
