"""Sweeps from the command to their runs: trials as attempts at jobs, failures, pruning, resuming, invalid input."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.runs.worker
from bench.cli.main import main
from bench.experiment.spec import Experiment
from bench.sweep.run_sweep import run_sweep
from bench.sweep.settings import Sweep
from bench.sweep.study import Study
from bench.system.progress import Status
from bench.training.budget import Diverged
from tests.helpers.threaded_workers import FakeJobs, ThreadBackend, WorkerKilled
from tests.helpers.tiny_sweep import better_with_smaller_lr, flags, store, sweep, trial_runs, write_sweep


def test_every_trial_is_a_job_and_the_preset_is_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(better_with_smaller_lr)
    results = sweep(folder, monkeypatch, jobs, "trials: 3", rows=("mlp", "perceptron"))
    assert [result.study.base.row for result in results] == ["mlp", "perceptron"]
    for result in results:
        assert result.job_counts["remaining"] == result.job_counts["FAILED"] == 0
        runs = trial_runs(folder, result)
        assert len({run.tags["job_hash"] for run in runs}) == 3
        assert [run.tags["attempt"] for run in runs] == ["1"] * 3
        assert runs[0].tags["job_hash"] == result.study.base.job_hash
        assert result.best is not None
        assert result.preset is not None
        assert result.best == max(run.metrics["validation_bleu"] for run in runs if run.tags["state"] == "COMPLETE")
        (study,) = (s for s in store(folder).studies("sweep") if s.tags["study"] == result.study.name)
        assert {run.tags["mlflow.parentRunId"] for run in runs} == {study.id}
        assert (study.status, study.tags["pairs_granted"]) == ("FINISHED", "900")
        best = next(run for run in runs if run.id == study.tags["best.run"])
        assert best.metrics["validation_bleu"] == result.best == study.metrics["best/validation_bleu"]
    # The same command again does nothing; with more trials it continues.
    sweep(folder, monkeypatch, jobs, "trials: 3", rows=("mlp", "perceptron"))
    assert len(jobs.started) == 6
    (more,) = sweep(folder, monkeypatch, jobs, "trials: 5")
    assert len(jobs.started) == 8
    assert len(trial_runs(folder, more)) == 5


def test_a_lost_attempt_stays_failed_and_the_job_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []

    def killed_twice(experiment: Experiment) -> list[float]:
        if len(killed) < 2:
            killed.append(experiment.job_hash)
            raise WorkerKilled
        return better_with_smaller_lr(experiment)

    (result,) = sweep(folder, monkeypatch, FakeJobs(killed_twice), "trials: 2", workers=1)
    runs = trial_runs(folder, result)
    assert killed[0] == killed[1] == result.study.base.job_hash
    assert [run.tags["attempt"] for run in runs] == ["3", "1"]
    assert [trial.state.name for trial in result.study.attempts()][:3] == ["FAIL", "FAIL", "COMPLETE"]
    assert result.study.attempts()[0].user_attrs["reason"] == "lost worker (signal 9)"
    assert sum(result.job_counts.values()) == result.job_counts["COMPLETE"] + result.job_counts["PRUNED"] == 2


def test_a_job_that_loses_three_workers_has_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = Study(Sweep(), "mlp", "demo", flags(folder)).preset_values["training.optimizer.lr"]

    def kills_worker(experiment: Experiment) -> list[float]:
        if experiment.training.optimizer.lr == preset:
            raise WorkerKilled
        return better_with_smaller_lr(experiment)

    (result,) = sweep(folder, monkeypatch, FakeJobs(kills_worker), "trials: 2")
    assert (result.job_counts["FAILED"], result.job_counts["remaining"], result.preset) == (1, 0, None)
    (run,) = (run for run in trial_runs(folder, result) if run.tags["state"] == "FAILED")
    assert (run.status, run.tags["attempt"], run.tags["reason"]) == ("FAILED", "3", "lost worker, 3 times")


def test_a_sweep_with_failed_jobs_ends_and_prints_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors: list[Exception] = [
        Diverged("the training loss is nan at update 3"),
        torch.OutOfMemoryError("CUDA out of memory"),
        KeyError("gone"),
    ]

    def fails_three_times(experiment: Experiment) -> list[float]:
        if errors:
            raise errors.pop(0)
        return better_with_smaller_lr(experiment)

    monkeypatch.setattr(bench.runs.worker, "run", FakeJobs(fails_three_times).run)
    monkeypatch.setattr("bench.runs.worker_backend.LocalBackend", ThreadBackend)
    path = write_sweep(folder, "trials: 4")
    arguments = ["sweep", str(path), "--row", "mlp", "--workers", "1", *flags(folder)]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    for reason in ("not a number: the training loss is nan at update 3", "out of memory: OutOfMemoryError", "KeyError"):
        assert f"failed: {reason}" in printed
    (study,) = store(folder).studies("sweep")
    runs = store(folder).trials("sweep", study.tags["study"])
    assert Counter(run.tags["state"] for run in runs)["FAILED"] == 3
    assert len(runs) == 4
    assert study.status == "FAILED"
    assert main(arguments) == 1  # nothing remains, but the exit code still reports the failed jobs
    assert "starts on worker" in printed
    assert "starts on worker" not in capsys.readouterr().out


def test_pairs_of_failed_jobs_count_as_spent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job fails after half of its budget; another loses its worker there and continues."""
    jobs, errors = FakeJobs(better_with_smaller_lr), [KeyError("gone"), WorkerKilled()]

    def run(*arguments: Any, **named: Any) -> Any:
        if errors:
            named["on_status"](Status(0.5, 5, 150, 0, 1.0, None, None))
            raise errors.pop(0)
        return jobs.run(*arguments, **named)

    monkeypatch.setattr(bench.runs.worker, "run", run)
    path = write_sweep(folder, "trials: 2")
    (result,) = run_sweep(path, Sweep.read(path), ("mlp",), "demo", flags(folder), ThreadBackend(1))
    assert (result.job_counts["FAILED"], result.job_counts["COMPLETE"]) == (1, 1)
    assert result.study.pairs_spent == 150 + 300


