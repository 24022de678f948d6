"""The forms of the law and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from bench.scaling.laws import FORMS, Form, log_loss_and_jacobian, loss

PARAMETERS = np.array([np.log(1.1), np.log(0.4), np.log(0.6), 0.35, 0.5])
X, Y = np.log(np.array([0.5, 1.0, 4.0])), np.log(np.array([2.0, 1.0, 0.25]))


def test_losses_are_those_of_the_equations() -> None:
    """N = 4 N0 and D = D0 / 4, by hand: 1.1 + 0.4 / 4^0.35 + 0.6 x 4^0.5; and the outer power with b = 0.5."""
    u, v = 0.4 * 4**-0.35, 1.2
    assert loss("additive", PARAMETERS, X, Y)[2] == pytest.approx(1.1 + u + v)
    assert loss("outer power", PARAMETERS, X, Y)[2] == pytest.approx(1.1 + (u**2 + v**2) ** 0.5)


@pytest.mark.parametrize("form", FORMS)
def test_the_jacobian_is_that_of_differences(form: Form) -> None:
    value, jacobian = log_loss_and_jacobian(form, PARAMETERS, X, Y)
    assert np.exp(value) == pytest.approx(loss(form, PARAMETERS, X, Y))
    steps = 1e-6 * np.eye(5)
    ahead, behind = (log_loss_and_jacobian(form, PARAMETERS + sign * steps, X, Y)[0] for sign in (1, -1))
    assert jacobian == pytest.approx((ahead - behind).T / 2e-6, abs=1e-8)
