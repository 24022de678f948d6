"""Recipes as a layer of settings, and the file of trials."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.experiment import tuned
from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.experiment.tuned import Recipe, Trial, Tuned, read_trials, read_tuned, recipe_of, write_trials
from bench.sweep import recipes
from bench.sweep.recipes import write_recipes
from tests.helpers import tiny_search, tiny_sweep


@pytest.fixture(scope="module", autouse=True)
def cached_parsing() -> Iterator[None]:
    with tiny_sweep.cached_parsing():
        yield


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_search.use_folder(tmp_path, monkeypatch)


SHARES = {"warmup": 0, "hold": 0, "warmup_share": 0.2, "decay": "linear"}


def write(**rows: float) -> None:
    """Writes recipes for the demo: row (with _ for -) -> learning rate."""
    recipes = {
        row.replace("_", "-"): Recipe(3, 50.0, "abc", {"training": {"optimizer": {"lr": lr}, "schedule": dict(SHARES)}})
        for row, lr in rows.items()
    }
    write_recipes("demo", Tuned("tune-demo", 16, 48000, 1001, "", recipes))


def experiment(row: str, preset: str = "demo", **named: Any) -> Experiment:
    return resolve(row_files()[row], row=row, preset=preset, **named)


def test_a_recipe_is_above_the_row_and_below_suite_and_flags() -> None:
    before = experiment("transformer-big").training
    write(transformer_big=0.0123, gnmt=0.0077)
    training = experiment("transformer-big").training
    assert training.optimizer.lr == 0.0123, "the row's own preset has another value"
    assert training.optimizer.settings == before.optimizer.settings
    schedule = training.schedule
    assert (schedule.warmup, schedule.warmup_share, schedule.decay) == (0, 0.2, "linear")
    suite = [{"training": {"optimizer": {"lr": 0.5}}}]
    assert experiment("transformer-big", suite=suite).training.optimizer.lr == 0.5
    assert experiment("transformer-big", flags=["--training.optimizer.lr=0.25"]).training.optimizer.lr == 0.25
    assert experiment("transformer-big", tuned=False).training == before
    assert experiment("transformer-base").training.optimizer.lr != 0.0123
    assert experiment("transformer-big", "multi30k-cpu").training.schedule.warmup_share is None
    assert experiment("gnmt-ensemble").training.optimizer.lr == 0.0077, "an ensemble has the recipe of its members"
    assert {member.job_hash for member in experiment("gnmt-ensemble").members} == {
        replace(experiment("gnmt"), seed=seed).job_hash for seed in (1, 2)
    }


def test_a_changed_setting_is_not_the_recipe() -> None:
    assert recipe_of(experiment("mlp")) is None
    write(mlp=0.01)
    found = recipe_of(experiment("mlp", flags=["--training.max_pairs=500"]))
    assert found
    assert (found[0].pairs_granted, found[1].trial) == (16 * 48000, 3)
    for flag in ("--training.optimizer.lr=0.011", "--training.schedule.warmup_share=0.1"):
        assert recipe_of(experiment("mlp", flags=[flag])) is None
    assert recipe_of(experiment("cnn")) is None


@pytest.mark.parametrize("text", ["rows: [mlp]", "search: x", "rows: {mlp: {lr: 0.1}}"])
def test_a_file_that_no_command_wrote_is_refused(text: str) -> None:
    tuned.TUNED.mkdir()
    tuned.recipes_path("demo").write_text(text)
    with pytest.raises(ValueError, match=r"demo.yaml: not a file that bench tuned has written .* write it again"):
        read_tuned("demo")


def trial(row: str, number: int, bleu: float | None = 30.5, **settings: float) -> Trial:
    state = "DIVERGED" if bleu is None else "COMPLETE"
    values = {f"training.{key}": value for key, value in settings.items()}
    return Trial(row, number, state, bleu, None if bleu is None else 2.0, 300, 1001, f"hash{number}", "abc", values)


def test_trials_are_read_as_they_were_written() -> None:
    assert read_trials("demo") == []
    one, two, three = trial("mlp", 0, lr=0.1 + 0.2, hold=4), trial("cnn", 11, None, lr=1e-05), trial("cnn", 2, lr=0.5)
    write_trials("demo", [one, two])
    write_trials("demo", [three, replace(one, validation_bleu=99.0)])
    assert read_trials("demo") == [three, two, one], "sorted, and a trial that is there stays as it was"
    write_trials("demo", [replace(one, number=1, state="DIVERGED", validation_bleu=None, pairs=256)])
    assert tuned.pairs_spent("demo", "mlp") == 300 + 256, "a trial that diverged saw fewer pairs"
    digest = tuned.trials_sha256("demo")
    write_trials("demo", [])
    assert tuned.trials_sha256("demo") == digest


def test_commands_that_write_at_the_same_time_lose_no_trial() -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: write_trials("demo", [trial("mlp", number, lr=0.5)]), range(64)))
    assert [one.number for one in read_trials("demo")] == list(range(64))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("30.5", "high"),
        ("30.5", "nan"),
        ("COMPLETE", "COMPLET"),
        (",300,", ",,"),
        ("job_hash", "job"),
        ("\ncnn,2,", "\ncnn,"),
    ],
)
def test_a_line_that_is_no_trial_is_refused_with_its_number(old: str, new: str) -> None:
    write_trials("demo", [trial("cnn", 2, lr=0.5)])
    path = tuned.trials_path("demo")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=r"demo-trials.csv, line 2: not a trial \(.*\); .* restore the file from git"):
        read_trials("demo")


def test_of_trials_with_equal_bleu_that_with_the_lowest_loss_is_best() -> None:
    worse, better, later = (replace(trial("mlp", n), validation_loss=loss) for n, loss in enumerate((2.0, 1.0, 1.0)))
    assert recipes.best_first([worse, better, later, trial("mlp", 3, None)])[0] == better
    assert recipes.best_first([worse, better, trial("mlp", 3, 31.0)])[0].number == 3
