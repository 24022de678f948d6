"""The files of sweeps."""

from __future__ import annotations

from bench.experiment.yaml_layers import EXPERIMENTS
from bench.sweep.settings import GOALS, VALIDATION_SCORE, Sweep


def test_the_sweeps_of_the_repository_can_be_read() -> None:
    for path in EXPERIMENTS.glob("sweep*.yaml"):
        assert set(Sweep.read(path).goals) <= {VALIDATION_SCORE, *GOALS}
