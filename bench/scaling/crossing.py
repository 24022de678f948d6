"""Where the frontiers of two rows cross.

A verdict holds only for costs at which both rows have data and neither is limited by the budgets of its runs.
Letters in names: B draws, C costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.scaling.frontier import GRID_COSTS, Ladder, Surface, limited, lowest_loss, unlimited
from bench.scaling.laws import Array
from bench.scaling.uncertainty import Interval, interval

LEAST_RANGE = 3.0
"""Smallest ratio of the ends of a common range. In a shorter one, two laws say little more than one pair of runs."""


class NotComparable(ValueError):
    """Two rows have no costs at which they can be compared. `reason` is its short form, for reports."""

    def __init__(self, reason: str, low: float, high: float, fix: str) -> None:
        super().__init__(f"scaling points: {reason} ({low:.3g} to {high:.3g}); {fix}")
        self.reason = reason


@dataclass(frozen=True)
class Crossing:
    """The comparison of two rows over the costs where both have data and neither is `limited` by its budgets.

    Attributes:
        verdict: "crosses", "none in range", or "not resolved".
        low_cost: Lower end of the common range.
        high_cost: Upper end.
        at: Where the frontiers cross, with its interval; only if the verdict is "crosses".
        ahead: 0 or 1: which row has the lower loss at high_cost; None if not resolved.
        difference: Loss of the first row - loss of the second row in nats at high_cost.
        low_difference: The same at low_cost.
        changes: Share of draws in which the sign of the difference changes inside the range, however often.
        cost_ratio: Cost of the first row / cost of the second row for the loss that the worse row reaches at high_cost;
            None if the better row has a lower loss already at low_cost, so that its cost is not known.
        level: Share of draws that the verdict needs.
    """

    verdict: Literal["crosses", "none in range", "not resolved"]
    low_cost: float
    high_cost: float
    at: Interval | None
    ahead: Literal[0, 1] | None
    difference: Interval
    low_difference: Interval
    changes: float
    cost_ratio: float | None
    level: float


def compare(
    first: tuple[Surface, Ladder, Array], second: tuple[Surface, Ladder, Array], level: float = 0.95
) -> Crossing:
    """Returns whether the frontiers of two rows cross. Each row: surface, ladder, draws (B, K); B is equal.

    They cross if the sign of the difference is different at both ends of the common range, at each end in 97.5 % of the
    draws. There is no crossing if one sign holds over the whole range in 95 % of the draws. All else is not resolved.

    Raises:
        NotComparable: the costs of the rows do not overlap, the budgets of the runs limit a row at all of them, or the
            range without a limit is shorter than LEAST_RANGE.
    """
    low, high = max(first[1].lowest, second[1].lowest), min(first[1].highest, second[1].highest)
    if low >= high:
        raise NotComparable(
            "the costs of the two rows do not overlap",
            low,
            high,
            "expected budgets that cost about the same; add sizes or budgets to one row",
        )
    costs_C = np.geomspace(low, high, 4 * GRID_COSTS)
    free = unlimited(~(limited(*first[:2], costs_C) | limited(*second[:2], costs_C)))
    if len(free) < 2:
        raise NotComparable(
            "at every common cost the best size of a row would need a budget that none of its runs had",
            low,
            high,
            "add larger budgets of the small sizes, or smaller ones of the large sizes",
        )
    low, high = (float(costs_C[end]) for end in (free[0], free[-1]))
    if high / low < LEAST_RANGE:
        raise NotComparable(
            f"the costs at which both have their best size inside the budgets differ by less than a factor of "
            f"{LEAST_RANGE:.0f}",
            low,
            high,
            "add larger budgets of the small sizes, or smaller ones of the large sizes",
        )
    costs_C = np.geomspace(low, high, GRID_COSTS)
    losses = [lowest_loss(surface, ladder, costs_C)[0] for surface, ladder, _ in (first, second)]
    difference_C = losses[0] - losses[1]
    difference_BC = np.subtract(
        *(lowest_loss(surface, ladder, costs_C, draws)[0] for surface, ladder, draws in (first, second))
    )
    low_difference, difference = (interval(float(difference_C[end]), difference_BC[:, end], level) for end in (0, -1))
    sign_BC, sign_C = difference_BC > 0, difference_C > 0
    each_end = (sign_BC == sign_C).mean(axis=0)[[0, -1]].min()
    changes = float((sign_BC[:, 1:] != sign_BC[:, :-1]).any(axis=1).mean())
    everywhere = max(sign_BC.all(axis=1).mean(), (~sign_BC).all(axis=1).mean())
    verdict: Literal["crosses", "none in range", "not resolved"] = "not resolved"
    at = None
    if sign_C[0] != sign_C[-1] and each_end >= (1 + level) / 2:
        verdict = "crosses"
        at = interval(float(_first_zero(costs_C, difference_C[None])[0]), _first_zero(costs_C, difference_BC), level)
    elif everywhere >= level:
        verdict = "none in range"
    ahead: Literal[0, 1] | None = None if verdict == "not resolved" else (1 if sign_C[-1] else 0)
    worse = max(losses[0][-1], losses[1][-1])
    spent = [float(np.exp(np.interp(-worse, -np.minimum.accumulate(of), np.log(costs_C)))) for of in losses]
    ratio = spent[0] / spent[1] if all(of[0] >= worse for of in losses) else None
    return Crossing(verdict, low, high, at, ahead, difference, low_difference, changes, ratio, level)


def _first_zero(costs_C: Array, difference_BC: Array) -> Array:
    """The cost at the first change of sign, (B,), interpolated in log cost; NaN where the sign never changes."""
    change = (difference_BC[:, 1:] > 0) != (difference_BC[:, :-1] > 0)
    index = change.argmax(axis=1)
    rows = np.arange(len(difference_BC))
    left, right = difference_BC[rows, index], difference_BC[rows, index + 1]
    share = left / np.where(left == right, np.inf, left - right)
    logs = np.log(costs_C)
    return np.where(change.any(axis=1), np.exp(logs[index] + share * (logs[index + 1] - logs[index])), np.nan)
