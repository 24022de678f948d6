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
from bench.scaling.uncertainty import Noise, law_error
from tests.helpers.scaling_study import BUDGETS, REPLICATED, points

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
    assert draws.shape == (2000, 25 + 5 * 4 + 4), "25 cells, 20 gaps between budgets, 4 between sizes"
    assert draws[:, :25].std(axis=0) == pytest.approx(np.full(25, 0.06 / np.sqrt(3)), rel=0.15)
    assert draws.mean(axis=0) == pytest.approx(between.parameters, abs=0.02)
    tokens = np.geomspace(BUDGETS[0], BUDGETS[-1], 7)[:, None] * np.ones(4)
    drawn = between.predict(SIZES[:4], tokens, draws[:5, None, None])
    assert drawn.shape == (5, 7, 4)
    assert drawn[2] == pytest.approx(replace(between, parameters=draws[2]).predict(SIZES[:4], tokens))


def test_draws_bend_between_cells_as_much_as_the_points_do() -> None:
    """A parabola over log D has one curvature, which every cell shows when it is left out."""
    fit = fitted(SMOOTH.loss)
    assert Interpolation.of(fit).curvatures == pytest.approx((0, 0), abs=1e-6)
    between = Interpolation.of(fit)
    bent = 0.2 * np.log(between.cells[:, 1] / BUDGETS[2]) ** 2 / 2
    parameters = np.concatenate([bent, between.parameters[25:]])
    assert replace(between, parameters=parameters).curvatures == pytest.approx((0.2, 0), abs=1e-6)
    gap, size, middle = np.log(BUDGETS[1] / BUDGETS[0]), SIZES[1], float(np.sqrt(BUDGETS[0] * BUDGETS[1]))
    truth = 0.2 * np.log(middle / BUDGETS[2]) ** 2 / 2
    missed = float(np.log(replace(between, parameters=parameters).predict(size, middle) / fit.predict(size, middle)))
    assert missed - truth == pytest.approx(0.2 * gap**2 / 8), "what a draw with this curvature takes away"
    draws = replace(between, parameters=parameters).simulate(Noise(0.0, 20, 0.0), np.random.default_rng(1), 20000)
    spread = np.log(replace(between, parameters=parameters).predict(size, np.array([middle]), draws[:, None])).std()
    assert spread == pytest.approx(0.2 * gap**2 / 8, rel=0.05)
    at_cell = np.log(between.predict(size, np.array([BUDGETS[1]]), draws[:, None])).std()
    assert at_cell == pytest.approx(0, abs=1e-9)


def test_a_crossing_of_interpolated_rows_is_covered() -> None:
    """The truth is that of the losses themselves, on sizes and budgets that no run had."""
    per_token, sd = flops_per_token(SIZES), 0.02
    ends = float(per_token[1] * BUDGETS[0]), float(per_token[-1] * BUDGETS[-1])
    ladder = Ladder(SIZES, per_token, *ends)
    costs = np.geomspace(*ends, 2000)
    sizes = np.geomspace(SIZES[0], SIZES[-1], 400)
    frontiers = [loss(sizes, costs[:, None] / ladder.at(sizes)).min(axis=1) for loss in (SMOOTH.loss, late)]
    truth = float(costs[np.argmax(frontiers[0] > frontiers[1])])

    def row(loss: Callable[[Array, Array], Array], seed: int) -> tuple[Interpolation, Ladder, Array]:
        between = Interpolation.of(fitted(loss, seed, sd))
        return between, ladder, between.simulate(Noise(sd, 50, 0.0), np.random.default_rng(seed), 100)

    found = [compare(row(SMOOTH.loss, seed), row(late, 1000 + seed)).at for seed in range(40)]
    assert sum(at is not None for at in found) >= 38
    assert sum(at.low <= truth <= at.high for at in found if at) >= 34


def own_runs(row: str, loss: Callable[[Array, Array], Array], seed: int, sizes: Array = REPLICATED) -> list[Point]:
    """The points of a row with a run of its own to each budget."""
    noise = np.random.default_rng(seed)
    return [
        replace(
            point,
            run=f"{point.run} {point.tokens:.0f}",
            loss=float(loss(np.array(point.body_softmax), np.array(point.tokens)) * np.exp(0.01 * noise.normal())),
        )
        for point in points(row, REFERENCE, seed, sizes)
    ]


def test_a_row_that_its_law_misses_is_interpolated_and_its_exponents_are_refused() -> None:
    both = [*own_runs("smooth", SMOOTH.loss, 1), *own_runs("late", late, 2)]
    found = analyse(both, ["smooth", "late"], draws=60, starts=STARTS)
    smooth, row = found.rows["smooth"], found.rows["late"]
    assert smooth.interpolation is None
    assert smooth.law_error < MAX_SCATTER < row.law_error
    assert row.interpolation
    assert any(reason.startswith("the law misses sizes and budgets by ") for reason in row.reasons)
    assert (row.intervals, row.exponents, row.frontier_law, row.optima) == (None, (), None, ())
    curve = row.curve("flops")
    assert curve
    assert curve.surface is row.interpolation
    assert curve.frontier.costs[-1] == pytest.approx(max(point.flops for point in both)), "nothing is extrapolated"
    (pair,) = (pair for pair in found.pairs if pair.cost == "flops")
    assert pair.crossing
    assert pair.crossing.verdict == "crosses"


def test_a_row_without_replicates_is_judged_by_the_seeds_of_the_others() -> None:
    both = [*own_runs("smooth", SMOOTH.loss, 1), *own_runs("late", late, 2, SIZES)]
    found = analyse(both, ["smooth", "late"], draws=60, starts=STARTS)
    assert found.rows["late"].interpolation
    assert found.rows["smooth"].interpolation is None
    assert found.noise
    assert found.noise.cell_sd < 0.02, "what the law of one row misses is no noise of the other"
    alone = analyse(own_runs("late", late, 2, SIZES), ["late"], draws=60, starts=STARTS).rows["late"]
    assert alone.law_error == pytest.approx(found.rows["late"].law_error, rel=0.05)


def test_the_error_of_a_law_is_unknown_if_runs_have_several_points() -> None:
    fit = fitted(late)
    pooled = Noise(0.01, 20, 0.0)
    assert law_error(fit, pooled) > 0.1
    sizes = np.unique(fit.data.sizes, return_inverse=True)[1]
    assert law_error(replace(fit, data=replace(fit.data, runs=sizes)), pooled) == 0
    assert law_error(fitted(SMOOTH.loss, 3, 0.02), pooled) == 0
