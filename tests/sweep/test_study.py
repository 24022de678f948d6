"""Studies: attempts at jobs, interrupted and lost ones, duplicates, limits and the Pareto front."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import sqlalchemy

from bench.experiment.spec import Experiment
from bench.runs.worker import Task, TaskResult
from bench.sweep.run_sweep import print_results
from bench.sweep.settings import Sweep
from bench.sweep.storage import open_storage
from bench.sweep.study import Study
from bench.system.progress import Status
from tests.helpers import tiny_job, tiny_sweep
from tests.helpers.threaded_workers import FakeJobs
from tests.helpers.tiny_sweep import better_with_smaller_lr, store


def test_another_space_is_another_study() -> None:
    name = Study(Sweep(), "mlp", "demo", []).name
    assert name == Study(Sweep(trials=99), "mlp", "demo", []).name
    for flag in ("--training.clip=1", "--training.max_pairs=9000"):
        assert Study(Sweep(), "mlp", "demo", [flag]).name != name
    assert Study(Sweep(goals=["validation_loss"]), "mlp", "demo", []).name != name


def test_another_text_in_files_of_the_same_name_is_another_study(tmp_path: Path) -> None:
    def name(folder: str) -> str:
        flags = [*tiny_job.corpus_flags(tmp_path / folder), "--text.vocabulary_size=90"]
        return Study(Sweep(), "mlp", "demo", flags).name

    for folder in ("first", "copy", "longer"):
        (tmp_path / folder).mkdir()
        tiny_job.write_corpus(tmp_path / folder)
    for side, line in (("en", "The man sleeps.\n"), ("de", "Der Mann schläft.\n")):
        with (tmp_path / "longer" / f"train.{side}").open("a", encoding="utf-8") as file:
            file.write(line)
    assert name("first") == name("copy") != name("longer")


# --- attempts that end otherwise than by their result -----------------------------------------------------------------


def started_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Task]:
    """A study whose first attempt is in progress."""
    (result,) = tiny_sweep.sweep(folder, monkeypatch, FakeJobs(better_with_smaller_lr), "trials: 3", max_seconds=0)
    task = result.study.next_task("sweep", "", 1)
    assert task
    return result.study, task


def test_a_driver_that_was_suspended_keeps_its_attempts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, task = started_study(folder, monkeypatch)
    with study.storage.engine.begin() as connection:  # the last heartbeat is old, as after an hour of suspension
        connection.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = '2026-01-01 00:00:00'"))
    study.refresh()
    assert study.jobs[task.experiment.job_hash].lost_workers == 0


def test_an_attempt_that_another_driver_marked_as_lost_is_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, task = started_study(folder, monkeypatch)
    study.optuna_study.tell(task.id, state=optuna.trial.TrialState.FAIL)  # by the other driver
    assert not study.on_status(task, Status(0.5, 1, 100, 0, 1.0, None, 9.0, ((100, 9.0),)))
    assert "another driver" in study.on_result(task, TaskResult("failed", reason="whatever"), store(folder))
    assert study.job_counts() == {"COMPLETE": 0, "PRUNED": 0, "FAILED": 0, "remaining": 3}
    next_task = study.next_task("sweep", "", 1)
    assert next_task
    assert next_task.experiment.job_hash == task.experiment.job_hash


def test_a_driver_that_died_between_enqueue_and_start_causes_no_duplicate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (result,) = tiny_sweep.sweep(folder, monkeypatch, FakeJobs(better_with_smaller_lr), "trials: 3")
    study, spent = result.study, result.study.pairs_spent
    study.optuna_study.enqueue_trial(study.preset_values, {"retry_of": study.base.job_hash})
    study.sweep.trials += 1
    assert study.next_task("sweep", "", 1) is None
    task = study.next_task("sweep", "", 1)
    assert task
    assert task.experiment.job_hash not in {trial.user_attrs["job_hash"] for trial in study.attempts()[:3]}
    assert study.pairs_spent == spent


def test_an_exhausted_space_is_said_once_and_lost_jobs_still_continue(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, task = started_study(folder, monkeypatch)
    monkeypatch.setattr(study, "suggest", lambda trial: study.preset_values)  # the only point of the space
    capsys.readouterr()
    assert study.next_task("sweep", "", 1) is None
    assert "the search space is exhausted" in capsys.readouterr().out
    assert study.next_task("sweep", "", 1) is None
    assert capsys.readouterr().out == ""
    study.on_result(task, TaskResult("lost", reason="lost worker (signal 9)"), store(folder))
    assert study.remaining == 1
    again = study.next_task("sweep", "", 1)
    assert again
    assert again.experiment.job_hash == task.experiment.job_hash


# --- limits and goals -------------------------------------------------------------------------------------------------


def test_a_value_that_was_not_measured_is_within_no_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "trials: 2\nlimits: {peak_memory_bytes: 1000}"
    (result,) = tiny_sweep.sweep(folder, monkeypatch, FakeJobs(better_with_smaller_lr), text)
    assert result.job_counts["COMPLETE"] == 2
    assert result.study.best_trials() == []


def test_several_goals_give_a_pareto_front_within_the_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
trials: 5
sampler: {name: NSGAIISampler}
goals: [validation_bleu, latency_p50_ms]
limits: {latency_p50_ms: 15}
"""
    better_with_larger_lr = FakeJobs(lambda experiment: [1000 * experiment.training.optimizer.lr])
    (result,) = tiny_sweep.sweep(folder, monkeypatch, better_with_larger_lr, text)
    front = result.study.best_trials()
    assert front
    assert all(trial.values[1] <= 15 for trial in front)
    assert [trial.values[0] for trial in front] == sorted((trial.values[0] for trial in front), reverse=True)
    assert result.job_counts["PRUNED"] == 0  # with several goals nothing is pruned


