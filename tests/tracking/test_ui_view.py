"""The views of suites and sweeps in the MLflow UI, as far as no browser is needed (see tests/journeys/test_ui.py)."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest

from bench.measures.measure import Measure
from bench.sweep.settings import DIRECTIONS, Direction
from bench.tracking import ui, ui_view
from tests.helpers.tracking_folder import new_store

TAG_LIMIT = 5000
"""Characters of an experiment's tag that MLflow stores."""


def test_the_installed_mlflow_is_one_that_the_views_were_tried_with() -> None:
    assert mlflow.__version__.rpartition(".")[0] in ui_view.TRIED_VERSIONS


def test_a_suite_is_sorted_by_the_bleu_of_its_first_test_set() -> None:
    view = json.loads(ui_view.suite_view(["test_2016/bleu", "test/bleu"]))
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`test_2016/bleu`", False)
    assert view["selectedColumns"][:3] == ["metrics.`test_2016/bleu`", "metrics.`test/bleu`", "metrics.`train_flops`"]
    kinds = [chart["type"] for chart in view["compareRunCharts"]]
    assert kinds == ["SCATTER", "SCATTER", "BAR", "BAR", "BAR", "LINE", "LINE"]


def test_a_sweep_is_sorted_in_the_direction_of_its_first_goal() -> None:
    settings = ["training.optimizer.lr", "model.dropout"]
    view = json.loads(ui_view.sweep_view({"validation_loss": "minimize", "params": "minimize"}, settings))
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`validation_loss`", True)
    assert {f"params.`{key}`" for key in settings} <= set(view["selectedColumns"])
    parallel = next(chart for chart in view["compareRunCharts"] if chart["type"] == "PARALLEL")
    assert (parallel["selectedParams"], parallel["selectedMetrics"]) == (settings, ["validation_loss", "params"])


def test_views_fit_into_a_tag() -> None:
    goals: dict[str, Direction] = {goal: DIRECTIONS[goal] for goal in ("latency_p50_ms", "validation_bleu")}
    assert len(ui_view.sweep_view(goals, [f"training.optimizer.setting_{n}" for n in range(12)])) < TAG_LIMIT
    assert len(ui_view.suite_view([f"test_{year}_flickr/bleu" for year in range(2016, 2020)])) < TAG_LIMIT


@pytest.mark.parametrize("base", ["http://h:5000", "http://h:5000/", "http://h/mlflow"])
def test_an_address_and_a_link_lead_to_the_same_page(base: str) -> None:
    link = ui_view.address("", "7", "suite", charts=True)
    assert ui_view.address(base, "7", "suite", charts=True) == f"{base.rstrip('/')}/{link}"
    assert link.startswith("#/experiments/7/runs?")


def test_views_are_listed_with_the_newest_run_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = new_store(tmp_path / "runs")
    assert ui_view.find(store.client) == []
    for suite, kind in (("older", "job"), ("a sweep", "trial"), ("newer", "job"), ("without runs", "")):
        view = "sweep" if kind == "trial" else "suite"
        store.set_view(suite, view, ui_view.suite_view(["test/bleu"]), "What?")
        if kind:
            store.begin(suite, suite, {"kind": kind}).measures([Measure("test/bleu", 1.0, "percent")])
    assert [(view.kind, view.name) for view in ui_view.find(store.client)] == [
        ("suite", "newer"),
        ("sweep", "a sweep"),
        ("suite", "older"),
    ]
    newest = ui._print_views(store, "http://127.0.0.1:5000")
    assert newest == ui_view.address("http://127.0.0.1:5000", store.experiment_id("newer"), "suite")
    printed = capsys.readouterr().out
    assert newest in printed
    assert printed.index("suite newer") < printed.index("sweep a sweep") < printed.index("suite older")
