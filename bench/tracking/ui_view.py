"""The views of suites and sweeps in the MLflow UI: which runs, columns and charts a reviewer finds there.

The UI reads a shared view from a tag of the experiment, mlflow.sharedViewState.KEY, if the address has
viewStateShareKey=KEY. Its format is the UI's own and not documented, so it stands in this file only, and a journey
(tests/journeys/test_ui.py) opens the views in a browser and reads their cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from bench.tracking.pages import all_experiments

TRIED_VERSIONS = ("3.17",)
"""The versions of MLflow, without the patch number, whose UI was tried with these views."""

Kind = Literal["suite", "sweep"]

QUERIES: dict[Kind, str] = {"suite": "tags.kind = 'job'", "sweep": "tags.kind = 'trial'"}
"""The runs that a view shows: not the suite's own run, under which the UI would fold its jobs."""

WIDTHS = {"attributes.`Run Name`": 268, "runDateAndNestInfo": 122}
"""Column -> width in pixels, of the columns that the UI always shows first. The longest name of a run is not cut."""

COLUMN_WIDTHS = {
    "train_flops": 118,
    "validation_excess_loss": 150,
    "training.optimizer.lr": 130,
    "size": 45,
    "family": 102,
    "direction": 70,
    "seed": 45,
    "trial": 45,
}
COLUMN_WIDTH = 76
"""Pixels, also of the columns that COLUMN_WIDTHS does not name. FLOPs need 13 digits, or their size is not seen."""

MAX_RUNS = 100
"""Runs in a chart; the UI's own default is 10."""


@dataclass(frozen=True)
class View:
    """A view of a suite or a sweep that a store has.

    Attributes:
        newest: Start of its newest run.
        experiment: Id of its experiment.
    """

    kind: Kind
    name: str
    newest: datetime
    experiment: str

    def address(self, base: str) -> str:
        """Its address at an MLflow server; without a server, the link inside the UI."""
        return address(base, self.experiment, self.kind)


def find(client: MlflowClient) -> list[View]:
    """The views of all suites and sweeps that have runs, the one with the newest run first."""
    found: list[View] = []
    for experiment in all_experiments(client):
        for kind, query in QUERIES.items():
            if tag(kind) in experiment.tags:
                ids, newest_first = [experiment.experiment_id], ["attributes.start_time DESC"]
                for run in client.search_runs(ids, query, ViewType.ACTIVE_ONLY, 1, newest_first):
                    started = datetime.fromtimestamp((run.info.start_time or 0) / 1000, UTC)
                    found.append(View(kind, experiment.name, started, experiment.experiment_id))
    return sorted(found, key=lambda view: view.newest, reverse=True)


def tag(kind: Kind) -> str:
    """The tag of an experiment that holds a view."""
    return f"mlflow.sharedViewState.{kind}"


def address(base: str, experiment: str, kind: Kind, charts: bool = False) -> str:
    """The address of a view.

    Args:
        base: Address of the MLflow server; empty for a link inside the UI.
        experiment: Id of the experiment.
        charts: The charts in place of the table.
    """
    mode = "&compareRunsMode=CHART" if charts else ""
    start = f"{base.rstrip('/')}/" if base else ""
    return f"{start}{page(experiment)}?workflowType=machine_learning{mode}&viewStateShareKey={kind}"


def page(experiment: str) -> str:
    """The link to the page of an experiment's runs, inside the UI."""
    return f"#/experiments/{experiment}/runs"


def _links(lines: str, experiment: str, kind: Kind) -> str:
    """The links to the table and the charts of a view, which end the first paragraph of a description. Markdown."""
    table, charts = (address("", experiment, kind, as_charts) for as_charts in (False, True))
    return f"**[Compare the {lines}]({table})** or [see the charts]({charts}).\n\n"


def suite_description(question: str, experiment: str, parent: str) -> str:
    """The description of the experiment of a suite: its question, and how to read the runs. Markdown.

    The links are in the first paragraph, because the UI shows no more until a reader unfolds the text.

    Args:
        question: The question of the suite; may be empty.
        experiment: Id of the experiment.
        parent: Id of the suite's own run.
    """
    return (
        f"{' '.join(question.split())} {_links('rows', experiment, 'suite')}"
        "The comparison has one line for each job, the highest BLEU first. BLEU is in percent on the test set, "
        "train_flops are the counted FLOPs of the training, latency is that of a single sentence. The "
        f"[run of the suite]({page(experiment)}/{parent}) has the table with intervals and the report."
    )


