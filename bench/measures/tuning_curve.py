"""What tuning is worth: the best validation score to expect of a budget, and who got more of it than others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Expected:
    """The best score that a tuning of this budget finds: mean and 95 % interval over orders of its trials."""

    budget: float
    best: float
    low: float
    high: float


def expected_best(
    scores: Sequence[float], costs: Sequence[float], points: int = 20, orders: int = 2000, seed: int = 0
) -> list[Expected]:
    """Expected best-so-far against budget spent.

    A sweep is one order of its trials; another would have met its best one sooner or later. For random orders of the
    trials, best(b) is the highest score among those whose costs, summed up in that order, are at most b. For equal
    costs the mean over all orders is sum_i s_(i) C(i - 1, k - 1) / C(n, k), the expected maximum of k of n scores
    s_(1) <= ... <= s_(n) drawn without replacement; pruned trials cost less, so the orders are drawn.

    Args:
        scores: Best validation score of each trial, higher is better; a pruned one's until it was stopped.
        costs: What each trial used of the budget, such as sentence pairs.
        points: Budgets at which it is given, even distances from the dearest trial's cost to the sum of all.
        orders: Orders drawn.
        seed: Of the draw.

    Source: Dodge et al. 2019, "Show Your Work", section 3, there with replacement.
    """
    if len(scores) != len(costs) or not scores:
        raise ValueError(f"{len(scores)} scores and {len(costs)} costs; expected as many of each, at least one")
    rng = np.random.default_rng(seed)
    order_ON = rng.permuted(np.tile(np.arange(len(scores)), (orders, 1)), axis=1)
    best_ON = np.maximum.accumulate(np.asarray(scores, dtype=float)[order_ON], axis=1)
    spent_ON = np.cumsum(np.asarray(costs, dtype=float)[order_ON], axis=1)
    found = []
    for budget in np.unique(np.linspace(max(costs), sum(costs), points)):
        done_O = (spent_ON <= budget * (1 + 1e-9)).sum(axis=1)  # at least one: the first budget affords any trial
        best_O = np.take_along_axis(best_ON, done_O[:, None] - 1, axis=1)[:, 0]
        low, high = np.quantile(best_O, [0.025, 0.975])
        found.append(Expected(float(budget), float(best_O.mean()), float(low), float(high)))
    return found


def debts(budgets: Mapping[str, float]) -> dict[str, float]:
    """Row -> what its tuning got beyond the row that got least; 0 for all where all got the same."""
    least = min(budgets.values(), default=0.0)
    return {row: budget - least for row, budget in budgets.items()}
