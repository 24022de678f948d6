"""The fit of a law to the points of one row: least squares of log loss, and identification.

Starts come from a 3 x 3 grid of exponents with the other parameters by non-negative least squares; each start is
refined by bounded least squares with the exact Jacobian. Hoffmann et al. 2022 started 4,500 times without derivatives
and stopped early (Besiroglu et al. 2024, arXiv 2404.10102): so the share of starts that agree is part of the result.
Letters in names: B data sets, P points, K = 5 parameters, R runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from scipy.optimize import least_squares, nnls
from scipy.stats import t as student_t

from bench.scaling.laws import NAMES, Array, Form, log_loss_and_jacobian, loss
from bench.scaling.points import Count, Point

EXPONENTS = (0.01, 2.0)
"""Bounds of a and b."""

GRID: tuple[tuple[float, float], ...] = tuple((a, b) for a in (0.1, 0.35, 0.8) for b in (0.1, 0.35, 0.8))
"""Starts of (a, b)."""

MAX_CONDITION = 1000.0
"""Largest condition number of the Jacobian with columns of length 1 at which a fit counts as identified."""

MIN_BUDGETS = 3
"""With fewer budgets the exponent of the tokens is unknown. The outer power of two budgets still has full rank, because
its form ties the two exponents together, but then the form alone decides the law."""

AGREEMENT = 1e-3
"""Starts agree if their objectives are within this share of the best one."""


@dataclass(frozen=True)
class Data:
    """The points of one row, in one way of counting sizes. All arrays have the shape (P,).

    Attributes:
        sizes: Parameters N.
        tokens: Target tokens D.
        losses: Nats per target token.
        runs: Number of the run of each point, from 0.
    """

    sizes: Array
    tokens: Array
    losses: Array
    runs: np.ndarray

    @staticmethod
    def of(points: Sequence[Point], count: Count = "body_softmax") -> Data:
        """Returns the data of the points of one row."""
        names = list(dict.fromkeys(point.run for point in points))
        columns = ([float(getattr(p, count)) for p in points], [p.tokens for p in points], [p.loss for p in points])
        sizes, tokens, losses = (np.array(column, dtype=np.float64) for column in columns)
        return Data(sizes, tokens, losses, np.array([names.index(point.run) for point in points], dtype=np.int64))

    def where(self, keep: np.ndarray) -> Data:
        """Returns the points where `keep`, (P,), is true."""
        return Data(self.sizes[keep], self.tokens[keep], self.losses[keep], self.runs[keep])


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes:
        form: Form of the law.
        parameters: (5,), in the order of laws.NAMES.
        data: The points.
        n0: Reference size of A0, the geometric mean of the sizes.
        d0: Reference number of tokens of B0, the geometric mean of the budgets.
        known_e: The irreducible loss in nats, if it was not fitted.
        starts: Starts that were tried.
        agreeing: Starts whose objective is within AGREEMENT of the best one.
    """

    form: Form
    parameters: Array
    data: Data
    n0: float
    d0: float
    known_e: float | None
    starts: int
    agreeing: int

    @property
    def irreducible(self) -> float:
        """E, in nats per target token."""
        return float(np.exp(self.parameters[0]))

    @property
    def free(self) -> np.ndarray:
        """(5,) which parameters were fitted."""
        return np.array([self.known_e is None, True, True, True, True])

    @property
    def x(self) -> Array:
        """log(N / N0), (P,)."""
        return np.log(self.data.sizes / self.n0)

    @property
    def y(self) -> Array:
        """log(D / D0), (P,)."""
        return np.log(self.data.tokens / self.d0)

    @property
    def residuals(self) -> Array:
        """Log of observed / fitted loss, (P,)."""
        return np.log(self.data.losses / self.predict(self.data.sizes, self.data.tokens))

    @property
    def residual_sd(self) -> float:
        """Standard deviation of log residuals, with the degrees of freedom left by the fit."""
        left = max(len(self.data.losses) - int(self.free.sum()), 1)
        return float(np.sqrt((self.residuals**2).sum() / left))

    def predict(self, sizes: Array | float, tokens: Array | float, parameters: Array | None = None) -> Array:
        """Returns the loss in nats at N and D. `parameters`, (..., 5), are others than the fitted ones.

        With draws (B, 5), give sizes and tokens shapes that broadcast with (B,) at the front: parameters[:, None].
        """
        at = self.parameters if parameters is None else parameters
        return loss(self.form, at, np.log(np.asarray(sizes) / self.n0), np.log(np.asarray(tokens) / self.d0))