# --- equal trials and the validation score ----------------------------------------------------------------------------


def lower_with_smaller_lr(experiment: Experiment) -> float:
    """A loss that is lower with a smaller learning rate."""
    return 1 + experiment.training.optimizer.lr


def test_of_equal_trials_that_with_the_lowest_loss_is_the_best(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = FakeJobs(lambda _: [0.0, 0.0], loss=lower_with_smaller_lr)
    (result,) = tiny_sweep.sweep(folder, monkeypatch, jobs, "trials: 5")
    (best,) = result.study.best_trials()
    rates = [trial.params["training.optimizer.lr"] for trial in result.study.attempts()]
    assert best.params["training.optimizer.lr"] == min(rates)
    assert best.number != 0, "the first trial, which has the settings of the preset, wins every tie by its number"
    print_results([result])
    message = "warning: mlp: validation_bleu is 0 in every complete trial, so it could not select one"
    assert message in capsys.readouterr().out
    (study,) = store(folder).studies("sweep")
    assert study.tags["validation_score.constant"] == "0"


def test_short_targets_are_searched_and_pruned_by_chrf(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_job.write_words(folder)
    jobs = FakeJobs(better_with_smaller_lr, metric="validation_chrf")
    (result,) = tiny_sweep.sweep(folder, monkeypatch, jobs, "trials: 2")
    assert result.study.sweep.goals == ["validation_chrf"]
    assert result.study.prunes
    assert result.best == max(trial.values[0] for trial in result.study.attempts())
    (study,) = store(folder).studies("sweep")
    assert (study.tags["goals"], study.tags["validation_score"]) == ("validation_chrf", "validation_chrf")
    assert study.tags["pruner"] == "MedianPruner"
    printed = capsys.readouterr().out
    assert "the validation score on files-en-de is chrF2, because only 0 of 12 validation references" in printed
    explicit = Study(Sweep(goals=["validation_bleu"]), "mlp", "demo", tiny_sweep.flags(folder))
    assert (explicit.sweep.goals, explicit.prunes) == (["validation_bleu"], False)


def test_the_direction_of_a_study_is_that_of_its_validation_score(folder: Path) -> None:
    for name in ("val.en", "val.de"):
        (folder / name).write_text("\n" * 11 + "A\n")  # one of twelve references has text
    study = Study(Sweep(), "mlp", "demo", tiny_sweep.flags(folder))
    assert study.sweep.goals == ["validation_loss"]
    assert study.prunes
    study.open(open_storage(None, folder / "runs"))
    assert [direction.name for direction in study.optuna_study.directions] == ["MINIMIZE"]
