"""Frontiers, slices, crossings and the exponents of the best size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.checks.scaling_simulation import (
    NOISE,
    REFERENCE,
    SECOND,
    SIZES,
    STARTS,
    TOKENS,
    WORSE,
    Truth,
    flops_per_token,
    grid,
    with_losses,
)
from bench.scaling.crossing import NotComparable, compare
from bench.scaling.fit import Fit, fit_law
from bench.scaling.frontier import (
    Ladder,
    frontier,
    frontier_law,
    iso_cost_slice,
    limited,
    lowest_loss,
    size_exponents,
)
from bench.scaling.points import Count, Point
from bench.scaling.uncertainty import simulate

PER_TOKEN = flops_per_token(SIZES)
LADDER = Ladder(SIZES, PER_TOKEN, float(PER_TOKEN[1] * TOKENS[0]), float(PER_TOKEN[-1] * TOKENS[-1]))
SIX = Ladder(SIZES, 6 * SIZES, float(6 * SIZES[1] * TOKENS[0]), float(6 * SIZES[-1] * TOKENS[-1]))


def budgets(tokens: np.ndarray) -> np.ndarray:
    """Return the smallest and the largest budget of each size, (2, S)."""
    return np.tile([tokens[[0]], tokens[[-1]]], len(SIZES))


def exact(truth: Truth) -> Fit:
    data = grid()
    return fit_law(with_losses(data, truth.loss(data.sizes, data.tokens)), starts=STARTS)


def row(truth: Truth, seed: int) -> tuple[Fit, Ladder, np.ndarray]:
    fit = exact(truth)
    return fit, LADDER, simulate(fit, NOISE, np.random.default_rng(seed), 100)


def test_a_ladder_takes_exact_costs_and_its_range_begins_where_two_sizes_are() -> None:
    points = [
        Point("r", f"{n} {d}", str(n), 1, 1, n, n, d, 1, 7.0 * n * d, None, 2, None) for n in (10, 20) for d in (5, 10)
    ]
    ladder = Ladder.of(points)
    assert ladder.cost_per_token == pytest.approx([70, 140])
    assert (ladder.lowest, ladder.highest) == (700, 1400)
    assert ladder.at(np.array([14.142])) == pytest.approx(98.99, rel=1e-3)
    with pytest.raises(ValueError, match="has no seconds"):
        Ladder.of(points, cost="seconds")


def test_the_best_size_is_that_of_the_closed_form() -> None:
    """Hoffmann et al. 2022, equation 4: N* = G (C / 6)^(b / (a + b)), G = (a A / (b B))^(1 / (a + b))."""
    cost = np.array([5e13])
    best = (0.35 * 45 / (0.40 * 200)) ** (1 / 0.75) * (5e13 / 6) ** (0.40 / 0.75)
    loss, size = lowest_loss(exact(REFERENCE), SIX, cost)
    assert size == pytest.approx([best], rel=1e-3)
    assert loss == pytest.approx(REFERENCE.loss(best, 5e13 / 6 / best), rel=1e-6)


def test_a_frontier_marks_the_ends_of_the_ladder_and_what_is_beyond_the_data() -> None:
    found = frontier(*row(REFERENCE, 1))
    assert (np.diff(found.loss) < 0).all()
    assert ((found.low <= found.loss) & (found.loss <= found.high)).mean() > 0.9
    assert found.at_end[0]
    assert found.at_end[-1]
    assert not found.at_end.all()
    assert (found.extrapolated == (found.costs > LADDER.highest * (1 + 1e-9))).all()
    assert found.costs[-1] == pytest.approx(10 * LADDER.highest)


def test_a_frontier_has_no_more_data_than_a_run_had() -> None:
    """With three budgets the best size of a large cost would be a small model with several times the largest budget."""
    fit, few = exact(REFERENCE), TOKENS[:5:2]
    ends = float(PER_TOKEN[1] * few[0]), float(PER_TOKEN[-1] * few[-1])
    free, bounded = Ladder(SIZES, PER_TOKEN, *ends), Ladder(SIZES, PER_TOKEN, *ends, budgets(few))
    costs = np.geomspace(*ends, 9)
    sizes = lowest_loss(fit, bounded, costs)[1]
    assert (costs / free.at(lowest_loss(fit, free, costs)[1]) > 2 * few[-1]).any()
    assert (costs / bounded.at(sizes) <= few[-1] * 1.1).all()
    found = frontier(fit, bounded, fit.parameters[None], costs)
    assert found.at_end[-1]
    assert (np.diff(found.loss) < 0).all()
    beyond = lowest_loss(fit, bounded, np.array([10 * ends[1]]))[0]
    assert beyond < found.loss[-1], "extrapolated without a limit"


def test_an_exponent_of_the_best_size_comes_from_costs_inside_the_budgets() -> None:
    fit = exact(REFERENCE)
    counts: dict[Count, np.ndarray] = {"body_softmax": SIZES}
    free = replace(LADDER, highest=float(PER_TOKEN[-1] * TOKENS[4]))
    bounded = replace(free, budgets=budgets(TOKENS[:5]))
    costs = np.geomspace(free.lowest, free.highest, 401)
    best, bound = lowest_loss(fit, free, costs)[1], limited(fit, bounded, costs)
    assert 0.1 < bound.mean() < 0.9, "else this test shows nothing"
    used = (best > SIZES[0] * 1.001) & (best < SIZES[-1] * 0.999) & ~bound
    expected = np.polyfit(np.log(costs[used]), np.log(best[used]), 1)[0]
    assert size_exponents(fit, bounded, counts)[0].exponent == pytest.approx(expected, rel=0.01)
    one_budget = replace(LADDER, budgets=budgets(TOKENS[:1]))
    assert size_exponents(fit, one_budget, counts) == ()


def test_a_budget_is_limited_by_the_runs_of_its_size() -> None:
    """Small sizes were trained on more: all runs that are largest of their size cost about the same."""
    most = TOKENS[-1] * PER_TOKEN[0] / PER_TOKEN
    ladder = Ladder(
        SIZES, PER_TOKEN, 0.0, float(most[0] * PER_TOKEN[0]), np.array([np.full(len(SIZES), TOKENS[0]), most])
    )
    assert ladder.inside(SIZES, most[None]).all()
    above = np.array([1.1, 1, 1, 1, 1]) * most
    assert ladder.inside(SIZES, above[None]).tolist() == [[False, True, True, True, True]]
    between, largest = np.sqrt(SIZES[1:] * SIZES[:-1]), np.sqrt(most[1:] * most[:-1])
    assert ladder.inside(between, 0.99 * largest[None]).all()
    assert not ladder.inside(between, 1.01 * largest[None]).any()


def test_a_slice_has_the_measured_sizes_and_their_minimum() -> None:
    """6e13 FLOPs are more than the largest budget of the smallest size: 256 x 120,000 tokens x 1.6e6 FLOPs."""
    found = iso_cost_slice(exact(REFERENCE), LADDER, 6e13)
    assert found.measured_sizes.tolist() == [0.26e6, 0.67e6, 1.7e6, 4.5e6]
    assert found.measured_loss == pytest.approx(REFERENCE.loss(found.measured_sizes, 6e13 / PER_TOKEN[1:]), rel=0.01)
    assert found.minimum == pytest.approx(found.sizes[found.loss.argmin()], rel=0.3)


def test_verdicts_of_rows_that_cross_that_do_not_and_that_are_equal() -> None:
    """Without noise in the points; the band is that of the noise."""
    crossing = compare(row(REFERENCE, 1), row(SECOND, 2))
    assert crossing.verdict == "crosses"
    assert crossing.at
    assert crossing.at.low < 8.9e12 < crossing.at.high
    assert crossing.ahead == 0
    worse = compare(row(WORSE, 1), row(REFERENCE, 2))
    assert (worse.verdict, worse.ahead, worse.at) == ("none in range", 1, None)
    assert worse.difference.low > 0
    assert worse.cost_ratio
    assert worse.cost_ratio > 1.5
    equal = compare(row(REFERENCE, 1), row(REFERENCE, 2))
    assert (equal.verdict, equal.ahead) == ("not resolved", None)


def test_budgets_that_limit_the_best_size_make_no_crossing() -> None:
    """The first row is ahead by 0.05 nats or more at every cost, but the second one is better at a given large size.

    With three budgets, only large models have runs of a high cost. There the lowest losses of the runs cross, and those
    of the best sizes do not.
    """
    few = TOKENS[:5:2]
    second = Truth(REFERENCE.E, 1.4 * REFERENCE.A, REFERENCE.a, 0.83 * REFERENCE.B, REFERENCE.b)
    ends = float(PER_TOKEN[1] * few[0]), float(PER_TOKEN[-1] * few[-1])
    ladder = Ladder(SIZES, PER_TOKEN, *ends, budgets(few))
    fits = [exact(truth) for truth in (REFERENCE, second)]
    costs = np.geomspace(*ends, 30)
    inside = np.subtract(*(lowest_loss(fit, ladder, costs)[0] for fit in fits))
    best = np.subtract(*(lowest_loss(fit, LADDER, costs)[0] for fit in fits))
    assert inside[0] < 0 < inside[-1]
    assert (best < -0.05).all()
    assert limited(fits[0], ladder, costs)[-1]
    assert not limited(fits[0], ladder, costs).all()
    first, second_row = ((fit, ladder, fit.parameters[None]) for fit in fits)
    found = compare(first, second_row)
    assert (found.verdict, found.ahead) == ("none in range", 0)
    assert found.high_cost < ends[1] / 5


def test_rows_whose_best_sizes_have_no_run_are_not_compared() -> None:
    """One budget for each size: larger sizes have more tokens, and everything in between would be extrapolated."""
    fit, ladder, draws = row(REFERENCE, 1)
    once = np.tile(TOKENS[:1], (2, len(SIZES)))
    bounded = Ladder(SIZES, PER_TOKEN, ladder.highest / 2, ladder.highest, once)
    with pytest.raises(NotComparable, match="a budget that none of its runs had") as error:
        compare((fit, bounded, draws), (fit, bounded, draws))
    assert error.value.reason.startswith("at every common cost")


def test_a_common_range_that_is_too_short_gives_no_verdict() -> None:
    fit, ladder, draws = row(REFERENCE, 1)
    short = replace(ladder, highest=2.9 * ladder.lowest)
    with pytest.raises(NotComparable, match="differ by less than a factor of 3"):
        compare((fit, ladder, draws), (fit, short, draws))


def test_two_crossings_are_not_none() -> None:
    """The second row is ahead only in the middle of the range: the verdict is open, but the changes are sure."""
    found = compare(row(REFERENCE, 1), row(Truth(1.15, 7.22, 0.2, 2764, 0.6), 2))
    assert (found.verdict, found.at, found.ahead) == ("not resolved", None, None)
    assert found.low_difference.high < 0
    assert found.difference.high < 0
    assert found.changes == 1.0


def test_rows_without_a_common_cost_are_an_error() -> None:
    fit, ladder, draws = row(REFERENCE, 1)
    far = Ladder(SIZES, PER_TOKEN, 1e18, 1e19)
    with pytest.raises(ValueError, match="do not overlap"):
        compare((fit, ladder, draws), (fit, far, draws))


def test_a_power_law_through_a_frontier_finds_its_exponent() -> None:
    costs = np.geomspace(1e11, 1e15, 30)
    for known in (None, 1.1):
        law = frontier_law(costs, 1.1 + 0.5 * (costs / 1e13) ** -0.187, known)
        assert (law.irreducible, law.scale, law.exponent) == pytest.approx((1.1, 0.5, 0.187), rel=1e-3)
        assert law.c0 == pytest.approx(1e13)


def test_the_best_size_at_the_highest_cost_has_a_run_there() -> None:
    """Only 0.67 M has the largest budget; larger sizes end so early that their largest runs cost less."""
    most = TOKENS[-1] * np.array([1, 1, 1, 0.1, 0.01])
    highest = float(PER_TOKEN[2] * most[2])
    ladder = Ladder(SIZES, PER_TOKEN, float(PER_TOKEN[1] * TOKENS[0]), highest, np.stack([np.full(5, TOKENS[0]), most]))
    loss, size = lowest_loss(exact(REFERENCE), ladder, np.array([highest]))
    assert size.tolist() == [SIZES[2]]
    assert loss[0] == pytest.approx(float(REFERENCE.loss(SIZES[2], TOKENS[-1])))
    assert set(SIZES) <= set(ladder.grid())