def test_bad_trials_are_pruned_and_their_runs_are_finished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def worse_than_the_last(experiment: Experiment) -> list[float]:
        started.append(experiment.job_hash)
        return [30.0 - len(started), 31.0 - len(started), 32.0 - len(started)]

    pruner = "pruner: {name: MedianPruner, settings: {n_startup_trials: 2, n_warmup_steps: 0}}"
    (result,) = sweep(folder, monkeypatch, FakeJobs(worse_than_the_last), f"trials: 4\n{pruner}", workers=1)
    assert result.job_counts["PRUNED"] == 2
    assert {run.status for run in trial_runs(folder, result)} == {"FINISHED"}
    assert Counter(run.metrics["pairs"] for run in trial_runs(folder, result)) == {300: 2, 100: 2}
    assert result.study.pairs_spent == 800


def test_a_stopped_sweep_continues_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(better_with_smaller_lr)
    (result,) = sweep(folder, monkeypatch, jobs, "trials: 2", max_seconds=0)
    assert (result.job_counts["remaining"], jobs.started) == (2, [])
    assert store(folder).studies("sweep")[0].status == "KILLED"
    # An attempt of a driver that was killed: the storage has it as running, without a recent heartbeat.
    study = result.study
    task = study.next_task("sweep", "", None)
    assert task
    monkeypatch.setattr(study.storage, "get_heartbeat_interval", lambda: 1)
    monkeypatch.setattr("optuna.storages.RDBStorage._get_stale_trial_ids", lambda *_: [study.running[0]._trial_id])
    study.refresh()
    (attempt,) = study.jobs[task.experiment.job_hash].attempts
    assert (attempt.state.name, attempt.user_attrs["reason"]) == ("FAIL", "the command has ended")
    assert study.jobs[task.experiment.job_hash].lost_workers == 0
    monkeypatch.undo()
    (result,) = sweep(folder, monkeypatch, jobs, "trials: 2")
    assert result.job_counts["remaining"] == 0
    assert [run.tags["attempt"] for run in trial_runs(folder, result)] == ["2", "1"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("trials: 0", [], "trials: 0 is too few"),
        ("sampler: {name: TPESampeler}", [], "no sampler 'TPESampeler', did you mean TPESampler"),
        ("sampler: {name: CmaEsSampler}", [], "sampler: CmaEsSampler: No module named 'cmaes'"),
        ("pruner: {name: MedianPruner, settings: {n: 1}}", [], "pruner: MedianPruner"),
        ("goals: [blue]", [], "no goals: metric 'blue'"),
        ("goals: []", [], "goals: the list is empty"),
        ("limits: {latency: 20}", [], "no limits: metric 'latency'"),
        ("trails: 3", [], "unknown key trails; did you mean trials"),
        ("limits: {params: .nan}", [], "limits: params: nan is no limit"),
        ("trial_pairs: 100", [], "trial_pairs: has an effect in an equal search only"),
        ("trials: 3", ["--storage", "postgresql+psycopg:/u:secret@h/db"], "--storage: is not a database URL"),
        ("trials: 3", ["--storage", "postgresql+psycopg://u:secret@h:port/db"], "--storage: is not a database URL"),
        ("trials: 3", ["--trials", "0"], "0 is too few; at least 1"),
        ("trials: 3", ["--row", "gnmtt"], "no row 'gnmtt', did you mean gnmt"),
        ("trials: 3", ["--row", "gnmt-ensemble"], "an ensemble has the settings of its members; sweep gnmt"),
        (
            "trials: 3",
            ["--preset", "paper", "--row", "lstm"],
            "training.optimizer.lr: the preset's 0.7 is none",
        ),
        ("trials: 3", ["--storage", "nonsense"], "--storage: is not a database URL"),
        (
            "trials: 3",
            ["--storage", "sqlite:////nowhere/at/all.db"],
            "--storage: cannot open sqlite:////nowhere/at/all",
        ),
        ("trials: 3", ["--storage", "postgresql+psycopg://me:secret@127.0.0.1:1/x"], "me:***@127.0.0.1:1/x"),
        ("trials: 3", ["--training.optimizer.lrr", "1"], "unknown key training.optimizer.lrr"),
    ],
)
def test_invalid_input_gives_one_line(
    text: str, arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(folder, text)
    rest = arguments if "--row" in arguments else ["--row", "mlp", *arguments]
    assert main(["sweep", str(path), *rest, *flags(folder)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert "secret" not in printed.err