def sweep_description(goal: str, experiment: str) -> str:
    """The description of the experiment of a sweep, in Markdown. `goal` is the metric that it optimizes first."""
    return (
        f"{_links('trials', experiment, 'sweep')}"
        f"The comparison has one line for each trial with the settings that were searched, the best {goal} first. The "
        "runs of the studies have the best settings."
    )


def suite_view(scores: Sequence[str]) -> str:
    """The jobs of a suite as a flat list, best BLEU first.

    Args:
        scores: Metrics with the BLEU of the test sets that tables show, such as test/bleu. The first one sorts.
    """
    metrics = [*scores, "train_flops", "params", "latency_p50_ms", "sentences_per_s"]
    charts = [
        *(_scatter("train_flops", score) for score in scores),
        *(_bars(name) for name in (*scores, "latency_p50_ms")),
        *(_curves(name) for name in ("validation/bleu", "validation/loss")),
    ]
    return _view("suite", metrics, ["family", "direction", "seed"], [], charts, (scores[0], False))


def study_description(question: str, experiment: str, parent: str) -> str:
    """The description of the experiment of a scaling study, as `suite_description`."""
    return (
        f"{' '.join(question.split())} {_links('runs', experiment, 'suite')}"
        "The comparison has one line for each run, the lowest excess loss first: a row at one size, with one "
        "budget in sentence pairs, and a seed. Curves, intervals and crossings are in the report of the "
        f"[run of the study]({page(experiment)}/{parent})."
    )


def study_view(score: str) -> str:
    """The runs of a scaling study as a flat list, lowest excess validation loss first.

    Args:
        score: Metric with the BLEU of the first test set; "" if no run has one.
    """
    loss, scores = "validation_excess_loss", [score] if score else []
    metrics = [loss, *scores, "train_flops", "params", "pairs", "wall_s"]
    charts = [_scatter(cost, loss) for cost in ("train_flops", "wall_s", "pairs")]
    charts += [_scatter("train_flops", name) for name in scores]
    return _view("suite", metrics, ["family", "size", "seed"], ["training.optimizer.lr"], charts, (loss, True))


def sweep_view(goals: Mapping[str, Literal["minimize", "maximize"]], settings: Sequence[str]) -> str:
    """The trials of a sweep, the best by the first goal first.

    Args:
        goals: Metric that the sweep optimizes -> its direction.
        settings: Keys of the settings that it searches.
    """
    first = next(iter(goals))
    charts = [_scatter("trial", goal) for goal in goals]
    charts += [_parallel(settings, list(goals)), _curves("validation/bleu"), _curves("validation/loss")]
    order = (first, goals[first] == "minimize")
    return _view("sweep", list(goals), ["trial", "state"], settings, charts, order)


def _view(
    kind: Kind,
    metrics: Sequence[str],
    tags: Sequence[str],
    params: Sequence[str],
    charts: Sequence[Mapping[str, Any]],
    order: tuple[str, bool],
) -> str:
    """The JSON of a view. `order` is a metric and whether its lowest value is first."""
    names = {"metrics": metrics, "tags": tags, "params": params}
    widths = {f"{group}.`{name}`": COLUMN_WIDTHS.get(name, COLUMN_WIDTH) for group in names for name in names[group]}
    section = {"uuid": "comparison", "name": "Comparison", "display": True, "isReordered": True}
    common = {"deleted": False, "isGenerated": False, "metricSectionId": section["uuid"]}
    return json.dumps(
        {
            "searchFilter": QUERIES[kind],
            "orderByKey": f"metrics.`{order[0]}`",
            "orderByAsc": order[1],
            "selectedColumns": list(widths),
            "columnOrder": [*WIDTHS, *widths],  # the UI ignores the width of a column that is not in it
            "columnWidths": WIDTHS | widths,
            "runsHiddenMode": "SHOWALL",  # else the charts have the first ten runs only
            "compareRunSections": [section],
            "isAccordionReordered": True,
            "compareRunCharts": [{"uuid": f"chart{n}", **common, **chart} for n, chart in enumerate(charts)],
        },
        separators=(",", ":"),
    )


def _scatter(x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return {"type": "SCATTER", "runsCountToCompare": MAX_RUNS, **axes}


def _bars(metric: str) -> dict[str, Any]:
    return {"type": "BAR", "runsCountToCompare": MAX_RUNS, "metricKey": metric}


def _curves(metric: str) -> dict[str, Any]:
    keys = {"metricKey": metric, "selectedMetricKeys": [metric], "xAxisKey": "step"}
    return {"type": "LINE", "runsCountToCompare": MAX_RUNS, **keys}


def _parallel(params: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    chosen = {"selectedParams": list(params), "selectedMetrics": list(metrics), "showAllRuns": False}
    return {"type": "PARALLEL", "runsCountToCompare": MAX_RUNS, **chosen}
