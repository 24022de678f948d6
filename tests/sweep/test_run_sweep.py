"""Sweeps: spaces that build, trials as attempts at jobs, pruning, goals and limits, and what a table takes of them."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
import torch

import bench.experiment.loading
import bench.runs.worker
from bench.cli.main import main
from bench.experiment import search_space
from bench.experiment.loading import architectures, resolve
from bench.experiment.spec import Experiment
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.runs import best_settings
from bench.runs.suite import Suite, run_suite
from bench.runs.worker import Task, TaskResult
from bench.sweep.run_sweep import SweepResult, run_sweep
from bench.sweep.settings import GOALS, Sweep
from bench.sweep.study import Study
from bench.system.progress import Status
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings
from bench.training.budget import Diverged
from tests.helpers import tiny_job
from tests.helpers.threaded_workers import FakeJobs, WorkerKilled, ThreadBackend

LADDER = Suite.read(EXPERIMENTS / "ladder.yaml").rows  # a row of somebody's own need not be swept
ROWS = [row for row in LADDER if not bench.experiment.loading.joined(architectures()[row], row)]
PRESETS = ("demo", "multi30k-cpu", "multi30k")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Parsers and files are read once: what is tested here is what they are given."""
    read, once = bench.experiment.loading.read_yaml, functools.lru_cache(bench.experiment.loading.read_yaml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            bench.experiment.loading, "read_yaml", lambda path: (once if path.parent == EXPERIMENTS else read)(path)
        )
        patch.setattr(bench.experiment.loading, "parser", functools.lru_cache(bench.experiment.loading.parser))
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_job.write_corpus(tmp_path)
    return tmp_path


def sweep_file(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def flags(folder: Path) -> list[str]:
    settings = {"text.vocabulary_size": 90, "training.max_pairs": 300, "tracking.folder": folder / "runs"}
    return tiny_job.corpus_flags(folder) + [f"--{key}={value}" for key, value in settings.items()]


def swept(
    folder: Path,
    patch: pytest.MonkeyPatch,
    jobs: FakeJobs,
    text: str = "trials: 4",
    rows: tuple[str, ...] = ("mlp",),
    workers: int = 2,
) -> list[SweepResult]:
    patch.setattr(bench.runs.worker, "run", jobs.run)
    path = sweep_file(folder, text)
    return run_sweep(path, Sweep.read(path), rows, "demo", flags(folder), ThreadBackend(workers))


def store(folder: Path) -> Store:
    return Store(TrackingSettings(None, str(folder / "runs")))


def trials(folder: Path, one: SweepResult) -> list[TrackedRun]:
    return sorted(store(folder).trials("sweep", one.study.name), key=lambda run: int(run.tags["trial"]))


def by_lr(experiment: Experiment) -> list[float]:
    """Validations of a job that gets better with a smaller learning rate."""
    best = 40 - 1000 * experiment.training.optimizer.lr
    return [best / 3, best / 2, best]


# --- spaces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
def test_twenty_configurations_of_every_row_can_be_built(row: str) -> None:
    study = Study(Sweep(), row, "demo", [])
    assert len(study.space) >= 4
    drawn = []
    sampler = optuna.samplers.RandomSampler(seed=1)
    for trial in (optuna.create_study(sampler=sampler).ask() for _ in range(20)):
        values = study.draw(trial)
        experiment = study.experiment("demo", row, values)
        assert {key: search_space.setting(experiment, key) for key in values} == values
        with torch.device("meta"):
            model = experiment.build(100, 100)
        model.optimization = experiment.training
        model.configure_optimizers()
        drawn.append(experiment.job_hash)
    assert len(set(drawn)) == 20


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_in_its_space(row: str, preset: str) -> None:
    path = architectures()[row]
    base = resolve(path, row=row, preset=preset)
    values = search_space.preset(search_space.read(path, preset, row), base)
    again = resolve(path, row=row, preset=preset, suite=[search_space.layer(values)])
    assert again.job_hash == base.job_hash


def test_a_condition_decides_whether_a_setting_is_searched() -> None:
    study = Study(Sweep(), "gnmt", "demo", [])
    decay, hold = "training.schedule.decay", "training.schedule.hold"
    fixed = dict.fromkeys(study.space, 0) | study.preset_values
    assert hold in study.draw(optuna.trial.FixedTrial(fixed))
    assert hold not in study.draw(optuna.trial.FixedTrial(fixed | {decay: "none"}))
    assert decay not in Study(Sweep(), "gnmt", "demo", [f"--{decay}=none"]).space


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"low": 1}, "high is None, no number"),
        ({"low": 2, "high": 1}, "low 2 is not below high 1"),
        ({"low": 0, "high": 1, "log": True}, "with log, low is above 0"),
        ({"low": 0.1, "high": 1, "log": True, "step": 0.1}, "there is no step"),
        ({"choices": [1], "low": 0, "high": 1}, "either low and high, or choices"),
        ({"choices": [1], "log": True}, "neither log nor step"),
        ({"hihg": 1}, "no search: model.dropout: key 'hihg', did you mean high"),
        (0.5, "expected low and high, or choices"),
    ],
)
def test_a_range_that_cannot_be_drawn_from_is_refused(entry: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps({"model": {"name": "gnmt"}, "search": {"model.dropout": entry}, "rows": {"one": {}}}))
    with pytest.raises(ValueError, match=said):
        search_space.read(path, "demo", "one")


