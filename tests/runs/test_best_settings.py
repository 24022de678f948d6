"""The best settings of a sweep in a suite, and the tuning costs that the suite records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.runs import best_settings
from bench.runs.suite import Suite, run_suite
from tests.helpers import tiny_sweep
from tests.helpers.threaded_workers import FakeJobs, ThreadBackend
from tests.helpers.tiny_sweep import better_with_smaller_lr, flags, store, sweep


@pytest.fixture(scope="module", autouse=True)
def cached_parsing() -> Iterator[None]:
    with tiny_sweep.cached_parsing():
        yield


def test_a_suite_takes_the_best_settings_with_fresh_seeds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(better_with_smaller_lr)
    (result,) = sweep(folder, monkeypatch, jobs, "trials: 2")
    best_lr = result.study.best_trials()[0].params["training.optimizer.lr"]
    suite = Suite(rows=["perceptron", "mlp"], sweeps={"mlp": "sweep"}, seeds=[1, 2])
    jobs.started.clear()
    results, completed = run_suite(folder / "table.yaml", suite, flags(folder), again=False, backend=ThreadBackend())
    assert completed
    assert {r.experiment.training.optimizer.lr for r in results if r.experiment.row == "mlp"} == {best_lr}
    assert {experiment.seed for experiment in jobs.started} == {1, 2}
    parent = store(folder).parent_run("table")
    assert parent
    assert json.loads(parent.tags["about"])["mlp"] == {"name": "MLP (sigmoid)", "year": "1986"}
    tuning = json.loads(parent.tags["tuning"])
    assert tuning["mlp"] | {"study": "", "spent": 0} == {
        "sweep": "sweep", "study": "", "granted": 600.0, "spent": 0, "debt": 600.0,
    }  # fmt: skip
    path = store(folder).download(parent, "best_so_far.json", folder)
    assert path
    curve = json.loads(path.read_text())["rows"]["mlp"]
    assert curve[-1][1] == pytest.approx(result.best)
    same_seed = Suite(rows=["mlp"], sweeps={"mlp": "sweep"}, seeds=[1001])
    with pytest.raises(ValueError, match="seed 1001 is the seed of sweep sweep; final numbers need other seeds"):
        run_suite(folder / "table.yaml", same_seed, flags(folder), False)
    for row, corpus in (("lstm", "files-en-de"), ("mlp", "grammar-en-de")):
        message = f"this sweep has no study of the row at preset demo on {corpus}; .*; run first: bench sweep"
        with pytest.raises(ValueError, match=message):
            best_settings.find({row: "sweep"}, "demo", [corpus], store(folder))


def test_an_ensemble_has_the_tuning_budget_of_its_members(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(folder, monkeypatch, FakeJobs(better_with_smaller_lr), "trials: 2", rows=("gnmt",))
    suite = Suite(rows=["gnmt", "gnmt-ensemble", "mlp"], sweeps={"gnmt": "sweep"})
    run_suite(folder / "table.yaml", suite, flags(folder), again=False, backend=ThreadBackend())
    parent = store(folder).parent_run("table")
    assert parent
    tuning = json.loads(parent.tags["tuning"])
    assert tuning["gnmt-ensemble"] == tuning["gnmt"]
    assert tuning["gnmt"]["debt"] == 600.0


def test_an_unfinished_study_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(folder, monkeypatch, FakeJobs(better_with_smaller_lr), "trials: 3", max_seconds=0)
    with pytest.raises(ValueError, match="this study is not finished, 3 trials remain"):
        best_settings.find({"mlp": "sweep"}, "demo", ["files-en-de"], store(folder))
