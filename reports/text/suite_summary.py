"""What the run of a suite shows in the MLflow UI: the comparison as its description, and metrics of the whole suite."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from statistics import fmean, stdev

from bench.tracking import ui_view
from reports.gathering.context import Cell, Context, Row, Track
from reports.tables.table import number_entry, score_entry
from reports.text import findings
from reports.text.escaping import markdown

MAX_CHARACTERS = 7500
"""Length of a description; MLflow stores 8,000 characters at most."""

SUMS = {"train_flops": "total_train_flops", "energy_j": "total_energy_j"}
"""Costs of a job -> the metric of the suite that is their sum."""


def description(context: Context, experiment: str, parent: str, linked: Collection[str]) -> str:
    """The description of the suite's own run: the comparison, with links to its jobs and to the report. Markdown.

    Args:
        experiment: Id of the suite's experiment in the store that shows the description.
        parent: Id of the run.
        linked: Ids of the runs that the store has; others are named without a link.
    """
    say, tracks = context.catalogue, context.tracks
    here = ui_view.page(experiment)
    view = ui_view.address("", experiment, "suite")
    headings = [say("table.model"), *(f"{say.label('bleu')} {track.label}" for track in tracks)]
    headings += [f"{say.label(name)}, {say.unit(name)}" for name in ("train_flops", "params", "latency_p50_ms")]
    lines = [
        markdown(context.question),
        "",
        f"[Compare the rows]({view}) · [report]({here}/{parent}/artifacts/report/report.html)",
        "",
        f"| {' | '.join(map(markdown, headings))} |",
        f"| :--- |{' ---: |' * (len(headings) - 1)}",
    ]
    end = ["", *(markdown(sentence) for sentence in findings.sentences(context))]
    room = MAX_CHARACTERS - sum(len(line) + 1 for line in [*lines, *end])
    rows = [_line(context, row, here, linked) for row in context.rows]
    while rows and sum(len(line) + 1 for line in rows) > room:
        rows.pop()
    left_out = len(context.rows) - len(rows)
    more = [f"| ... {say.count('row', left_out)} |{' |' * (len(headings) - 1)}"] if left_out else []
    return "\n".join([*lines, *rows, *more, *end])


def _line(context: Context, row: Row, here: str, linked: Collection[str]) -> str:
    """The row of the table. The name links to the row's first run, and the number of a seed to that seed's run."""
    cells = [row.cells[track] for track in context.tracks]
    first = next((cell for cell in cells if cell.runs), cells[0])
    links = [
        f"[{markdown(text)}]({here}/{run.id})" if run.id in linked else markdown(text)
        for n, (seed, run) in enumerate((seed, run) for cell in cells for seed, run in cell.runs.items())
        for text in [row.name if n == 0 else f"s{seed}"]
    ]
    entries = [score_entry("bleu", cell.number("bleu", cell.track.test_set)) for cell in cells]
    scores = [f"{markdown(e.text)} ({markdown(e.details[0])})" if e.details else markdown(e.text) for e in entries]
    costs = [number_entry(name, first.number(name)).text for name in ("train_flops", "params", "latency_p50_ms")]
    return f"| {' '.join(links) or markdown(row.name)} | {' | '.join([*scores, *map(markdown, costs)])} |"


def metrics(context: Context) -> dict[str, float]:
    """Metrics of the whole suite: best BLEU of each direction, rows and costs; mean and deviation over seeds of rows.

    A row is finished if it has a finished run on every track, and failed if a seed of it failed and has no finished
    run. Costs are sums over all finished jobs, without ensembles, whose costs are those of their members; a cost that
    one of these jobs lacks has no sum.
    """
    found: dict[str, float] = {}
    for track in context.tracks:
        direction = track.label.lower().replace(" ", "-")
        if scored := context.scored(track):
            found[f"best_bleu/{direction}"] = scored[0].cells[track].value("bleu", track.test_set) or 0.0
        for row in context.rows:
            number = row.cells[track].number("bleu", track.test_set)
            seeds = [value for value in number.seeds.values() if value is not None] if number else []
            if len(seeds) > 1:
                found[f"{row.id}/{direction}/bleu_mean"] = fmean(seeds)
                found[f"{row.id}/{direction}/bleu_sd"] = stdev(seeds)
    cells = list(_cells(context))
    of_rows = [row.cells.values() for row in context.rows]
    found["rows_finished"] = sum(all(cell.runs for cell in of_row) for of_row in of_rows)
    found["rows_failed"] = sum(
        any(state == "failed" for cell in of_row for _, state, _ in cell.failures) for of_row in of_rows
    )
    single = [cell for _, _, cell in cells if cell.runs and not cell.is_ensemble]
    for name, total in SUMS.items():
        values = [value for cell in single for value in _of_seeds(cell, name)]
        if values and None not in values:
            found[total] = sum(value for value in values if value is not None)
    found["training_hours"] = sum(value or 0.0 for cell in single for value in _of_seeds(cell, "wall_s")) / 3600
    return found


def _cells(context: Context) -> Iterator[tuple[Row, Track, Cell]]:
    return ((row, track, row.cells[track]) for row in context.rows for track in context.tracks)


def _of_seeds(cell: Cell, name: str) -> list[float | None]:
    """The values of a metric for each seed of a cell; None where it was not measured."""
    number = cell.numbers.get(("", name))
    return [number.seeds.get(seed) if number else None for seed in cell.runs]
