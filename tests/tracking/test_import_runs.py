"""Runs that are moved from one SQLite store to another (tests/journeys/test_move_runs.py: to a server and back)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.measures.measure import Measure
from bench.tracking import export, import_runs, ui_view
from bench.tracking.import_runs import ImportResult
from bench.tracking.reading import TrackedRun
from bench.tracking.store import DESCRIPTION_TAG, PARENT_TAG, Store, TrackingSettings


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def new_store(folder: Path) -> Store:
    return Store(TrackingSettings(f"sqlite:///{folder}/mlflow.db", str(folder)))


@pytest.fixture
def origin(tmp_path: Path) -> Store:
    """A store with a suite of two jobs, one of which names the other as its member, and a view."""
    store = new_store(tmp_path / "origin")
    parent = store.start_parent("pair", {"rows": "a,b", "question": "What?"})
    member = add_job(store, "a", parent)
    ensemble = add_job(store, "b", parent, {"members": json.dumps([member])})
    store.end(parent, "FINISHED")
    text = ui_view.suite_description("What?", store.experiment_id("pair"), ensemble)
    store.set_view("pair", "suite", ui_view.suite_view(["test/bleu"]), text)
    return store


def add_job(store: Store, row: str, parent: str, tags: Mapping[str, str] | None = None) -> str:
    job = store.begin("pair", f"{row} en-de s1", {"row": row, "job_hash": row * 16, **(tags or {})}, parent)
    job.params({f"key{number}": number for number in range(150)})
    job.datasets({"test": "ab" * 32}, "toy-en-de", {"test": "{}"})
    job.curve([(step, "validation/loss", 1 / step) for step in range(1, 20)])
    job.table({"source": ["A cat."], "hypothesis": ["Eine Katze."]}, "hypotheses/test.json")
    job.text(json.dumps({"run": job.id}), "importance.json")
    job.measures([Measure("test/bleu", 31.5, "percent", 30.0, 33.0), Measure("params", 2**60 + 1, "parameters")])
    job.finish("FINISHED")
    return job.id


def move(source: Store, target: Store, folder: Path, artifacts: bool = False) -> ImportResult:
    export.export(source, folder, export.exportable(source), artifacts)
    return import_runs.import_runs(target, export.Export(folder))


def content(store: Store, run: TrackedRun) -> dict[str, Any]:
    """Everything of a run that must be equal in another store."""
    raw = store.client.get_run(run.id)
    history = {
        name: [(point.step, point.value, point.timestamp) for point in store.client.get_metric_history(run.id, name)]
        for name in run.metrics
    }
    datasets = raw.inputs.dataset_inputs if raw.inputs else []
    inputs = [(one.dataset.name, one.dataset.digest) for one in datasets]
    ours = {key: value for key, value in run.tags.items() if not key.startswith(("mlflow.", "attention_ladder."))}
    ours.pop("members", None)
    times = raw.info.start_time, raw.info.end_time
    return {"name": run.name, "status": run.status, "times": times, "tags": ours, "params": run.params} | {
        "history": history,
        "inputs": inputs,
        "measures": store.measures(run),
    }


def test_a_moved_suite_has_everything_under_new_ids(origin: Store, tmp_path: Path) -> None:
    target = new_store(tmp_path / "target")
    assert move(origin, target, tmp_path / "export") == ImportResult(3, 0, ["pair"])
    here, there = ({run.tags["row"]: run for run in store.runs("pair")} for store in (target, origin))
    assert here.keys() == there.keys() == {"a", "b"}
    for row, run in here.items():
        assert content(target, run) == content(origin, there[row])
    parent = target.parent_run("pair")
    assert parent
    assert (parent.status, parent.tags["question"]) == ("FINISHED", "What?")
    assert {run.tags[PARENT_TAG] for run in here.values()} == {parent.id}
    assert json.loads(here["b"].tags["members"]) == [here["a"].id]
    assert target.read_json(here["a"], "importance.json") == {"run": here["a"].id}
    tags = target.client.get_experiment(target.experiment_id("pair")).tags
    assert tags[ui_view.tag("suite")] == ui_view.suite_view(["test/bleu"])
    assert f"#/experiments/{target.experiment_id('pair')}/runs/{here['b'].id}" in tags[DESCRIPTION_TAG]
    assert target.hypotheses(here["a"], "test").empty, "the export has no sentences"


def test_artifacts_are_moved_on_request(origin: Store, tmp_path: Path) -> None:
    target = new_store(tmp_path / "target")
    move(origin, target, tmp_path / "export", artifacts=True)
    for run in target.runs("pair"):
        assert list(target.hypotheses(run, "test")["hypothesis"]) == ["Eine Katze."]


def test_an_import_can_be_repeated_and_goes_home(origin: Store, tmp_path: Path) -> None:
    target = new_store(tmp_path / "target")
    move(origin, target, tmp_path / "export")
    assert move(origin, target, tmp_path / "export") == ImportResult(0, 3, ["pair"])
    before = {run.id for run in origin.runs("pair")}
    assert move(target, origin, tmp_path / "back") == ImportResult(0, 3, ["pair"]), "these runs were made here"
    assert {run.id for run in origin.runs("pair")} == before


def test_runs_of_two_machines_join_under_one_suite(origin: Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other")
    add_job(other, "c", other.start_parent("pair", {"rows": "c"}))
    target = new_store(tmp_path / "target")
    move(origin, target, tmp_path / "first")
    assert move(other, target, tmp_path / "second") == ImportResult(1, 1, ["pair"])
    parent = target.parent_run("pair")
    assert parent
    assert [(run.tags["row"], run.tags[PARENT_TAG]) for run in target.runs("pair")] == [
        (row, parent.id) for row in ("c", "b", "a")
    ]


def test_an_interrupted_import_continues(origin: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = new_store(tmp_path / "target")
    write, calls = import_runs._write_files, iter(range(9))

    def interrupt(*arguments: Any) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(import_runs, "_write_files", interrupt)
        with pytest.raises(KeyboardInterrupt):
            move(origin, target, tmp_path / "export")
    assert move(origin, target, tmp_path / "export") == ImportResult(2, 1, ["pair"])
    assert sorted(run.tags["row"] for run in target.runs("pair")) == ["a", "b"]
    parent = target.parent_run("pair")
    assert parent
    assert {run.tags[PARENT_TAG] for run in target.runs("pair")} == {parent.id}


def test_a_running_run_has_ended_in_the_other_store(origin: Store, tmp_path: Path) -> None:
    origin.resume(origin.runs("pair")[0].id)
    target = new_store(tmp_path / "target")
    move(origin, target, tmp_path / "export")
    assert sorted(run.status for run in target.runs("pair")) == ["FINISHED", "KILLED"]
