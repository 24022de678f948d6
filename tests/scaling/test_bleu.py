"""BLEU against loss."""

from __future__ import annotations

import numpy as np
import pytest

from bench.scaling.bleu import fit_bleu


def test_the_curve_is_found_and_a_bleu_of_zero_is_allowed() -> None:
    """Gordon et al. 2021: k of 0.43 to 0.47."""
    losses = np.linspace(1.5, 4, 12)
    law = fit_bleu(losses, 60 * np.exp(-0.45 * losses))
    assert (law.scale, law.rate) == pytest.approx((60, 0.45))
    assert law.residual_sd < 1e-6
    assert law.predict(np.array([2.0])) == pytest.approx([24.394], abs=1e-3)
    assert law.predict(np.array([0.5])) == law.predict(np.array([1.5])), "below the lowest loss nothing is known"
    steep = fit_bleu(np.array([1.0, 2.0, 3.0, 9.0]), np.array([40.0, 20.0, 10.0, 0.0]))
    assert steep.rate == pytest.approx(np.log(2), rel=0.05)


def test_too_few_translations_above_zero_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 points with a BLEU above 0; expected at least 3"):
        fit_bleu(np.array([1.0, 2.0, 3.0]), np.array([5.0, 1.0, 0.0]))


def test_no_bleu_is_above_100() -> None:
    losses = np.array([0.02, 0.5, 1.0, 2.0])
    law = fit_bleu(losses, 130 * np.exp(-1.2 * losses))  # as that of a row whose points bend near the top
    assert law.scale > 100
    np.testing.assert_allclose(law.predict(np.array([0.02, 1.0])), [100.0, 130 * np.exp(-1.2)], rtol=1e-3)
