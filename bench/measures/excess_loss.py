"""The lower bound of the loss with label smoothing, for the excess validation loss.

With smoothing e and V pieces the loss of a target token y is -(1 - e) ln p(y) - e / V sum_v ln p(v). No model is below
the entropy of the smoothed target. The difference is the Kullback-Leibler divergence from this target to the model: 0
for a model that knows every target token and is as certain of it as the training asks for.

The loss without smoothing has no such bound: it also falls when a model gets more certain than the training asks for,
such as by dropout, which is off in validation. So it does not rank models that know nearly everything.
"""

from __future__ import annotations

import math


def entropy(smoothing: float, pieces: int) -> float:
    """The lowest loss with label smoothing, in nats per token: the entropy of the smoothed target,

        H = -q ln q - (V - 1) e / V ln(e / V),    q = 1 - e + e / V.

    Args:
        smoothing: Label smoothing e, in [0, 1).
        pieces: Entries V of the target vocabulary.
    """
    if not smoothing:
        return 0.0
    other = smoothing / pieces
    right = 1 - smoothing + other
    return -right * math.log(right) - (pieces - 1) * other * math.log(other)
