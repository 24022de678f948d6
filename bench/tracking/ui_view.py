"""The views of suites and sweeps in the MLflow UI: which runs, columns and charts a reviewer finds there.

The UI reads a shared view from a tag of the experiment, mlflow.sharedViewState.KEY, if the address has
viewStateShareKey=KEY. Its format is the UI's own and not documented, so it stands in this file only, and a journey
(tests/journeys/test_ui.py) opens the views in a browser and reads their cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

TRIED_VERSIONS = ("3.17",)
"""The versions of MLflow, without the patch number, whose UI was tried with these views."""

Kind = Literal["suite", "sweep"]

QUERIES: dict[Kind, str] = {"suite": "tags.kind = 'job'", "sweep": "tags.kind = 'trial'"}
"""The runs that a view shows: not the suite's own run, under which the UI would fold its jobs."""

COLUMN_WIDTH = 85
NAME_WIDTH = 260
"""Pixels. A name such as Transformer (base, ensemble) en-de s1 is not cut."""

MAX_RUNS = 100
"""Runs in a chart; the UI's own default is 10."""


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


def suite_description(question: str, experiment: str, parent: str) -> str:
    """The description of the experiment of a suite: its question, and how to read the runs. Markdown.

    The links are in the first paragraph, because the UI shows no more until a reader unfolds the text.

    Args:
        question: The question of the suite; may be empty.
        experiment: Id of the experiment.
        parent: Id of the suite's own run.
    """
    table, charts = (address("", experiment, "suite", as_charts) for as_charts in (False, True))
    return (
        f"{' '.join(question.split())} **[Compare the rows]({table})** or [see the charts]({charts}).\n\n"
        "The comparison has one line for each job, the highest BLEU first. BLEU is in percent on the test set, "
        "train_flops are the counted FLOPs of the training, latency is that of a single sentence. The "
        f"[run of the suite]({page(experiment)}/{parent}) has the table with intervals and the report."
    )


def sweep_description(goal: str, experiment: str) -> str:
    """The description of the experiment of a sweep, in Markdown. `goal` is the metric that it optimizes first."""
    table, charts = (address("", experiment, "sweep", as_charts) for as_charts in (False, True))
    return (
        f"**[Compare the trials]({table})** or [see the charts]({charts}).\n\n"
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
        *(_scatter(f"{score} against training FLOPs", "train_flops", score) for score in scores),
        *(_bars(name) for name in (*scores, "latency_p50_ms")),
        *(_curves(name) for name in ("validation/bleu", "validation/loss")),
    ]
    return _view("suite", metrics, ["family", "direction", "seed"], [], charts, (scores[0], False))


def sweep_view(goals: Mapping[str, Literal["minimize", "maximize"]], settings: Sequence[str]) -> str:
    """The trials of a sweep, the best by the first goal first.

    Args:
        goals: Metric that the sweep optimizes -> its direction.
        settings: Keys of the settings that it searches.
    """
    first = next(iter(goals))
    charts = [_scatter(f"{goal} by trial", "trial", goal) for goal in goals]
    charts += [_parallel(settings, list(goals)), _curves("validation/bleu"), _curves("validation/loss")]
    order = (first, goals[first] == "minimize")
    return _view("sweep", list(goals), ["row", "trial", "state"], settings, charts, order)


def _view(
    kind: Kind,
    metrics: Sequence[str],
    tags: Sequence[str],
    params: Sequence[str],
    charts: Sequence[Mapping[str, Any]],
    order: tuple[str, bool],
) -> str:
    """The JSON of a view. `order` is a metric and whether its lowest value is first."""
    columns = [
        *(f"metrics.`{name}`" for name in metrics),
        *(f"tags.`{name}`" for name in tags),
        *(f"params.`{name}`" for name in params),
    ]
    section = {"uuid": "comparison", "name": "Comparison", "display": True, "isReordered": True}
    common = {"deleted": False, "isGenerated": False, "metricSectionId": section["uuid"]}
    return json.dumps(
        {
            "searchFilter": QUERIES[kind],
            "orderByKey": f"metrics.`{order[0]}`",
            "orderByAsc": order[1],
            "selectedColumns": columns,
            "columnOrder": columns,
            "columnWidths": {"attributes.`Run Name`": NAME_WIDTH} | dict.fromkeys(columns, COLUMN_WIDTH),
            "runsHiddenMode": "SHOWALL",  # else the charts have the first ten runs only
            "compareRunSections": [section],
            "isAccordionReordered": True,
            "compareRunCharts": [{"uuid": f"chart{n}", **common, **chart} for n, chart in enumerate(charts)],
        },
        separators=(",", ":"),
    )


def _scatter(name: str, x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return {"type": "SCATTER", "displayName": name, "runsCountToCompare": MAX_RUNS, **axes}


def _bars(metric: str) -> dict[str, Any]:
    return {"type": "BAR", "runsCountToCompare": MAX_RUNS, "metricKey": metric}


def _curves(metric: str) -> dict[str, Any]:
    keys = {"metricKey": metric, "selectedMetricKeys": [metric], "xAxisKey": "step"}
    return {"type": "LINE", "runsCountToCompare": MAX_RUNS, **keys}


def _parallel(params: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    chosen = {"selectedParams": list(params), "selectedMetrics": list(metrics), "showAllRuns": False}
    return {"type": "PARALLEL", "runsCountToCompare": MAX_RUNS, **chosen}
