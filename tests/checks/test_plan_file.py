"""The jobs of a file that is planned."""

from __future__ import annotations

from typing import Any

import pytest

from bench.checks.plan_file import read_jobs
from bench.experiment.yaml_layers import EXPERIMENTS


def test_the_jobs_of_a_suite() -> None:
    kind, jobs = read_jobs(EXPERIMENTS / "demo.yaml", ["--training.max_pairs", "100"], seeds=[1, 2])
    assert kind == "suite"
    assert len(jobs) == 20  # five rows, two directions, two seeds
    assert {job.experiment.training.max_pairs for job in jobs} == {100}


def test_the_trials_of_an_equal_search() -> None:
    kind, jobs = read_jobs(EXPERIMENTS / "tune-demo.yaml", [])
    assert kind == "sweep"
    assert [(job.count, job.is_trial) for job in jobs] == [(20, True)] * 17


def test_the_trials_of_a_sweep() -> None:
    _, jobs = read_jobs(EXPERIMENTS / "sweep.yaml", [], rows=["gnmt"], trials=5)
    assert [(job.experiment.row, job.experiment.preset, job.count) for job in jobs] == [("gnmt", "demo", 5)]


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        ("seq2seq.yaml", {}, "the file of an architecture; expected one of a suite, sweep or study"),
        ("sweep.yaml", {}, "names no rows"),
        ("sweep.yaml", {"rows": ["gnm"]}, "gnm"),
        ("sweep.yaml", {"seeds": [1]}, "--seeds: .* is a sweep"),
        ("demo.yaml", {"trials": 3}, "--trials: .* is a suite"),
        ("missing.yaml", {}, "file not found"),
    ],
)
def test_invalid_input(file: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_jobs(EXPERIMENTS / file, [], **arguments)
