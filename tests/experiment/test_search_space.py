"""Search spaces: every row has one, its presets lie in it, and every draw from it can be built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import torch

from bench.experiment import search_space
from bench.experiment.loading import member_row, resolve, row_files
from bench.experiment.yaml_layers import EXPERIMENTS, nested_settings
from bench.runs.suite import Suite
from bench.sweep.settings import Sweep
from bench.sweep.study import Study
from tests.helpers import tiny_job, tiny_sweep

LADDER = Suite.read(EXPERIMENTS / "ladder.yaml").rows  # a row that a user adds need not have a search space
ROWS = [row for row in LADDER if not member_row(row_files()[row], row)]
PRESETS = ("demo", "multi30k-cpu", "multi30k")


@pytest.fixture(scope="module", autouse=True)
def cached_parsing() -> Iterator[None]:
    with tiny_sweep.cached_parsing():
        yield


@pytest.mark.parametrize("row", ROWS)
def test_twenty_configurations_of_every_row_can_be_built(row: str) -> None:
    study = Study(Sweep(), row, "demo", [])
    assert len(study.space) >= 4
    job_hashes = []
    sampler = optuna.samplers.RandomSampler(seed=1)
    for trial in (optuna.create_study(sampler=sampler).ask() for _ in range(20)):
        values = study.suggest(trial)
        experiment = study.experiment(values)
        assert {key: search_space.setting_value(experiment, key) for key in values} == values
        with torch.device("meta"):
            model = experiment.build(100, 100)
        model.optimization = experiment.training
        model.configure_optimizers()
        job_hashes.append(experiment.job_hash)
    assert len(set(job_hashes)) == 20


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_in_its_space(row: str, preset: str) -> None:
    path = row_files()[row]
    base = resolve(path, row=row, preset=preset)
    values = search_space.preset_values(search_space.read_space(path, preset, row), base)
    again = resolve(path, row=row, preset=preset, suite=[nested_settings(values)])
    assert again.job_hash == base.job_hash


def test_a_condition_decides_whether_a_setting_is_searched(tmp_path: Path) -> None:
    decay, hold, share = (f"training.schedule.{name}" for name in ("decay", "hold", "warmup_share"))
    updates = [f"--{decay}=inverse_sqrt", f"--{share}=null", "--training.schedule.warmup=50"]
    tiny_job.write_corpus(tmp_path)
    flags = tiny_sweep.flags(tmp_path)
    for study, searched in (
        (Study(Sweep(), "gnmt", "multi30k", flags), share),  # its schedule is in shares of the budget
        (Study(Sweep(), "gnmt", "multi30k", [*flags, *updates]), hold),
    ):
        assert decay not in study.space
        suggested = study.suggest(optuna.trial.FixedTrial(dict.fromkeys(study.space, 0) | study.preset_values))
        assert {hold, share} & suggested.keys() == {searched}
    span = search_space.Range(0, 9, when={decay: "none"})
    assert search_space.is_active(span, {decay: "none"}, study.base), "a drawn value replaces that of the experiment"
    assert not search_space.is_active(span, {}, study.base)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"low": 1}, "high is None, no number"),
        ({"low": 2, "high": 1}, "low 2 is not below high 1"),
        ({"low": 0, "high": 1, "log": True}, "with log, low is above 0"),
        ({"low": 0.1, "high": 1, "log": True, "step": 0.1}, "there is no step"),
        ({"choices": [1], "low": 0, "high": 1}, "either low and high, or choices"),
        ({"choices": [1], "log": True}, "neither log nor step"),
        ({"hihg": 1}, "no search: model.dropout: key 'hihg', did you mean high"),
        (0.5, "expected low and high, or choices"),
        ({"low": 0, "high": 1, "step": 0.05}, "step 0.05 is no integer, but low and high are; write low as 0.0"),
        ({"low": 0.0, "high": float("nan")}, "high is .*NaN.*, no number"),
        ({"low": 0.0, "high": float("inf")}, "high is .*Infinity.*, no number"),
        ({"low": 1, "high": 2, "log": "false"}, "log is 'false'; write true or false"),
        ({"choices": "abc"}, r"choices is 'abc'; write a list, such as \[0.1, 0.2\]"),
    ],
)
def test_a_range_that_cannot_be_drawn_from_is_refused(entry: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps({"model": {"name": "gnmt"}, "search": {"model.dropout": entry}, "rows": {"one": {}}}))
    with pytest.raises(ValueError, match=message):
        search_space.read_space(path, "demo", "one")


def test_a_space_is_merged_from_base_file_preset_and_row(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        """
model: {name: gnmt}
search_base: common
search: {training.clip: {choices: [1.0]}, model.dropout: {low: 0.0, high: 0.1}}
presets: {demo: {search: {training.optimizer.lr: {low: 0.1, high: 0.2}}}}
rows: {one: {presets: {demo: {search: {model.dropout: {low: 0.0, high: 0.3}}}}}}
"""
    )
    space = search_space.read_space(path, "demo", "one")
    common = ["lr", "warmup", "hold", "warmup_share", "label_smoothing", "dropout"]
    assert [key.rpartition(".")[2] for key in space] == [*common, "clip"]
    assert (space["training.optimizer.lr"].low, space["model.dropout"].high) == (0.1, 0.3)
    assert resolve(path).row == "one", "a space is not a setting"
    path.write_text("model: {name: gnmt}\nsearch_base: comon\nrows: {one: }")
    with pytest.raises(ValueError, match="no search_base 'comon', did you mean common"):
        search_space.read_space(path, "demo", "one")