def test_another_space_is_another_study() -> None:
    name = Study(Sweep(), "mlp", "demo", []).name
    assert name == Study(Sweep(trials=99), "mlp", "demo", []).name
    for flag in ("--training.clip=1", "--training.max_pairs=9000"):
        assert Study(Sweep(), "mlp", "demo", [flag]).name != name
    assert Study(Sweep(goals=["validation_loss"]), "mlp", "demo", []).name != name


# --- trials, attempts and jobs ----------------------------------------------------------------------------------------


def test_every_trial_is_a_job_and_the_preset_is_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(by_lr)
    both = swept(folder, monkeypatch, jobs, rows=("mlp", "perceptron"))
    assert [one.study.base.row for one in both] == ["mlp", "perceptron"]
    for one in both:
        assert one.states["left"] == one.states["FAILED"] == 0
        runs = trials(folder, one)
        assert len({run.tags["job_hash"] for run in runs}) == 4
        assert [run.tags["attempt"] for run in runs] == ["1"] * 4
        assert runs[0].tags["job_hash"] == one.study.base.job_hash
        assert one.best is not None
        assert one.preset is not None
        assert one.best == max(run.metrics["validation_bleu"] for run in runs if run.tags["state"] == "COMPLETE")
        (study,) = (s for s in store(folder).studies("sweep") if s.tags["study"] == one.study.name)
        assert {run.tags["mlflow.parentRunId"] for run in runs} == {study.id}
        assert (study.status, study.tags["pairs_granted"]) == ("FINISHED", "1200")
        best = next(run for run in runs if run.id == study.tags["best.run"])
        assert best.metrics["validation_bleu"] == one.best == study.metrics["best/validation_bleu"]
    # The same command does nothing again; more trials go on.
    started = len(jobs.started)
    swept(folder, monkeypatch, jobs, rows=("mlp", "perceptron"))
    assert len(jobs.started) == started == 8
    (more,) = swept(folder, monkeypatch, jobs, "trials: 6")
    assert len(jobs.started) == 10
    assert len(trials(folder, more)) == 6


def test_a_lost_attempt_stays_failed_and_the_job_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaths: list[str] = []

    def dying(experiment: Experiment) -> list[float]:
        if len(deaths) < 2:
            deaths.append(experiment.job_hash)
            raise WorkerKilled
        return by_lr(experiment)

    jobs = FakeJobs(dying)
    (one,) = swept(folder, monkeypatch, jobs, workers=1)
    runs = trials(folder, one)
    assert deaths[0] == deaths[1] == one.study.base.job_hash
    assert [run.tags["attempt"] for run in runs] == ["3", "1", "1", "1"]
    assert [trial.state.name for trial in one.study.attempts()][:3] == ["FAIL", "FAIL", "COMPLETE"]
    assert one.study.attempts()[0].user_attrs["reason"] == "lost worker (signal 9)"
    assert sum(one.states.values()) == one.states["COMPLETE"] + one.states["PRUNED"] == 4


