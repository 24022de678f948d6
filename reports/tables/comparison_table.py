"""The comparison: the first table of a report, with what each row measured and what its paper published."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.measures import metric_registry
from bench.system import formatting
from reports.gathering.context import OTHER_CODE, STILL_IMPROVING, Cell, Context, Row, Track
from reports.tables.table import EMPTY, Column, Entry, Run, Table, number_entry, score_entry
from reports.text.catalogue import Catalogue

LATENCY = ("latency_p50_ms", "latency_p95_ms")
COSTS = ("clock_flops", "energy_j")
DIRECTIONS = ("en-de", "en-fr")
"""Directions of the published numbers."""

MAX_NAMED = 6
"""Marked cells of the table that a footnote names."""

METRICS = ("bleu", "train_flops", *COSTS, *LATENCY, *metric_registry.OWN_COLUMNS)
"""The metrics of the table that are better in one direction."""


def comparison_table(context: Context) -> Table:
    """The table. Metrics with a `column_group` in the registry have their columns after the latency."""
    say, tracks = context.catalogue, context.tracks
    cost, latency = say("table.cost"), say("table.latency")
    several = len(tracks) > 1
    columns = [
        Column(say("table.model"), side="left"),
        Column(say("table.year")),
        Column(say.label("params"), say.unit("params")),
        *(Column(track.label, group=say.label("bleu")) for track in tracks),
        *(
            Column(f"{say('table.counted')}{f' {track.label}' if several else ''}", say.unit("train_flops"), cost)
            for track in tracks
        ),
        Column(say("table.clock"), say.unit("clock_flops"), cost, opened_by="cost"),
        Column(say("table.energy"), say.unit("energy_j"), cost, opened_by="cost"),
        Column("p50", group=f"{latency}, {say.unit(LATENCY[0])}"),
        Column("p95", group=f"{latency}, {say.unit(LATENCY[1])}", opened_by="speed"),
        *(
            Column(say.label(name), say.unit(name), opened_by=metric_registry.metric(name).column_group)
            for name in metric_registry.OWN_COLUMNS
        ),
        *(Column(direction.upper(), group=say("table.published_bleu"), own=False) for direction in DIRECTIONS),
        *(
            Column(
                direction.upper(),
                group=f"{say('table.published_cost')}, {say.unit('train_flops')}",
                own=False,
                opened_by="published",
            )
            for direction in DIRECTIONS
        ),
    ]
    best = {track: _best_row(context, track) for track in tracks}
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
                Entry(str(row.year), sort=row.year) if row.year else EMPTY,
                number_entry("params", first.number("params")),
                *(_bleu(say, row.cells[track], row.id == best[track]) for track in tracks),
                *(number_entry("train_flops", row.cells[track].number("train_flops")) for track in tracks),
                *(_cost(say, first, name) for name in COSTS),
                *(number_entry(name, first.number(name)) for name in (*LATENCY, *metric_registry.OWN_COLUMNS)),
                *_published(row),
            )
        )
    notes = [
        *footnotes.values(),
        *_naming_rows(context, STILL_IMPROVING, "still_improving", lambda cell: cell.still_improving),
        *_naming_rows(context, OTHER_CODE, "other_code", lambda cell: cell.of_other_code),
    ]
    return Table("comparison", say("table.caption"), tuple(columns), tuple(rows), tuple(notes))


def _naming_rows(
    context: Context, mark: str, key: str, seeds_of: Callable[[Cell], Sequence[int]]
) -> list[tuple[str, str]]:
    """The footnote `table.KEY`, which names the rows and seeds with a mark; nothing if there are none.

    More than MAX_NAMED are not named, because the mark is beside their BLEU: the footnote says how many runs they are.
    """
    say, named, marked_runs, runs = context.catalogue, [], 0, 0
    for track in context.tracks:
        for row in context.rows:
            cell = row.cells[track]
            # An ensemble has no validation of its own, so it cannot have the mark.
            runs += len(cell.runs) if not cell.is_ensemble or key == "other_code" else 0
            if marked := seeds_of(cell):
                marked_runs += len(marked)
                direction = [track.label] if len(context.tracks) > 1 else []
                seeds = [f"{len(marked)}/{say.count('seed', len(cell.runs))}"] if len(cell.runs) > 1 else []
                named.append(", ".join([row.name, *direction, *seeds]))
    if not named:
        return []
    rows = "; ".join(named)
    if len(named) > MAX_NAMED:
        rows = say("table.marked_runs", marked=marked_runs, runs=say.count("run", runs))
    return [(mark, say(f"table.{key}", rows=rows))]


def direction_note(context: Context) -> str:
    """The note that says of which metrics higher values are better, and of which lower ones."""
    say = context.catalogue
    labels = {
        better: "; ".join(say.label(name) for name in METRICS if metric_registry.metric(name).better == better)
        for better in ("higher", "lower")
    }
    return say("table.directions", **labels)


def _runs(context: Context, cells: Sequence[Cell]) -> tuple[Run, ...]:
    """The runs of a row, labelled by track and seed."""
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


def _cost(say: Catalogue, cell: Cell, name: str) -> Entry:
    """A cost that not every machine can measure: says "not measured" where a finished run has no value."""
    entry = number_entry(name, cell.number(name))
    return Entry(say("not_measured"), missing=True) if entry is EMPTY and cell.runs else entry


def _bleu(say: Catalogue, cell: Cell, best: bool) -> Entry:
    """BLEU on the track's first test set; without a finished run the state of the row."""
    entry = score_entry("bleu", cell.number("bleu", cell.track.test_set))
    if entry is EMPTY:
        return Entry(say(f"state.{cell.state}")) if cell.state != "finished" else EMPTY
    marks = {STILL_IMPROVING: cell.still_improving, OTHER_CODE: cell.of_other_code}
    return replace(entry, best=best, mark="".join(mark for mark, seeds in marks.items() if seeds))


def _best_row(context: Context, track: Track) -> str:
    """Id of the row whose BLEU is significantly above that of every other row; empty if there is none."""
    scored = [row.id for row in context.scored(track)]
    tests = [context.comparison(track, row, scored[0]) for row in scored[1:]]
    return scored[0] if tests and all(test and test.verdict == "worse" for test in tests) else ""


def _published(row: Row) -> list[Entry]:
    """Published BLEU and training cost by direction."""
    line = row.published
    if line is None:
        return [EMPTY] * 4
    bleu, flops = ([numbers.get(direction) for direction in DIRECTIONS] for numbers in (line.bleu, line.flops))
    return [
        *(EMPTY if n is None else Entry(formatting.published_score(n), sort=n) for n in bleu),
        *(EMPTY if n is None else Entry(formatting.power_of_ten(n, 1), sort=n) for n in flops),
    ]