def _bounds(losses: Array) -> tuple[Array, Array]:
    """Lower and upper bounds of the parameters, (5,) each.

    E may lie above the lowest loss: where a law has saturated, the lowest of several losses is E less noise.
    """
    low, high = float(losses.min()), float(losses.max())
    lower = np.array([np.log(1e-3 * low), np.log(1e-6 * low), np.log(1e-6 * low), EXPONENTS[0], EXPONENTS[0]])
    return lower, np.array([np.log(high), np.log(100 * high), np.log(100 * high), EXPONENTS[1], EXPONENTS[1]])


def start(data: Data, a: float, b: float, n0: float, d0: float) -> Array:
    """Returns the parameters (5,) with these exponents whose E, A0, B0 are best for the additive form."""
    columns = np.stack([np.ones_like(data.losses), (data.sizes / n0) ** -a, (data.tokens / d0) ** -b], axis=1)
    scales, _ = nnls(columns / data.losses[:, None], np.ones_like(data.losses))
    return np.array([*np.log(np.maximum(scales, 1e-9)), a, b])


def fit_law(
    data: Data,
    form: Form = "additive",
    known_e: float | None = None,
    huber: float | None = None,
    starts: Sequence[tuple[float, float]] = GRID,
) -> Fit:
    """Returns the best fit of a law over all starts. It may be unidentified: see `identify`.

    Args:
        data: The points of one row.
        form: Form of the law.
        known_e: The irreducible loss in nats, where it is known from the generator of the corpus; None: fitted.
        huber: Delta of the Huber loss of log residuals, near the standard deviation of single points; it reduces the
            weight of single wrong points, not of a wrong run. None: least squares.
        starts: Exponents (a, b) to start from.
    """
    n0, d0 = (float(np.exp(np.log(np.unique(values)).mean())) for values in (data.sizes, data.tokens))
    x_P, y_P, target_P = np.log(data.sizes / n0), np.log(data.tokens / d0), np.log(data.losses)
    lower, upper = _bounds(data.losses)
    if known_e is not None:
        lower[0], upper[0] = np.log(known_e) - 1, np.log(known_e) + 1
    free = np.array([known_e is None, True, True, True, True])

    def full(some: Array) -> Array:
        parameters = np.full(5, np.log(known_e) if known_e is not None else 0.0)
        parameters[free] = some
        return parameters

    def slopes(some: Array) -> Array:
        return log_loss_and_jacobian(form, full(some), x_P, y_P)[1][:, free]

    # SciPy documents a function here, but a checker knows the type of the default only, the name of a method.
    jacobian = cast("Any", slopes)
    found: list[tuple[float, Array]] = []
    for a, b in starts:
        begin = np.clip(start(data, a, b, n0, d0), lower + 1e-6, upper - 1e-6)
        done = least_squares(
            lambda some: log_loss_and_jacobian(form, full(some), x_P, y_P)[0] - target_P,
            begin[free],
            jacobian,
            bounds=(lower[free], upper[free]),
            x_scale="jac",
            ftol=1e-12,
            xtol=1e-12,
            gtol=1e-12,
            loss="linear" if huber is None else "huber",
            f_scale=huber or 1.0,
            max_nfev=200 if huber is None else 2000,  # with a small delta the steps are short
        )
        found.append((float(done.cost), full(done.x)))
    parameters = min(found, key=lambda one: one[0])[1]
    agreeing = agreeing_starts([cost for cost, _ in found], 1e-20 * len(target_P))
    return Fit(form, parameters, data, n0, d0, known_e, len(found), agreeing)


def agreeing_starts(objectives: Sequence[float], tolerance: float = 0.0) -> int:
    """Returns the number of starts whose objective is within 0.1 % (AGREEMENT), or the tolerance, of the best one.

    An objective that is not a number does not agree.
    """
    best = float(np.nanmin(objectives))
    return sum(one <= best * (1 + AGREEMENT) + tolerance for one in objectives)