def test_a_job_that_kills_three_workers_has_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = Study(Sweep(), "mlp", "demo", flags(folder)).preset_values["training.optimizer.lr"]

    def deadly(experiment: Experiment) -> list[float]:
        if experiment.training.optimizer.lr == preset:
            raise WorkerKilled
        return by_lr(experiment)

    (one,) = swept(folder, monkeypatch, FakeJobs(deadly))
    assert (one.states["FAILED"], one.states["left"], one.preset) == (1, 0, None)
    (run,) = (run for run in trials(folder, one) if run.tags["state"] == "FAILED")
    assert (run.status, run.tags["attempt"], run.tags["reason"]) == ("FAILED", "3", "lost worker, 3 times")


def test_failures_leave_a_sweep_that_ends_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors: list[Exception] = [
        Diverged("the training loss is nan at update 3"),
        torch.OutOfMemoryError("CUDA out of memory"),
        KeyError("gone"),
    ]

    def failing(experiment: Experiment) -> list[float]:
        if errors:
            raise errors.pop(0)
        return by_lr(experiment)

    monkeypatch.setattr(bench.runs.worker, "run", FakeJobs(failing).run)
    monkeypatch.setattr("bench.runs.worker_pool.LocalBackend", ThreadBackend)
    path = sweep_file(folder, "trials: 5")
    arguments = ["sweep", str(path), "--row", "mlp", "--workers", "1", *flags(folder)]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    for said in ("not a number: the training loss is nan at update 3", "out of memory: OutOfMemoryError", "KeyError"):
        assert f"failed: {said}" in printed
    (study,) = store(folder).studies("sweep")
    runs = store(folder).trials("sweep", study.tags["study"])
    assert Counter(run.tags["state"] for run in runs)["FAILED"] == 3
    assert len(runs) == 5
    assert study.status == "FAILED"
    assert main(arguments) == 1  # nothing is left to do, and the failed ones are still said
    assert "begins" not in capsys.readouterr().out


