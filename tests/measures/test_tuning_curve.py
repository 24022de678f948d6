"""Expected best-so-far against tuning budget, and tuning debt."""

from __future__ import annotations

import itertools
from math import comb

import pytest

from bench.measures.tuning_curve import debts, expected_best


def test_equal_costs_give_the_expected_maximum_of_k_of_n() -> None:
    scores = [10.0, 30.0, 20.0, 50.0, 40.0]
    found = expected_best(scores, [2.0] * 5, points=5, orders=20_000)
    assert [point.budget for point in found] == [2, 4, 6, 8, 10]
    for k, point in enumerate(found, 1):
        exact = sum(score * comb(i, k - 1) for i, score in enumerate(sorted(scores))) / comb(5, k)
        assert point.best == pytest.approx(exact, abs=0.3)
        assert point.low <= point.best <= point.high
    assert (found[-1].low, found[-1].high) == (50, 50)


def test_unequal_costs_are_those_of_all_orders() -> None:
    scores, costs, budget = [1.0, 5.0, 3.0], [4.0, 1.0, 2.0], 5.5
    best = []
    for order in itertools.permutations(range(3)):
        spent = list(itertools.accumulate(costs[i] for i in order))
        best.append(max(scores[i] for i, total in zip(order, spent, strict=True) if total <= budget))
    (_, point, _) = expected_best(scores, costs, points=3, orders=20_000)
    assert point.budget == 5.5
    assert point.best == pytest.approx(sum(best) / len(best), abs=0.05)


def test_it_never_falls_and_is_the_same_each_time() -> None:
    scores, costs = [3.0, 9.0, 1.0, 7.0], [1.0, 3.0, 2.0, 2.5]
    found = expected_best(scores, costs)
    assert found == expected_best(scores, costs)
    assert all(one.best <= other.best for one, other in itertools.pairwise(found))


def test_one_trial_and_none() -> None:
    assert [(point.budget, point.best) for point in expected_best([4.0], [10.0])] == [(10, 4)]
    with pytest.raises(ValueError, match="at least one"):
        expected_best([], [])
    with pytest.raises(ValueError, match="1 scores and 2 costs"):
        expected_best([1.0], [1.0, 2.0])


def test_debt_is_what_a_row_got_beyond_the_least() -> None:
    assert debts({"gnmt": 300.0, "luong": 100.0, "lstm": 0.0}) == {"gnmt": 300, "luong": 100, "lstm": 0}
    assert debts({"gnmt": 300.0, "luong": 300.0}) == {"gnmt": 0, "luong": 0}
    assert debts({}) == {}
