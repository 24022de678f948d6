"""Direct pairs: two runs of two rows with the same training FLOPs, which confirm a crossing on one side of it."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from bench.scaling.analysis import Analysis
from bench.scaling.crossing import difference_at
from bench.scaling.uncertainty import Interval


def predicted(analysis: Analysis, first: str, second: str, flops: float) -> Interval | None:
    """The loss of the first row - that of the second one in nats, by their curves; None: outside their ranges."""
    curves = [curve for row in (first, second) if (curve := analysis.rows[row].curve("flops"))]
    if len(curves) < 2 or not all(curve.ladder.lowest <= flops <= curve.ladder.highest for curve in curves):
        return None
    one, other = ((curve.surface, curve.ladder, curve.draws) for curve in curves)
    return difference_at(one, other, flops)


def missing(analysis: Analysis, known: Collection[tuple[str, str, float]]) -> list[tuple[float, dict[str, str]]]:
    """The direct pairs that the crossings at equal FLOPs still need: FLOPs, and row -> size.

    On each side of a crossing the FLOPs are the geometric mean of the end of the common range and the end of the
    interval of the crossing. Each row has the size of its ladder with the lowest loss there. So nobody chooses them.

    Args:
        known: First row, second row and FLOPs of the pairs that there are.
    """
    found = []
    for pair in analysis.pairs:
        if pair.cost == "flops" and pair.crossing and pair.crossing.at:
            one, at, rows = pair.crossing, pair.crossing.at, (pair.first, pair.second)
            of_pair = [flops for *both, flops in known if set(both) == set(rows)]
            for low, high in ((one.low_cost, at.low), (at.high, one.high_cost)):
                if not any(low <= flops <= high for flops in of_pair):
                    flops = float(f"{math.sqrt(low * high):.2g}")
                    found.append((flops, {row: _best_size(analysis, row, flops) for row in rows}))
    return found


def _best_size(analysis: Analysis, row: str, flops: float) -> str:
    """The size of a ladder with the lowest loss at these FLOPs, among those whose runs had such budgets."""
    curve = analysis.rows[row].curve("flops")
    assert curve
    sizes_S = curve.ladder.sizes
    tokens_S = flops / curve.ladder.at(sizes_S)
    allowed_S = curve.ladder.allowed(sizes_S, tokens_S[None], np.array([flops]))[0]
    best = sizes_S[np.where(allowed_S, curve.surface.predict(sizes_S, tokens_S), np.inf).argmin()]
    return next(point.size for point in analysis.rows[row].points if point.body_softmax == best)
