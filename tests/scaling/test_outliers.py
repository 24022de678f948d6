"""A wrong run, and points in the middle of a schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.checks.scaling_simulation import POINT_SD, REFERENCE, SIZES, STARTS, TOKENS, grid, noisy, with_losses
from bench.scaling.fit import Data, fit_law
from bench.scaling.outliers import deviation_limit, drift_deviation, schedule_drift, wrong_run
from bench.scaling.uncertainty import Noise


def points_only() -> Data:
    data = with_losses(grid(), REFERENCE.loss(grid().sizes, grid().tokens))
    return noisy(np.random.default_rng(1), data, run_sd=0.0)


@pytest.mark.parametrize("run", [1, 3])
def test_a_run_that_is_worse_by_a_tenth_is_found_and_no_healthy_run(run: int) -> None:
    data, noise = points_only(), Noise(0.0, 7, POINT_SD)
    assert wrong_run(fit_law(data, starts=STARTS), noise) is None
    found = wrong_run(
        fit_law(with_losses(data, data.losses * np.where(data.runs == run, 1.1, 1.0)), starts=STARTS), noise
    )
    assert found
    assert found.run == run
    assert found.offset == pytest.approx(np.log(1.1), abs=0.02)


@pytest.mark.parametrize(
    ("runs", "noise", "limit"),
    [
        (1, Noise(0.01, 10, 0.0), 3.169),  # tables of Student's t: 0.995 quantile, 10 degrees of freedom
        (1, Noise(0.0, 10, 0.01), 2.576),  # the same of the normal distribution
        (10, Noise(0.01, 10, 0.0), 4.587),  # 0.9995 quantile
        (10, Noise(0.001, 4, 0.0, "sizes", cell_sd=0.01, cell_df=10), 4.587),  # those of the larger part
    ],
)
def test_the_limit_is_that_of_the_largest_of_many_deviations(runs: int, noise: Noise, limit: float) -> None:
    assert deviation_limit(runs, noise) == pytest.approx(limit, abs=1e-3)


def test_points_in_the_middle_of_a_cosine_schedule_are_flagged() -> None:
    """Hägele et al. 2024: only the end of the schedule counts; 0.08 nats too high at the peak learning rate."""
    data = points_only()
    too_high = 0.04 * (1 + np.cos(np.pi * data.tokens / TOKENS[-1]))
    drift = schedule_drift(with_losses(data, data.losses + too_high), starts=STARTS)
    assert drift.flagged
    assert drift.error > 0.015
    assert not schedule_drift(data, starts=STARTS).flagged


def test_the_error_of_a_drift_is_that_of_simulated_healthy_rows() -> None:
    """With a deviation of 2 % between runs, the prediction of a healthy row is often off by more than 1.5 %."""
    sizes, tokens = np.repeat(SIZES, 5), TOKENS[:5]
    data = Data(sizes, np.tile(tokens, len(SIZES)), np.ones(len(sizes)), np.arange(len(sizes)))
    data = with_losses(data, REFERENCE.loss(data.sizes, data.tokens))
    noise = Noise(0.02, 30, 0.0)
    rng = np.random.default_rng(4)
    healthy = [with_losses(data, data.losses * np.exp(0.02 * rng.standard_normal(len(sizes)))) for _ in range(40)]
    drifts = [
        replace(schedule_drift(one, starts=STARTS), deviation=drift_deviation(fit_law(one, starts=STARTS), noise))
        for one in healthy
    ]
    expected = drift_deviation(fit_law(data, starts=STARTS), noise)
    assert np.std([drift.error for drift in drifts]) == pytest.approx(expected, rel=0.35)
    assert sum(abs(drift.error) > 0.015 for drift in drifts) > 10
    assert sum(drift.flagged for drift in drifts) <= 6