def refit(fit: Fit, log_losses_BP: Array, start_BK: Array | None = None, free: np.ndarray | None = None) -> Array:
    """Returns the least-squares parameters, (B, 5), for B vectors of log losses at the points of the fit.

    All B problems are solved at once by projected Levenberg-Marquardt steps from the parameters of the fit. This takes
    about 50 ms for 300 data sets of 45 points, against 1.5 s with one call of scipy for each.

    Args:
        fit: The form, the points and the start.
        log_losses_BP: Targets.
        start_BK: Other starts than the fit, (B, 5).
        free: (5,) which parameters change; the others keep the value of the start. None: those of the fit.
    """
    free = fit.free if free is None else free
    x_P, y_P = fit.x, fit.y
    lower, upper = _bounds(np.exp(log_losses_BP))
    if fit.known_e is not None:
        lower[0], upper[0] = -np.inf, np.inf
    found_BK = np.broadcast_to(fit.parameters, (len(log_losses_BP), 5)).copy() if start_BK is None else start_BK.copy()
    left = np.arange(len(found_BK))  # data sets that have not converged; the arrays below are theirs
    theta, target, damping, calm = found_BK, log_losses_BP, np.full(len(left), 1e-3), np.zeros(len(left), dtype=int)
    predicted, jacobian = log_loss_and_jacobian(fit.form, theta, x_P, y_P)
    residual = predicted - target
    cost = (residual**2).sum(axis=1)
    for _ in range(100):
        gradient = (jacobian * residual[..., None]).sum(axis=1)
        still = ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0)) | ~free
        normal = np.swapaxes(jacobian, 1, 2) @ jacobian
        normal[still[:, :, None] | still[:, None, :]] = 0.0
        diagonal = np.einsum("bkk->bk", normal)  # a view
        diagonal += damping[:, None] * diagonal + 1e-14
        diagonal[still] = 1.0
        step = np.linalg.solve(normal, np.where(still, 0.0, -gradient)[..., None])[..., 0]
        candidate = np.where(free, np.clip(theta + np.clip(step, -2, 2), lower, upper), theta)
        new_predicted, new_jacobian = log_loss_and_jacobian(fit.form, candidate, x_P, y_P)
        new_residual = new_predicted - target
        new_cost = (new_residual**2).sum(axis=1)
        better = new_cost <= cost
        calm = np.where(np.where(better, cost - new_cost, 0.0) < 1e-8 * cost, calm + 1, 0)
        theta = np.where(better[:, None], candidate, theta)
        residual = np.where(better[:, None], new_residual, residual)
        jacobian = np.where(better[:, None, None], new_jacobian, jacobian)
        cost = np.where(better, new_cost, cost)
        damping = np.where(better, np.maximum(damping / 5, 1e-12), np.minimum(damping * 6, 1e8))
        found_BK[left] = theta
        on = calm < 3
        if not on.any():
            break
        left, theta, target, residual = left[on], theta[on], target[on], residual[on]
        jacobian, cost, damping, calm = jacobian[on], cost[on], damping[on], calm[on]
    return found_BK


@dataclass(frozen=True)
class Profile:
    """The increase of the sum of squares when one parameter is fixed and the others are fitted again.

    Attributes:
        name: "E" or "a".
        values: (V,) values of the parameter, in nats for E, from its lower to its upper bound.
        statistic: (V,) increase / variance of the noise; the 95 % interval is where it is below `limit`.
        limit: The 95 % point.
    """

    name: Literal["E", "a"]
    values: Array
    statistic: Array
    limit: float

    @property
    def closed(self) -> bool:
        """Whether the 95 % interval ends inside the bounds on both sides."""
        return bool(self.statistic[0] > self.limit and self.statistic[-1] > self.limit)


@dataclass(frozen=True)
class Identification:
    """Whether the points determine the parameters of a fit.

    Attributes:
        reasons: Why they do not; empty if they do.
        rank: Rank of the Jacobian with columns of length 1.
        parameters: Number of parameters that were fitted: the rank that is needed.
        condition: Condition number of that Jacobian.
        profiles: Of E, unless it is known, and of a.
    """

    reasons: tuple[str, ...]
    rank: int
    parameters: int
    condition: float
    profiles: tuple[Profile, ...]

    @property
    def identified(self) -> bool:
        """Whether exponents and extrapolation may be reported; otherwise only the interpolated curve."""
        return not self.reasons


