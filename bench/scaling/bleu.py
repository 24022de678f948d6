"""BLEU against loss: BLEU = c exp(-k L), Gordon et al. 2021 (Data and Parameter Scaling Laws for NMT), section 5.

One fit for each row and test set: rows may differ at equal loss, and on text that was translated into the source
language BLEU saturates (Ghorbani et al. 2021, arXiv 2109.07740).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import curve_fit

from bench.scaling.laws import Array


@dataclass(frozen=True)
class BleuLaw:
    """A fitted curve of BLEU against loss.

    Attributes:
        scale: c, in BLEU.
        rate: k, in 1 / nats; an increase of the loss by 0.1 nats multiplies BLEU by exp(-0.1 k).
        rate_error: Standard error of k, by the residuals; points of one run share noise that this does not contain.
        residual_sd: Standard deviation of the residuals, in BLEU.
        lowest_loss: The lowest loss of the points. Below it the curve grows without bound and is not used.
    """

    scale: float
    rate: float
    rate_error: float
    residual_sd: float
    lowest_loss: float = 0.0

    def predict(self, losses: Array) -> Array:
        """Returns BLEU at these losses in nats per target token. A loss below all points counts as the lowest."""
        losses = np.maximum(losses, self.lowest_loss)
        return np.minimum(self.scale * np.exp(-self.rate * losses), 100.0)  # the exponential may pass what BLEU can be


def fit_bleu(losses: Array, bleus: Array) -> BleuLaw:
    """Returns the least-squares curve in BLEU; log BLEU would give the most weight to the worst models.

    Raises:
        ValueError: fewer than three points with a BLEU above 0.
    """
    positive = bleus > 0
    if positive.sum() < 3:
        raise ValueError(f"BLEU against loss: {positive.sum()} points with a BLEU above 0; expected at least 3")
    middle = float(losses.mean())  # the scale at the mean loss is less correlated with the rate
    slope, height = np.polyfit(losses[positive] - middle, np.log(bleus[positive]), 1)
    begin = (float(np.exp(height)), float(-slope))
    best, covariance = curve_fit(
        lambda loss, scale, rate: scale * np.exp(-rate * (loss - middle)),
        losses,
        bleus,
        begin,
        jac=lambda loss, scale, rate: np.stack(
            [np.exp(-rate * (loss - middle)), -scale * (loss - middle) * np.exp(-rate * (loss - middle))], axis=1
        ),
    )
    scale, rate = (float(value) for value in best)
    law = BleuLaw(scale * float(np.exp(rate * middle)), rate, float(np.sqrt(covariance[1, 1])), 0.0)
    residual_sd = float(np.sqrt(((bleus - law.predict(losses)) ** 2).sum() / (len(losses) - 2)))
    return BleuLaw(law.scale, law.rate, law.rate_error, residual_sd, float(losses.min()))
