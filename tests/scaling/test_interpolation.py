"""Rows that no law describes: their curves are interpolated between the means of the points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bench.checks.scaling_simulation import REFERENCE, SIZES, STARTS, Truth, flops_per_token, grid, with_losses
from bench.scaling.analysis import MAX_SCATTER, analyse
from bench.scaling.crossing import compare
from bench.scaling.fit import Fit, fit_law
from bench.scaling.frontier import Ladder
from bench.scaling.interpolation import Interpolation
from bench.scaling.laws import Array
from bench.scaling.points import Point
from bench.scaling.uncertainty import Noise
from tests.helpers.scaling_study import BUDGETS, points

SMOOTH = Truth(0.02, 60, 0.35, 1500, 0.55)


def late(sizes: Array, tokens: Array) -> Array:
    """The loss of a row that is worse than SMOOTH until it learns something, at about a million target tokens."""
    learnt = 1 / (1 + np.exp(-2.5 * np.log(np.asarray(tokens) / 1.2e6)))
    return SMOOTH.loss(sizes, tokens) * np.exp(0.5 - 1.0 * learnt)


def fitted(loss: Callable[[Array, Array], Array], seed: int = 0, sd: float = 0.0) -> Fit:
    data = grid(np.repeat(SIZES, 3), BUDGETS)
    data = replace(data, runs=np.arange(len(data.runs)))  # a run of its own to each budget
    noise = sd * np.random.default_rng(seed).standard_normal(len(data.runs))
    return fit_law(with_losses(data, loss(data.sizes, data.tokens) * np.exp(noise)), starts=STARTS)


def test_it_passes_through_the_means_of_the_points_and_is_linear_between_them() -> None:
    fit = fitted(late, 1, 0.05)
    between = Interpolation.of(fit)
    assert between.cells.shape == (25, 2)
    for size, tokens in between.cells:
        mine = (fit.data.sizes == size) & (fit.data.tokens == tokens)
        assert between.predict(size, tokens) == pytest.approx(np.exp(np.log(fit.data.losses[mine]).mean()))
    size, (first, second) = SIZES[2], BUDGETS[1:3]
    above_law = [float(np.log(between.predict(size, tokens) / fit.predict(size, tokens))) for tokens in (first, second)]
    middle = np.sqrt(first * second)
    assert np.log(between.predict(size, middle) / fit.predict(size, middle)) == pytest.approx(np.mean(above_law))
    beyond = 3 * BUDGETS[-1]
    assert np.log(between.predict(size, beyond) / fit.predict(size, beyond)) == pytest.approx(
        np.log(between.predict(size, BUDGETS[-1]) / fit.predict(size, BUDGETS[-1]))
    )
    sizes = np.sqrt(SIZES[:-1] * SIZES[1:])
    both = [np.log(between.predict(of, first) / fit.predict(of, first)) for of in (SIZES[:-1], sizes, SIZES[1:])]
    assert both[1] == pytest.approx((both[0] + both[2]) / 2)


def test_draws_have_the_shape_of_costs_and_sizes_and_the_noise_of_a_mean() -> None:
    between = Interpolation.of(fitted(late))
    noise = Noise(0.06, 20, 0.0, "sizes", cell_sd=0.3, cell_df=20)
    draws = between.simulate(noise, np.random.default_rng(3), 2000)
    assert draws.std(axis=0) == pytest.approx(np.full(25, 0.06 / np.sqrt(3)), rel=0.15)
    assert draws.mean(axis=0) == pytest.approx(between.parameters, abs=0.005)
    tokens = np.geomspace(BUDGETS[0], BUDGETS[-1], 7)[:, None] * np.ones(4)
    drawn = between.predict(SIZES[:4], tokens, draws[:5, None, None])
    assert drawn.shape == (5, 7, 4)
    assert drawn[2] == pytest.approx(replace(between, parameters=draws[2]).predict(SIZES[:4], tokens))


def test_the_error_of_a_budget_left_out_is_that_of_its_neighbours() -> None:
    fit = fitted(SMOOTH.loss)
    between = Interpolation.of(fit)
    assert between.leave_out_error == pytest.approx(0, abs=1e-6)
    bent = np.where(between.cells[:, 1] == BUDGETS[2], 0.1, 0.0)
    # Three inner budgets: the bent one is missed by 0.1, those beside it by half of that.
    assert replace(between, parameters=bent).leave_out_error == pytest.approx(0.1 * np.sqrt((1 + 2 / 4) / 3))
    two = np.isin(between.cells[:, 1], BUDGETS[:2])
    assert np.isnan(replace(between, cells=between.cells[two], parameters=between.parameters[two]).leave_out_error)


def test_a_crossing_of_interpolated_rows_is_covered() -> None:
    per_token, sd = flops_per_token(SIZES), 0.03
    ends = float(per_token[1] * BUDGETS[0]), float(per_token[-1] * BUDGETS[-1])
    ladder = Ladder(SIZES, per_token, *ends)

    def row(loss: Callable[[Array, Array], Array], seed: int, of: float) -> tuple[Interpolation, Ladder, Array]:
        between = Interpolation.of(fitted(loss, seed, of))
        return between, ladder, between.simulate(Noise(sd, 50, 0.0), np.random.default_rng(seed), 100)

    truth = compare(row(SMOOTH.loss, 0, 0), row(late, 0, 0)).at
    assert truth
    found = [compare(row(SMOOTH.loss, seed, sd), row(late, 1000 + seed, sd)).at for seed in range(40)]
    assert sum(at is not None for at in found) >= 38
    assert sum(at.low <= truth.value <= at.high for at in found if at) >= 34


def changed(found: list[Point], loss: Callable[[Array, Array], Array]) -> list[Point]:
    """The points with the losses of another truth and the noise that they had."""
    noise = [point.loss / REFERENCE.loss(point.body, point.tokens) for point in found]
    return [
        replace(point, loss=float(loss(np.array(point.body), np.array(point.tokens)) * of))
        for point, of in zip(found, noise, strict=True)
    ]


def test_a_row_that_its_law_misses_is_interpolated_and_its_exponents_are_refused() -> None:
    both = [*changed(points("smooth", REFERENCE, 1), SMOOTH.loss), *changed(points("late", REFERENCE, 2), late)]
    found = analyse(both, ["smooth", "late"], draws=60, starts=STARTS)
    smooth, row = found.rows["smooth"], found.rows["late"]
    assert not isinstance(smooth.curves["flops"].surface, Interpolation)  # pyright: ignore[reportOptionalSubscript]
    assert row.noise
    assert row.noise.cell_sd > MAX_SCATTER
    assert isinstance(row.curves["flops"].surface, Interpolation)  # pyright: ignore[reportOptionalSubscript]
    assert any(reason.startswith("the law misses sizes and budgets by ") for reason in row.reasons)
    assert (row.intervals, row.exponents, row.frontier_law, row.optima) == (None, (), None, ())
    front = row.curves["flops"].frontier  # pyright: ignore[reportOptionalSubscript]
    assert front.costs[-1] == pytest.approx(max(point.flops for point in both)), "nothing is extrapolated"
    (pair,) = (pair for pair in found.pairs if pair.cost == "flops")
    assert pair.crossing
    assert pair.crossing.verdict == "crosses"
