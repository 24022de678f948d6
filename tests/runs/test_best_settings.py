"""The best settings of a sweep in a suite, and the tuning costs that the suite records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pytest

from bench.experiment import tuned
from bench.runs import best_settings
from bench.runs.run_suite import run_suite
from bench.runs.suite import Suite
from bench.sweep import recipes
from bench.tracking.reading import TrackedRun
from tests.helpers import tiny_search, tiny_sweep
from tests.helpers.threaded_workers import FakeJobs, ThreadBackend
from tests.helpers.tiny_sweep import better_with_smaller_lr, flags, store, sweep


@pytest.fixture(scope="module", autouse=True)
def cached_parsing() -> Iterator[None]:
    with tiny_sweep.cached_parsing():
        yield


@pytest.fixture(autouse=True)
def own_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_search.use_folder(tmp_path, monkeypatch)


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
        "sweep": "sweep", "study": "", "granted": 600.0, "spent": 0, "debt": 600.0, "no_search": False,
    }  # fmt: skip
    assert tuning["perceptron"] == {
        "sweep": "", "study": "", "granted": None, "spent": None, "debt": None, "no_search": True,
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


def test_settings_that_a_flag_has_fixed_belong_to_the_best_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best learning rate was found with this dropout; the vocabulary is that of the whole table."""
    sweep(folder, monkeypatch, FakeJobs(better_with_smaller_lr), "trials: 2", more_flags=["--model.dropout=0.25"])
    layer = best_settings.find({"mlp": "sweep"}, "demo", ["files-en-de"], store(folder))["mlp"].layer
    assert layer["model"]["dropout"] == 0.25
    assert "optimizer" in layer["training"]
    assert "text" not in layer
    assert "max_pairs" not in layer["training"]


def test_an_ensemble_has_the_tuning_budget_of_its_members(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(folder, monkeypatch, FakeJobs(better_with_smaller_lr), "trials: 2", rows=("gnmt",))
    suite = Suite(rows=["gnmt", "gnmt-ensemble", "mlp"], sweeps={"gnmt": "sweep"})
    run_suite(folder / "table.yaml", suite, flags(folder), again=False, backend=ThreadBackend())
    parent = store(folder).parent_run("table")
    assert parent
    tuning = json.loads(parent.tags["tuning"])
    assert tuning["gnmt-ensemble"] == tuning["gnmt"]
    assert tuning["gnmt"]["debt"] == 600.0


# --- recipes of an equal search ---------------------------------------------------------------------------------------


def write_recipes(**rates: float) -> None:
    """Writes recipes of an equal search with 16 trials of 100 pairs: row -> learning rate."""
    rows = {row: tuned.Recipe(1, 20.0, "abc", {"training": {"optimizer": {"lr": lr}}}) for row, lr in rates.items()}
    recipes.write_recipes("demo", tuned.Tuned("tune-demo", 16, 100, 1001, "", rows))


def costs(
    suite: Suite, flags: Sequence[str] = (), best: Mapping[str, best_settings.BestSettings] | None = None
) -> dict[str, tuple[float | None, float | None, bool]]:
    """Row -> its budget granted, its debt, and whether its settings come from no search."""
    singles = [experiment for experiment in suite.experiments(flags) if not experiment.members]
    found = best_settings.tuning_costs(best or {}, singles)
    return {row: (each["granted"], each["debt"], each["no_search"]) for row, each in found.items()}


def test_rows_of_an_equal_search_have_no_debt_and_others_are_named() -> None:
    rows = Suite(rows=["perceptron", "mlp", "cnn"])
    unknown, equal = (None, None, True), (1600.0, 0.0, False)
    assert costs(rows) == {"perceptron": unknown, "mlp": unknown, "cnn": unknown}, "before there are recipes"
    write_recipes(perceptron=0.002, mlp=0.01)
    assert costs(rows) == {"perceptron": equal, "mlp": equal, "cnn": unknown}
    assert costs(rows, ["--training.max_pairs=900"]) == {"perceptron": equal, "mlp": equal, "cnn": unknown}
    assert set(costs(rows, ["--training.optimizer.lr=0.5"]).values()) == {unknown}, "the recipe was changed"
    changed = Suite(rows=["perceptron", "mlp"], settings={"training": {"optimizer": {"lr": 0.01}}})
    assert costs(changed) == {"perceptron": unknown, "mlp": equal}


def test_more_trials_than_the_equal_search_are_debt() -> None:
    write_recipes(perceptron=0.002, mlp=0.01)
    tags = {"pairs_granted": "600", "pairs_spent": "500"}
    study = TrackedRun("id", "study", "FINISHED", datetime(2026, 1, 1), tags, {}, {})
    best = {"mlp": best_settings.BestSettings("sweep", study, [study], {})}
    assert costs(Suite(rows=["perceptron", "mlp"]), best=best) == {
        "perceptron": (1600.0, 0.0, False), "mlp": (2200.0, 600.0, False),
    }  # fmt: skip
    repeated = {"mlp": best_settings.BestSettings("sweep", study, [study, study], {})}
    assert costs(Suite(rows=["perceptron", "mlp"]), best=repeated)["mlp"] == (2800.0, 1200.0, False)


def test_the_seed_of_an_equal_search_is_refused() -> None:
    write_recipes(mlp=0.01)
    best_settings.check_seeds({}, Suite(rows=["mlp", "cnn"], seeds=[1]).experiments([]))
    best_settings.check_seeds({}, Suite(rows=["cnn"], seeds=[1001]).experiments([]))
    with pytest.raises(ValueError, match="mlp: seed 1001 is the seed of sweep tune-demo; final numbers need other"):
        best_settings.check_seeds({}, Suite(rows=["mlp"], seeds=[1001]).experiments([]))


def test_an_unfinished_study_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(folder, monkeypatch, FakeJobs(better_with_smaller_lr), "trials: 3", max_seconds=0)
    with pytest.raises(ValueError, match="this study is not finished, 3 trials remain"):
        best_settings.find({"mlp": "sweep"}, "demo", ["files-en-de"], store(folder))
