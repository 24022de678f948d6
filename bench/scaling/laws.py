"""The forms of the law of loss in model size N and target tokens D, with their derivatives.

additive     L = E + A / N^a + B / D^b                  Hoffmann et al. 2022 (arXiv 2203.15556), equation 2
outer power  L = E + (A' / N^a' + B' / D)^g             Kaplan et al. 2020 (arXiv 2001.08361), equation 1.5, with E
frontier     L = E + k / C^c                            Hestness et al. 2017 (arXiv 1712.00409), on best sizes

Both forms in N and D have the same five parameters: log E, log A0, log B0, a, b. A0 is the loss in nats that finite
size alone costs at the reference size N0, A0 = A / N0^a, and B0 is that of finite data at D0. They are less correlated
with the exponents than A and B, and safe to round (Besiroglu et al. 2024, arXiv 2404.10102, on the rounded b of
Hoffmann). In the outer power form a and b are the exponents of each term alone, so a = a' g and b = g, and

    L = E + (u^(1/b) + v^(1/b))^b   with u = A0 (N / N0)^-a and v = B0 (D / D0)^-b,

which is the additive form with a norm of order 1 / b instead of a sum. Exponents of different forms are not comparable.
Letters in names: B simulated data sets, P points, K = 5 parameters.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Form = Literal["additive", "outer power"]
FORMS: tuple[Form, ...] = ("additive", "outer power")
NAMES = ("log E", "log A0", "log B0", "a", "b")


def loss(form: Form, parameters: Array, x: Array, y: Array) -> Array:
    """Returns the loss in nats per target token.

    Args:
        form: Form of the law.
        parameters: (..., 5), in the order of NAMES.
        x: log(N / N0), of a shape that broadcasts with parameters[..., 0].
        y: log(D / D0), likewise.
    """
    log_e, log_a, log_b, a, b = np.moveaxis(parameters, -1, 0)
    u, v = log_a - a * x, log_b - b * y
    if form == "additive":
        return np.exp(log_e) + np.exp(u) + np.exp(v)
    return np.exp(log_e) + np.exp(b * np.logaddexp(u / b, v / b))


def log_loss_and_jacobian(form: Form, parameters_BK: Array, x_P: Array, y_P: Array) -> tuple[Array, Array]:
    """Returns log L, (..., P), and its derivatives by the parameters, (..., P, 5). Parameters: (..., 5)."""
    log_e, log_a, log_b, a, b = np.moveaxis(parameters_BK[..., None, :], -1, 0)
    u, v, e = log_a - a * x_P, log_b - b * y_P, np.exp(log_e)
    if form == "additive":
        by_u, by_v = np.exp(u), np.exp(v)
        total, by_b = by_u + by_v, 0.0
    else:
        sum_ = np.logaddexp(u / b, v / b)
        share_u = np.exp(u / b - sum_)
        total = np.exp(b * sum_)
        by_u, by_v = total * share_u, total * (1 - share_u)
        by_b = total * (sum_ - (share_u * u + (1 - share_u) * v) / b)
    full = e + total
    by = (np.broadcast_to(e, full.shape), by_u, by_v, -x_P * by_u, by_b - y_P * by_v)
    return np.log(full), np.stack(by, axis=-1) / full[..., None]
