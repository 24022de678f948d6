"""What an identified law says of a row beyond its losses: best sizes, their exponents, and the law of the frontier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.scaling.fit import Fit
from bench.scaling.frontier import (
    Curve,
    PowerLaw,
    SizeExponent,
    frontier_law,
    limited,
    lowest_loss,
    size_exponents,
    unlimited,
)
from bench.scaling.laws import Array
from bench.scaling.points import Count, Point
from bench.scaling.uncertainty import Interval, interval

COUNTS: tuple[Count, ...] = ("body", "body_softmax", "all")

MIN_FRONTIER_COSTS = 10
"""Of FRONTIER_COSTS; with fewer, the power law of a frontier is that of a short piece of it."""

EXPONENT_DRAWS = 100
FRONTIER_COSTS = 61


@dataclass(frozen=True)
class Optimum:
    """The best size at one cost.

    Attributes:
        cost: FLOPs.
        size: Parameters, body and softmax.
        tokens: Target tokens that this size can be trained on.
        per_parameter: Target tokens for each parameter.
        place: "inside"; "end": of the ladder, so that a better size may lie beyond.
    """

    cost: float
    size: Interval
    tokens: float
    per_parameter: Interval
    place: Literal["inside", "end"]


def best_sizes(curve: Curve) -> tuple[Optimum, ...]:
    """The best sizes at the lowest, the middle and the highest cost at which no budget limits them."""
    ladder = curve.ladder
    all_C = np.geomspace(ladder.lowest, ladder.highest, FRONTIER_COSTS)
    free = unlimited(~limited(curve.surface, ladder, all_C))
    if len(free) < 2:
        return ()
    costs_C = np.geomspace(all_C[free[0]], all_C[free[-1]], 3)
    best_C, drawn_BC = (
        lowest_loss(curve.surface, ladder, costs_C)[1],
        lowest_loss(curve.surface, ladder, costs_C, curve.draws)[1],
    )
    found = []
    for cost, best, drawn_B in zip(costs_C, best_C, drawn_BC.T, strict=True):
        tokens, tokens_B = cost / ladder.at(best), cost / ladder.at(drawn_B)
        at_end = best <= ladder.sizes[0] * 1.001 or best >= ladder.sizes[-1] * 0.999
        place = "end" if at_end else "inside"
        per_parameter = interval(float(tokens / best), tokens_B / drawn_B)
        found.append(Optimum(float(cost), interval(float(best), drawn_B), float(tokens), per_parameter, place))
    return tuple(found)


def exponents_of_best_sizes(
    fit: Fit, curve: Curve, points: Sequence[Point]
) -> tuple[tuple[SizeExponent, Interval], ...]:
    """The exponents of the best size with their intervals; without those whose best size is an end too often."""
    by_size = {float(point.body_softmax): point for point in points}
    counts: dict[Count, Array] = {
        count: np.array([float(getattr(by_size[size], count)) for size in sorted(by_size)]) for count in COUNTS
    }
    drawn: dict[tuple[str, str], list[float]] = {}
    for parameters in curve.draws[:EXPONENT_DRAWS]:
        for one in size_exponents(replace(fit, parameters=parameters), curve.ladder, counts):
            drawn.setdefault((one.count, one.cost), []).append(one.exponent)
    least = 0.9 * min(EXPONENT_DRAWS, len(curve.draws))
    return tuple(
        (one, interval(one.exponent, np.array(of)))
        for one in size_exponents(fit, curve.ladder, counts)
        if len(of := drawn.get((one.count, one.cost), [])) >= least
    )


def law_of_frontier(curve: Curve, known_e: float | None) -> tuple[PowerLaw, Interval] | None:
    """The power law through the frontier and the interval of its exponent.

    It is fitted where there are data and no budget limits the best size: limited losses are above the frontier. None:
    too few costs are left.
    """
    costs_C = np.geomspace(curve.ladder.lowest, curve.ladder.highest, FRONTIER_COSTS)
    costs_C = costs_C[~limited(curve.surface, curve.ladder, costs_C)]
    if len(costs_C) < MIN_FRONTIER_COSTS:
        return None
    law = frontier_law(costs_C, lowest_loss(curve.surface, curve.ladder, costs_C)[0], known_e)
    drawn_BC = lowest_loss(curve.surface, curve.ladder, costs_C, curve.draws[:EXPONENT_DRAWS])[0]
    exponents = [frontier_law(costs_C, loss_C, known_e).exponent for loss_C in drawn_BC]
    return law, interval(law.exponent, np.array(exponents))
