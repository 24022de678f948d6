"""Noise pooled over rows, and intervals by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from bench.checks.scaling_simulation import NOISE, REFERENCE, SIZES, STARTS, TOKENS, grid, noisy, with_losses
from bench.scaling.fit import Data, fit_law
from bench.scaling.uncertainty import (
    Noise,
    cells_of_runs,
    interval,
    loss_interval,
    noise_of,
    parameter_intervals,
    pooled_noise,
    simulate,
)


def row(seed: int, sizes: np.ndarray) -> Data:
    data = grid(sizes)
    return noisy(np.random.default_rng(seed), with_losses(data, REFERENCE.loss(data.sizes, data.tokens)))


def test_run_and_point_noise_are_found_from_seeds() -> None:
    """Six rows with three seeds of every size: 6 x 5 x 2 = 60 degrees of freedom; true deviations 0.007 and 0.003."""
    noise = pooled_noise([fit_law(row(seed, np.repeat(SIZES, 3)), starts=STARTS[:1]) for seed in range(6)])
    assert (noise.run_df, noise.source) == (60, "seeds")
    assert noise.run_sd == pytest.approx(0.007, rel=0.3)
    assert noise.point_sd == pytest.approx(0.003, rel=0.1)


def test_without_seeds_the_scatter_between_sizes_is_used() -> None:
    noise = pooled_noise([fit_law(row(seed, SIZES), starts=STARTS[:1]) for seed in range(6)])
    assert (noise.run_df, noise.source) == (12, "sizes")  # five sizes less E, A0 and a, in each of six rows
    assert noise.run_sd == pytest.approx(0.007, rel=0.5)


def test_a_scatter_between_sizes_beyond_that_of_seeds_is_used() -> None:
    """Sizes with a learning rate that is not tuned: +-5 % in turn."""
    data = row(1, np.repeat(SIZES, 3))
    untuned = with_losses(data, data.losses * np.where(data.runs // 3 % 2, 1.05, 0.95))
    noise = pooled_noise([fit_law(untuned, starts=STARTS[:1])])
    assert noise.source == "sizes"
    assert noise.run_sd == pytest.approx(0.007, rel=0.6)
    assert noise.spread_sd > noise.cell_sd > 0.02
    assert noise.df == noise.cell_df == 2  # five sizes less E, A0 and a


def test_the_deviation_of_a_size_is_told_from_that_of_its_seeds() -> None:
    """Twelve rows with a true deviation of 0.02 between sizes, beside 0.007 between runs: 24 degrees of freedom."""
    rows = []
    for seed in range(12):
        data = row(seed, np.repeat(SIZES, 3))
        of_size = 0.02 * np.random.default_rng(100 + seed).standard_normal(len(SIZES))
        rows.append(with_losses(data, data.losses * np.exp(of_size[data.runs // 3])))
    noise = pooled_noise([fit_law(data, starts=STARTS[:1]) for data in rows])
    assert noise.run_sd == pytest.approx(0.007, rel=0.3)
    assert noise.cell_sd == pytest.approx(0.02, rel=0.4)
    assert list(cells_of_runs(rows[0])) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    fit = fit_law(rows[0], starts=STARTS[:1])
    without = Noise(noise.run_sd, noise.run_df, noise.point_sd)
    widths = [
        np.ptp(np.quantile(simulate(fit, one, np.random.default_rng(1), 100)[:, 3], [0.1, 0.9]))
        for one in (without, noise)
    ]
    assert widths[1] > 1.5 * widths[0], "seeds of a size share its deviation, so they do not average it out"


def test_noise_without_any_replicate_is_an_error() -> None:
    with pytest.raises(ValueError, match="add seeds at the smallest sizes"):
        pooled_noise([fit_law(row(1, SIZES[:3]), starts=STARTS[:1])])


def test_intervals_contain_the_fit_and_grow_with_run_noise() -> None:
    fit, rng = fit_law(row(1, SIZES), starts=STARTS), np.random.default_rng(1)
    widths = []
    for run_sd in (0.002, 0.01):
        draws = simulate(fit, Noise(run_sd, 7, 0.003), rng, 100)
        found = parameter_intervals(fit, draws) | {"L": loss_interval(fit, draws, 4.5e6, 4 * TOKENS[-1])}
        assert all(one.low < one.value < one.high for one in found.values())
        widths.append(found["a"].high - found["a"].low)
    assert widths[1] > 2 * widths[0]
    assert NOISE.inflated_variance(fit) == pytest.approx(0.003**2 + 9 * 0.007**2)


def test_an_interval_leaves_out_draws_without_a_value() -> None:
    found = interval(5, np.array([*np.arange(101.0), np.nan]), 0.9)
    assert (found.low, found.value, found.high) == pytest.approx((5, 5, 95))


def test_intervals_of_a_saturated_law_contain_its_limit() -> None:
    """Noise puts the lowest losses below E, in the data and in every simulated set. E must be free to lie above them.

    With E below the lowest loss, most refits did not move, and intervals had no width.
    """
    covered, rng, data = 0, np.random.default_rng(3), grid(tokens=TOKENS[:8:2])
    truth = 0.9 + 0.03 * (data.sizes / 0.67e6) ** -0.6 + 0.05 * (data.tokens / 2e6) ** -0.6
    for _ in range(20):
        fit = fit_law(noisy(rng, with_losses(data, truth), run_sd=0.0, point_sd=0.03), starts=STARTS)
        draws = simulate(fit, Noise(0.0, 7, 0.03), rng, 60)
        assert np.ptp(draws, axis=0)[1:3].min() > 0
        ends = loss_interval(fit, draws, float(SIZES[-1]), float(TOKENS[6]))
        covered += ends.low <= truth[-1] <= ends.high
    assert covered >= 17


def test_a_row_with_enough_seeds_has_its_own_noise() -> None:
    quiet, loud = (fit_law(row(seed, np.repeat(SIZES, 3)), starts=STARTS[:1]) for seed in (1, 2))
    few = fit_law(row(3, SIZES), starts=STARTS[:1])
    pooled = pooled_noise([quiet, loud, few])
    assert noise_of(quiet, pooled) == pooled_noise([quiet])  # 5 sizes x 2 seeds beyond the first
    assert noise_of(few, pooled) == pooled