def test_what_a_failed_job_has_seen_is_spent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails at half of its budget, one that is lost there and goes on."""
    jobs, ends = FakeJobs(by_lr), [KeyError("gone"), WorkerKilled()]

    def failing(*arguments: Any, **named: Any) -> Any:
        if ends:
            named["watch"](Status(0.5, 5, 150, 0, 1.0, None, None))
            raise ends.pop(0)
        return jobs.run(*arguments, **named)

    monkeypatch.setattr(bench.runs.worker, "run", failing)
    path = sweep_file(folder, "trials: 3")
    (one,) = run_sweep(path, Sweep.read(path), ("mlp",), "demo", flags(folder), ThreadBackend(1))
    assert (one.states["FAILED"], one.states["COMPLETE"]) == (1, 2)
    assert one.study.spent == 150 + 2 * 300


def test_bad_trials_are_pruned_and_their_runs_have_finished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[str] = []

    def falling(experiment: Experiment) -> list[float]:
        first.append(experiment.job_hash)
        return [30.0 - len(first), 31.0 - len(first), 32.0 - len(first)]

    pruner = "pruner: {name: MedianPruner, settings: {n_startup_trials: 2, n_warmup_steps: 0}}"
    (one,) = swept(folder, monkeypatch, FakeJobs(falling), f"trials: 6\n{pruner}", workers=1)
    assert one.states["PRUNED"] == 4
    assert {run.status for run in trials(folder, one)} == {"FINISHED"}
    spent = Counter(run.metrics["pairs"] for run in trials(folder, one))
    assert spent == {300: 2, 100: 4}
    assert one.study.spent == 1000


def test_a_stopped_sweep_goes_on_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sweep_file(folder, "trials: 3")
    jobs = FakeJobs(by_lr)
    monkeypatch.setattr(bench.runs.worker, "run", jobs.run)
    (one,) = run_sweep(path, Sweep.read(path), ["mlp"], "demo", flags(folder), ThreadBackend(), max_seconds=0)
    assert (one.states["left"], jobs.started) == (3, [])
    assert store(folder).studies("sweep")[0].status == "KILLED"
    # An attempt of a driver that was killed: still running in the storage, and without a sign of life.
    study = one.study
    task = study.take("sweep", "", None)
    assert task
    monkeypatch.setattr(study.storage, "get_heartbeat_interval", lambda: 1)
    monkeypatch.setattr("optuna.storages.RDBStorage._get_stale_trial_ids", lambda *_: [study.open[0]._trial_id])
    study.read()
    assert study.jobs[task.experiment.job_hash].lost_workers == 1
    monkeypatch.undo()
    (two,) = swept(folder, monkeypatch, jobs, "trials: 3")
    assert two.states["left"] == 0
    assert [run.tags["attempt"] for run in trials(folder, two)] == ["2", "1", "1"]


def started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Task]:
    """A study whose first attempt is under way."""
    path = sweep_file(folder, "trials: 3")
    monkeypatch.setattr(bench.runs.worker, "run", FakeJobs(by_lr).run)
    (one,) = run_sweep(path, Sweep.read(path), ["mlp"], "demo", flags(folder), ThreadBackend(), max_seconds=0)
    task = one.study.take("sweep", "", 1)
    assert task
    return one.study, task


def test_a_driver_that_has_slept_keeps_its_attempts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, task = started(folder, monkeypatch)
    with study.storage.engine.begin() as connection:  # as an hour of sleep leaves it
        connection.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = '2026-01-01 00:00:00'"))
    study.read()
    assert study.jobs[task.experiment.job_hash].lost_workers == 0


def test_what_another_driver_took_for_lost_ends_in_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, task = started(folder, monkeypatch)
    study.optuna.tell(task.task_id, state=optuna.trial.TrialState.FAIL)  # by the other one
    assert not study.told(task, Status(0.5, 1, 100, 0, 1.0, None, 9.0, ((100, 9.0),)))
    assert "another driver" in study.tell(task, TaskResult("failed", reason="whatever"), store(folder))
    assert study.states() == {"COMPLETE": 0, "PRUNED": 0, "FAILED": 0, "left": 3}
    again = study.take("sweep", "", 1)
    assert again
    assert again.experiment.job_hash == task.experiment.job_hash


def test_a_driver_that_died_between_queue_and_beginning_starts_nothing_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = swept(folder, monkeypatch, FakeJobs(by_lr))
    study, spent = one.study, one.study.spent
    study.optuna.enqueue_trial(study.preset_values, {"again": study.base.job_hash})
    study.sweep.trials += 1
    assert study.take("sweep", "", 1) is None
    task = study.take("sweep", "", 1)
    assert task
    assert task.experiment.job_hash not in {trial.user_attrs["job_hash"] for trial in study.attempts()[:4]}
    assert study.spent == spent


def test_what_was_not_measured_is_within_no_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = swept(folder, monkeypatch, FakeJobs(by_lr), "trials: 2\nlimits: {peak_memory_bytes: 1000}")
    assert one.states["COMPLETE"] == 2
    assert one.study.best_trials() == []


def test_several_goals_give_a_front_within_the_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
trials: 8
sampler: {name: NSGAIISampler}
goals: [validation_bleu, latency_p50_ms]
limits: {latency_p50_ms: 15}
"""
    rising = FakeJobs(lambda experiment: [1000 * experiment.training.optimizer.lr])
    (one,) = swept(folder, monkeypatch, rising, text)
    best_trials = one.study.best_trials()
    assert best_trials
    assert all(trial.values[1] <= 15 for trial in best_trials)
    assert [t.values[0] for t in best_trials] == sorted((t.values[0] for t in best_trials), reverse=True)
    assert one.states["PRUNED"] == 0  # nothing is, with several goals


# --- what a table takes from it ---------------------------------------------------------------------------------------


