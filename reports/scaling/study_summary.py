"""What the run of a study shows in the terminal and in the MLflow UI: the best run of each row, and the verdicts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import fmean

from bench.scaling.analysis import Analysis
from bench.scaling.points import Point, with_equal_budgets
from bench.system import formatting
from bench.tracking import ui_view
from reports.scaling import verdicts
from reports.scaling.study import Study
from reports.text.catalogue import Catalogue
from reports.text.escaping import markdown


def best_points(study: Study) -> dict[str, list[Point]]:
    """Row -> the runs, one for each seed, of the size and budget with the lowest mean loss; not of rows without one."""
    found: dict[str, list[Point]] = {}
    for row in study.labels:
        cells: dict[tuple[str, float], list[Point]] = {}
        for point in with_equal_budgets([point for point in study.points if point.row == row]):
            cells.setdefault((point.size, point.pairs), []).append(point)
        if cells:
            found[row] = min(cells.values(), key=lambda points: fmean(point.loss for point in points))
    return found


def terminal_table(say: Catalogue, study: Study) -> tuple[list[tuple[str, str]], list[list[str]], str]:
    """Columns, rows and title for bench.system.terminal.table: the best run of each row."""
    headings = _headings(say)
    lines = [
        [study.labels[row], *_cells(points), " ".join(point.run[:8] for point in points)]
        for row, points in best_points(study).items()
    ]
    columns = [(headings[0], "left"), *((heading, "right") for heading in headings[1:]), (say("table.run"), "left")]
    return columns, lines, say("scale.summary.title", study=study.name)


def description(
    say: Catalogue, study: Study, analysis: Analysis, experiment: str, parent: str, linked: Collection[str]
) -> str:
    """The description of the study's own run, with links to the runs of the table. Markdown.

    Args:
        experiment: Id of the MLflow experiment.
        parent: Id of the run.
        linked: Ids of the runs that the store has; others are named without a link.
    """
    here = ui_view.page(experiment)
    view = ui_view.address("", experiment, "suite")
    headings = _headings(say)
    lines = [
        markdown(study.question),
        "",
        f"[{say('scale.summary.compare')}]({view}) · [report]({here}/{parent}/artifacts/report/report.html)",
        "",
        *(markdown(sentence) for sentence in verdicts.finding(say, study, analysis)),
        "",
        f"| {' | '.join(map(markdown, headings))} |",
        f"| :--- |{' ---: |' * (len(headings) - 1)}",
    ]
    for row, points in best_points(study).items():
        name = markdown(study.labels[row])
        shown = f"[{name}]({here}/{points[0].run})" if points[0].run in linked else name
        lines.append(f"| {shown} | {' | '.join(map(markdown, _cells(points)))} |")
    return "\n".join(lines)


def metrics(study: Study, analysis: Analysis) -> dict[str, float]:
    """Metrics of the whole study: lowest excess loss of each row, runs and costs, and the verdicts at equal FLOPs."""
    found = {f"{row}/lowest_excess_loss": fmean(point.loss for point in of) for row, of in best_points(study).items()}
    all_runs = [*study.points, *study.further_runs]
    found["runs_finished"], found["runs_missing"] = float(len(all_runs)), float(len(study.failed))
    found["total_train_flops"] = sum(run.flops for run in all_runs)
    if times := [run.seconds for run in all_runs if run.seconds is not None]:
        found["training_hours"] = sum(times) / 3600
    compared = [pair.crossing.verdict for pair in analysis.pairs if pair.cost == "flops" and pair.crossing]
    for verdict in ("crosses", "none in range", "not resolved"):
        found[f"pairs/{verdict.replace(' ', '_')}"] = float(compared.count(verdict))
    return found


def _headings(say: Catalogue) -> list[str]:
    names = ("row", "size", "pairs", "flops", "loss", "bleu")
    return [say(f"scale.summary.{name}") for name in names]


def _cells(points: Sequence[Point]) -> list[str]:
    """Size, budget, FLOPs, and the means of loss and BLEU over seeds."""
    first = points[0]
    bleus = [point.bleu for point in points if point.bleu is not None]
    return [
        first.size,
        formatting.count(round(first.pairs)),
        formatting.power_of_ten(first.flops),
        formatting.fixed(fmean(point.loss for point in points), 3),
        formatting.fixed(fmean(bleus), 1) if bleus else formatting.MISSING,
    ]
