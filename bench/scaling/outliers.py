"""Points that break a fit: a wrong run, and validations in the middle of a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from bench.scaling.fit import GRID, Data, Fit, fit_law
from bench.scaling.held_out import hold_out
from bench.scaling.laws import Array, Form, log_loss_and_jacobian
from bench.scaling.uncertainty import Noise, covariance, noise_of

FALSE_ALARM = 0.01
"""Probability that a row without a wrong run has one that is flagged."""

MAX_DRIFT = 0.015
"""Relative error of the last doubling of the budget above which the points of short budgets are not end points."""

DRIFT_ERRORS = 2.0
"""Standard errors that it must have, too: with noisy runs, the prediction of a healthy row is as far off by chance."""


@dataclass(frozen=True)
class RunDeviation:
    """How far a run lies from the law through all other runs.

    Attributes:
        run: Number of the run in the data.
        offset: Log of the run's loss / that of the law; positive: the run is worse.
        error: Its standard error, with the noise of this run and of all others.
        remaining: Root mean square of the log residuals of the other runs, without this one.
        limit: Standard errors by which a run may deviate.
    """

    run: int
    offset: float
    error: float
    remaining: float
    limit: float

    @property
    def significant(self) -> bool:
        return abs(self.offset) > self.limit * self.error


def deviation_limit(runs: int, noise: Noise) -> float:
    """Returns the standard errors by which the largest of `runs` deviations may differ from 0.

    It is the quantile of Student's t for FALSE_ALARM, two-sided and Bonferroni-corrected: with few degrees of freedom
    the standard deviation itself is uncertain, and of many runs one deviates more than a single one would.
    """
    return float(student_t.isf(FALSE_ALARM / (2 * runs), noise.degrees))


def run_deviations(fit: Fit, noise: Noise) -> tuple[RunDeviation, ...]:
    """Returns the deviation of every run; the first is the one without which the others fit best.

    A run is judged by the noise of the other runs of its row, or by `noise` if these have too few seeds (`noise_of`).

    For each run the law is fitted again with an offset for this run alone: a robust loss reduces the weight of single
    points, but a whole wrong run bends the law and is then not an outlier any more.
    """
    runs, y_P, found = fit.data.runs, np.log(fit.data.losses), []
    for run in np.unique(runs):
        mine = runs == run
        others = fit_law(fit.data.where(~mine), fit.form, fit.known_e, starts=GRID[::4])
        predicted_P, jacobian = log_loss_and_jacobian(fit.form, _moved(others, fit), fit.x, fit.y)
        offset = float((y_P - predicted_P)[mine].mean())
        columns = np.concatenate([jacobian[:, fit.free], mine[:, None].astype(np.float64)], axis=1)
        inverse, noise_of_others = np.linalg.pinv(columns), noise_of(others, noise)
        error = float(np.sqrt((inverse @ covariance(fit.data, noise_of_others) @ inverse.T)[-1, -1]))
        limit = deviation_limit(len(np.unique(runs)), noise_of_others)
        remaining = float(np.sqrt((others.residuals**2).mean()))
        found.append(RunDeviation(int(run), offset, error, remaining, limit))
    return tuple(sorted(found, key=lambda one: one.remaining))


def wrong_run(fit: Fit, noise: Noise) -> RunDeviation | None:
    """Returns the run to look at; None if no run deviates significantly. No run is dropped.

    It is the run without which the others fit best: a wrong run makes right ones deviate, too.
    """
    first = run_deviations(fit, noise)[0]
    return first if first.significant else None


def _moved(fit: Fit, to: Fit) -> Array:
    """The parameters of a fit at the reference sizes of another one, (5,)."""
    log_e, log_a, log_b, a, b = fit.parameters
    return np.array([log_e, log_a - a * np.log(to.n0 / fit.n0), log_b - b * np.log(to.d0 / fit.d0), a, b])


@dataclass(frozen=True)
class Drift:
    """How the last doubling of the budget compares with the law through all shorter budgets.

    Attributes:
        error: Mean of log predicted / observed loss; positive: predicted too high.
        deviation: Its standard error for a healthy row; 0: not known.
    """

    error: float
    deviation: float = 0.0

    @property
    def flagged(self) -> bool:
        """Whether the points of short budgets are too high or too low to be end points."""
        return abs(self.error) > max(MAX_DRIFT, DRIFT_ERRORS * self.deviation)


def drift_deviation(fit: Fit, noise: Noise) -> float:
    """Returns the standard error of the drift of a row that is right, to first order around its law."""
    held_P = fit.data.tokens == fit.data.tokens.max()
    jacobian = log_loss_and_jacobian(fit.form, fit.parameters, fit.x, fit.y)[1][:, fit.free]
    weight_P = np.where(held_P, -1 / held_P.sum(), 0.0)
    weight_P[~held_P] = jacobian[held_P].mean(axis=0) @ np.linalg.pinv(jacobian[~held_P])
    return float(np.sqrt(weight_P @ covariance(fit.data, noise) @ weight_P))


def schedule_drift(
    data: Data,
    form: Form = "additive",
    known_e: float | None = None,
    starts: Sequence[tuple[float, float]] = GRID,
) -> Drift:
    """Returns the drift of the largest budget.

    The loss in the middle of a decaying schedule is too high, because the learning rate is (Hoffmann et al. 2022, arXiv
    2203.15556, appendix B; Hägele et al. 2024, arXiv 2405.18392). It cannot be seen in residuals: E and b absorb it.
    """
    held = data.tokens == data.tokens.max()
    return Drift(float(hold_out(data, form, held, "largest budget", known_e, starts).errors.mean()))
