"""Direct pairs: runs of two rows with the same training FLOPs, which confirm a crossing on one side of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.scaling.analysis import SEED, Analysis
from bench.scaling.points import Point
from bench.scaling.uncertainty import Interval, interval


@dataclass(frozen=True)
class Prediction:
    """What the curves of two rows say of the difference of a direct pair: mean loss of the first row - of the second.

    Attributes:
        difference: In nats, at the size and the tokens of each row, with the noise of the runs in the interval.
        noise: Standard deviation of the measured difference by the noise of the runs.
    """

    difference: Interval
    noise: float

    def sign(self, measured: float) -> Literal["confirmed", "contradicted", "noise"]:
        """Whether the measured difference has the predicted sign, if it is larger than the noise of the runs (95 %)."""
        if abs(measured) < 1.96 * self.noise:
            return "noise"
        return "confirmed" if measured * self.difference.value > 0 else "contradicted"


def predict(analysis: Analysis, first: Sequence[Point], second: Sequence[Point]) -> Prediction | None:
    """Returns what the curves say of runs of two rows; None: a row has no curve, or none at the cost of its runs.

    The runs of a row differ in their seeds only. The noise of their mean is that of one run / sqrt(number of runs).
    """
    rng, losses, draws, noises = np.random.default_rng(SEED), [], [], []
    for runs in (first, second):
        run, row = runs[0], analysis.rows[runs[0].row]
        curve = row.curve("flops")
        if curve is None or row.noise is None or not curve.ladder.lowest <= run.flops <= curve.ladder.highest:
            return None
        size, noise = float(run.body_softmax), row.noise.run_sd / math.sqrt(len(runs))
        drawn_B = curve.surface.predict(size, np.array([run.tokens]), curve.draws[:, None])[:, 0]
        losses.append(float(curve.surface.predict(size, run.tokens)))
        draws.append(drawn_B * np.exp(noise * rng.standard_normal(len(drawn_B))))
        noises.append(float(np.mean([run.loss for run in runs])) * noise)
    return Prediction(interval(losses[0] - losses[1], draws[0] - draws[1]), math.hypot(*noises))


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
                    flops = float(f"{math.sqrt(low * high):.3g}")
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