def test_a_suite_takes_the_best_with_fresh_seeds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(by_lr)
    (one,) = swept(folder, monkeypatch, jobs)
    best = one.study.best_trials()[0].params["training.optimizer.lr"]
    suite = Suite(rows=["perceptron", "mlp"], sweeps={"mlp": "sweep"}, seeds=[1, 2])
    jobs.started.clear()
    outcomes, whole = run_suite(folder / "table.yaml", suite, flags(folder), again=False, place=ThreadBackend())
    assert whole
    assert {o.experiment.training.optimizer.lr for o in outcomes if o.experiment.row == "mlp"} == {best}
    assert {experiment.seed for experiment in jobs.started} == {1, 2}
    kept = store(folder)
    parent = kept.own("table")
    assert parent
    assert json.loads(parent.tags["about"])["mlp"] == {"name": "MLP (sigmoid)", "year": "1986"}
    told = json.loads(parent.tags["tuning"])
    assert told["mlp"] | {"study": "", "spent": 0} == {
        "sweep": "sweep", "study": "", "granted": 1200.0, "spent": 0, "debt": 1200.0,
    }  # fmt: skip
    path = kept.download(parent, "best_so_far.json", folder)
    assert path
    curve = json.loads(path.read_text())["rows"]["mlp"]
    assert curve[-1][1] == pytest.approx(one.best)
    with pytest.raises(ValueError, match="seed 1001 is that of sweep sweep; final numbers come from fresh seeds"):
        run_suite(
            folder / "table.yaml", Suite(rows=["mlp"], sweeps={"mlp": "sweep"}, seeds=[1001]), flags(folder), False
        )
    for row, corpus in (("lstm", "files-en-de"), ("mlp", "grammar-en-de")):
        with pytest.raises(ValueError, match=f"no study of it at preset demo on {corpus}; first bench sweep"):
            best_settings.find({row: "sweep"}, "demo", [corpus], kept)


def test_an_ensemble_has_had_the_tuning_of_its_members(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(folder, monkeypatch, FakeJobs(by_lr), rows=("gnmt",))
    suite = Suite(rows=["gnmt", "gnmt-ensemble", "mlp"], sweeps={"gnmt": "sweep"})
    run_suite(folder / "table.yaml", suite, flags(folder), again=False, place=ThreadBackend())
    parent = store(folder).own("table")
    assert parent
    told = json.loads(parent.tags["tuning"])
    assert told["gnmt-ensemble"] == told["gnmt"]
    assert told["gnmt"]["debt"] == 1200.0


def test_an_unfinished_study_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sweep_file(folder, "trials: 3")
    run_sweep(path, Sweep.read(path), ["mlp"], "demo", flags(folder), ThreadBackend(), max_seconds=0)
    with pytest.raises(ValueError, match="3 trials are left"):
        best_settings.find({"mlp": "sweep"}, "demo", ["files-en-de"], store(folder))


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("trials: 0", [], "trials: 0 is too few"),
        ("sampler: {name: TPESampeler}", [], "no sampler 'TPESampeler', did you mean TPESampler"),
        ("sampler: {name: CmaEsSampler}", [], "sampler: CmaEsSampler: No module named 'cmaes'"),
        ("pruner: {name: MedianPruner, settings: {n: 1}}", [], "pruner: MedianPruner"),
        ("goals: [blue]", [], "no goals: metric 'blue'"),
        ("goals: []", [], "goals: names no metric"),
        ("limits: {latency: 20}", [], "no limits: metric 'latency'"),
        ("trails: 3", [], "unknown key trails; did you mean trials"),
        ("trials: 3", ["--trials", "0"], "0 is too few; at least 1"),
        ("trials: 3", ["--row", "gnmtt"], "no row 'gnmtt', did you mean gnmt"),
        ("trials: 3", ["--row", "gnmt-ensemble"], "an ensemble has the settings of its members; sweep gnmt"),
        (
            "trials: 3",
            ["--preset", "paper", "--row", "lstm"],
            "training.optimizer.lr: the preset's 0.7 is none",
        ),
        ("trials: 3", ["--storage", "nonsense"], "--storage: 'nonsense' is no address"),
        (
            "trials: 3",
            ["--storage", "sqlite:////nowhere/at/all.db"],
            "--storage: cannot open sqlite:////nowhere/at/all",
        ),
        ("trials: 3", ["--storage", "postgresql+psycopg://me:secret@127.0.0.1:1/x"], "me:***@127.0.0.1:1/x"),
        ("trials: 3", ["--training.optimizer.lrr", "1"], "unknown key training.optimizer.lrr"),
    ],
)
def test_bad_input_is_one_line(
    text: str, arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep_file(folder, text)
    rest = arguments if "--row" in arguments else ["--row", "mlp", *arguments]
    assert main(["sweep", str(path), *rest, *flags(folder)]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert "secret" not in printed.err


def test_the_sweeps_of_the_repository_can_be_read() -> None:
    for path in EXPERIMENTS.glob("sweep*.yaml"):
        assert set(Sweep.read(path).goals) <= set(GOALS)