def identify(fit: Fit, variance: float | None = None, degrees: float = np.inf) -> Identification:
    """Returns whether the points determine the parameters.

    Args:
        fit: The fit.
        variance: Variance of a log residual, inflated for points that share a run (`Noise.inflated_variance`). None:
            estimated from the residuals.
        degrees: Degrees of freedom of `variance`.
    """
    columns = log_loss_and_jacobian(fit.form, fit.parameters, fit.x, fit.y)[1][:, fit.free]
    scaled = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    singular = np.linalg.svd(scaled, compute_uv=False)
    needed, rank = columns.shape[1], int((singular > 1e-8 * singular[0]).sum())
    full_rank = len(singular) == needed and singular[-1] > 0
    condition = float(singular[0] / singular[-1]) if full_rank else float("inf")
    sizes, least = len(np.unique(fit.data.sizes)), 3 if fit.known_e is not None else 4
    budgets = len(np.unique(fit.data.tokens))
    reasons = []
    if sizes < least:
        reasons.append(f"{sizes} sizes; at least {least} are needed")
    if budgets < MIN_BUDGETS:
        reasons.append(f"{budgets} budgets; at least {MIN_BUDGETS} are needed")
    if rank < needed:
        reasons.append(f"the points determine {rank} of {needed} parameters")
    if condition >= MAX_CONDITION:
        reasons.append(f"condition number {condition:.2g}; below {MAX_CONDITION:,.0f} is needed")
    if fit.agreeing < fit.starts:
        reasons.append(f"only {fit.agreeing} of {fit.starts} starts agree")
    profiles: tuple[Profile, ...] = ()
    if rank == needed:
        variance, limit = _own_variance(fit) if variance is None else (variance, _limit(degrees))
        names: tuple[Literal["E", "a"], ...] = ("E", "a") if fit.known_e is None else ("a",)
        profiles = tuple(profile(fit, name, variance, limit) for name in names)
        reasons += [f"the 95 % interval of {one.name} is open" for one in profiles if not one.closed]
    return Identification(tuple(reasons), rank, needed, condition, profiles)


def _own_variance(fit: Fit) -> tuple[float, float]:
    """Variance of residuals and the 95 % point of the profile: from means of runs, if those vary more than points."""
    residuals, runs = fit.residuals, fit.data.runs
    counts = np.bincount(runs)
    means = np.bincount(runs, residuals) / counts
    df_between = max(len(counts) - 3, 1)
    between = float((counts * means**2).sum() / df_between)
    df = max(len(residuals) - int(fit.free.sum()), 1)
    pooled = float((residuals**2).sum() / df)
    variance, df = (between, df_between) if len(counts) < len(residuals) and between > pooled else (pooled, df)
    return max(variance, 1e-16), _limit(df)


def _limit(degrees: float) -> float:
    """The 95 % point of a profile: that of F(1, degrees), which is the square of Student's t."""
    return float(student_t.ppf(0.975, degrees)) ** 2


def profile(fit: Fit, name: Literal["E", "a"], variance: float, limit: float, number: int = 12) -> Profile:
    """Returns the profile of E or a over its bounds; values are spaced evenly, in log E or log a, on both sides."""
    index = {"E": 0, "a": 3}[name]
    lower, upper = (float(bound[index]) for bound in _bounds(fit.data.losses))
    upper -= 1e-3 * (name == "E")
    ends = np.array([lower, fit.parameters[index], upper])
    if name == "a":
        ends = np.log(ends)
    half = number // 2
    values = np.concatenate([np.linspace(ends[0], ends[1], half, endpoint=False), np.linspace(ends[1], ends[2], half)])
    start_BK = np.broadcast_to(fit.parameters, (len(values), 5)).copy()
    start_BK[:, index] = np.exp(values) if name == "a" else values
    free = fit.free.copy()
    free[index] = False
    target_BP = np.broadcast_to(np.log(fit.data.losses), (len(values), len(fit.data.losses)))
    theta = refit(fit, target_BP, start_BK, free)
    squares = ((log_loss_and_jacobian(fit.form, theta, fit.x, fit.y)[0] - target_BP) ** 2).sum(axis=1)
    least = (fit.residuals**2).sum()
    return Profile(name, np.exp(values), np.maximum(squares - least, 0) / variance, limit)


def describe(fit: Fit) -> dict[str, float]:
    """Returns E, A0, B0 in nats and a, b, for tables."""
    values = [*np.exp(fit.parameters[:3]), *fit.parameters[3:]]
    return {name.removeprefix("log "): float(value) for name, value in zip(NAMES, values, strict=True)}
