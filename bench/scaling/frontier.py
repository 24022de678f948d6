"""The best size and the lowest loss at each cost, and IsoFLOP slices.

The frontier is the minimum of the fitted law over sizes inside the row's ladder, at its exact cost per token: the
envelope of raw points is too low, because it picks the luckiest of several sizes. For a row that no law describes, an
`Interpolation` of the points is in its place: it is too low by about the noise of a run, a law would miss by more. The
rule of 6 FLOPs for each parameter and token (Kaplan et al. 2020, arXiv 2001.08361) is only offered to show how much it
changes the exponents, as Pearce and Song 2024 (arXiv 2406.12907) did. IsoFLOP slices are approach 2 of Hoffmann et al.
2022 (arXiv 2203.15556).
Letters in names: B draws, C costs, N sizes of the grid, S sizes of the ladder.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy.optimize import least_squares

from bench.scaling.fit import Data, Fit
from bench.scaling.laws import Array
from bench.scaling.points import Count, Point

STEPS, GRID_COSTS = 10, 41
"""Sizes of the grid for each size of a ladder, and costs at which two rows are compared."""

NEAR = 0.005
"""How far a budget may be outside those of a size, in the logarithm: the cost of a token is a mean over the runs."""

MAX_EXTRAPOLATION = 10.0
"""How far beyond the largest cost a frontier may be drawn, dashed and without a claim."""


class Surface(Protocol):
    """The loss of a row at every size and budget: a `Fit`, or an `Interpolation` where no law describes the row."""

    @property
    def parameters(self) -> Array:
        """What simulated data change, (K,)."""
        ...

    @property
    def data(self) -> Data:
        """The points."""
        ...

    def predict(self, sizes: Array | float, tokens: Array | float, parameters: Array | None = None) -> Array:
        """Returns the loss in nats at N and D, as `Fit.predict`."""
        ...


@dataclass(frozen=True)
class Ladder:
    """The sizes of a row and what a target token costs at each. Between sizes: linear interpolation of logarithms.

    Attributes:
        sizes: (S,) parameters, in the way of counting of the fit, ascending.
        cost_per_token: (S,) training FLOPs, or seconds, for each target token.
        lowest: Smallest cost at which two sizes were trained: the smallest budget of the second size.
        highest: Largest cost of a run.
        budgets: (2, S) target tokens of the smallest and of the largest budget of each size; None: not limited. At a
            cost between `lowest` and `highest`, a size counts for the frontier only with a budget between these two:
            the law of a small model with more data than its runs had is extrapolated.
        tolerance: How much lower, in the logarithm, the loss at a budget that no run had must be to count in `limited`:
            the standard deviation of a run.
    """

    sizes: Array
    cost_per_token: Array
    lowest: float
    highest: float
    budgets: Array | None = None
    tolerance: float = 0.0

    @staticmethod
    def of(
        points: Sequence[Point],
        count: Count = "body_softmax",
        cost: Literal["flops", "seconds"] = "flops",
        tolerance: float = 0.0,
    ) -> Ladder:
        """Returns the ladder of a row. The cost per token of a size is the geometric mean over its points.

        Raises:
            ValueError: a point has no measured seconds.
        """
        by_size: dict[float, list[tuple[float, float]]] = {}
        for point in points:
            spent = getattr(point, cost)
            if spent is None:
                raise ValueError(
                    f"scaling points: run {point.run} has no {cost}; expected it for all points of the row"
                )
            by_size.setdefault(float(getattr(point, count)), []).append((spent, point.tokens))
        sizes = sorted(by_size)
        per_token = [float(np.exp(np.mean([np.log(c / d) for c, d in by_size[size]]))) for size in sizes]
        lowest = min(c for c, _ in by_size[sizes[min(1, len(sizes) - 1)]])
        highest = max(c for of in by_size.values() for c, _ in of)
        budgets = np.array([[end(d for _, d in by_size[size]) for size in sizes] for end in (min, max)])
        return Ladder(np.array(sizes), np.array(per_token), lowest, highest, budgets, tolerance)

    def at(self, sizes: Array) -> Array:
        """Returns the cost of a token at these sizes inside the ladder."""
        return np.exp(np.interp(np.log(sizes), np.log(self.sizes), np.log(self.cost_per_token)))

    def inside(self, sizes_N: Array, tokens_CN: Array) -> np.ndarray:
        """Returns (C, N) which budgets are inside the runs'. Between sizes: linear interpolation of logarithms."""
        return self._outside(sizes_N, tokens_CN) <= NEAR

    def _outside(self, sizes_N: Array, tokens_CN: Array) -> Array:
        """Returns (C, N) how far budgets are outside the runs', in the logarithm; 0 or less inside."""
        if self.budgets is None:
            return np.zeros(tokens_CN.shape)
        fewest_N, most_N = (np.interp(np.log(sizes_N), np.log(self.sizes), np.log(end_S)) for end_S in self.budgets)
        logs_CN = np.log(tokens_CN)
        return np.maximum(fewest_N - logs_CN, logs_CN - most_N)

    def allowed(self, sizes_N: Array, tokens_CN: Array, costs_C: Array) -> np.ndarray:
        """As `inside`, or the nearest where none is; below `lowest` and beyond `highest`, without runs, all."""
        outside_CN = np.maximum(self._outside(sizes_N, tokens_CN), NEAR)
        beyond_C = (costs_C > self.highest * (1 + 1e-9)) | (costs_C < self.lowest * (1 - 1e-9))
        return (outside_CN <= outside_CN.min(axis=1, keepdims=True)) | beyond_C[:, None]

    def grid(self) -> Array:
        """Returns the sizes of the ladder, with others between them that divide each gap evenly in the logarithm.

        At the highest cost only one size has runs, so the sizes of the ladder must be among those of the grid.
        """
        gaps = [np.geomspace(low, high, STEPS + 1)[:-1] for low, high in itertools.pairwise(self.sizes)]
        return np.concatenate([*gaps, self.sizes[-1:]])


@dataclass(frozen=True)
class Frontier:
    """The lowest loss at each cost or a lower one. All arrays have the shape (C,).

    Attributes:
        costs: FLOPs or seconds.
        loss: Nats per target token.
        low: Lower end of the band.
        high: Upper end of the band.
        best_size: Parameters of the best size.
        at_end: Whether the best size is the smallest or the largest of the ladder, or is `limited` by the budgets of
            the runs: a better one may lie beyond.
        extrapolated: Whether the cost is outside the costs of runs.
    """

    costs: Array
    loss: Array
    low: Array
    high: Array
    best_size: Array
    at_end: np.ndarray
    extrapolated: np.ndarray


@dataclass(frozen=True)
class Curve:
    """The frontier of a row in one cost, and what it is computed from."""

    surface: Surface
    ladder: Ladder
    draws: Array
    frontier: Frontier


def lowest_loss(surface: Surface, ladder: Ladder, costs_C: Array, draws_BK: Array | None = None) -> tuple[Array, Array]:
    """Returns the lowest loss inside the ladder, (C,) or (B, C), and the best size, of the same shape.

    Only budgets inside those of the runs count (`Ladder.allowed`). The best size is that of the grid, moved to the
    vertex of the parabola through its neighbours if both are allowed.
    """
    sizes_N = ladder.grid()
    tokens_CN = costs_C[:, None] / ladder.at(sizes_N)
    parameters = surface.parameters if draws_BK is None else draws_BK[:, None, None]
    allowed_CN = ladder.allowed(sizes_N, tokens_CN, costs_C)
    loss = np.where(allowed_CN, surface.predict(sizes_N, tokens_CN, parameters), np.inf)
    best = loss.argmin(axis=-1)
    inner = np.clip(best, 1, len(sizes_N) - 2)

    def at(index: np.ndarray) -> Array:
        return np.take_along_axis(loss, index[..., None], -1)[..., 0]

    left, middle, right = at(inner - 1), at(inner), at(inner + 1)
    between = (best == inner) & np.isfinite(left) & np.isfinite(right)
    left, middle, right = (np.where(between, values, 0.0) for values in (left, middle, right))
    logs_N = np.log(sizes_N)
    before, after = (logs_N[inner + step] - logs_N[inner] for step in (-1, 1))
    # The parabola middle + slope x + square x^2 through the neighbours, whose distances may differ.
    square = ((right - middle) / after - (left - middle) / before) / (after - before)
    slope = (right - middle) / after - square * after
    shift = np.clip(-slope / (2 * np.where(square > 0, square, np.inf)), before, after)
    refined = np.where(between, sizes_N[inner] * np.exp(shift), sizes_N[best])
    vertex = np.where(between, middle + slope * shift / 2, at(best))
    return np.minimum(vertex, at(best)), refined


def limited(surface: Surface, ladder: Ladder, costs_C: Array) -> np.ndarray:
    """Returns (C,) whether another size of the ladder would be better with a budget that none of its runs had.

    The lowest loss inside the budgets is then not that of the best size: with three budgets a large model with the
    largest one is all that is left at a high cost, and two rows may cross there whose best sizes do not.
    """
    sizes_N = ladder.grid()
    tokens_CN = costs_C[:, None] / ladder.at(sizes_N)
    loss_CN = surface.predict(sizes_N, tokens_CN)
    inside_CN = np.where(ladder.inside(sizes_N, tokens_CN), loss_CN, np.inf)
    return inside_CN.min(axis=1) > loss_CN.min(axis=1) * np.exp(ladder.tolerance)


def unlimited(free_C: np.ndarray) -> np.ndarray:
    """Returns the indices of the longest stretch of costs at which no row is `limited`; empty if there is none."""
    indices = np.flatnonzero(free_C)
    stretches = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return max(stretches, key=len)


def frontier(
    surface: Surface, ladder: Ladder, draws_BK: Array, costs_C: Array | None = None, level: float = 0.95
) -> Frontier:
    """Returns the frontier with its band; by default over the costs of the ladder and MAX_EXTRAPOLATION beyond."""
    if costs_C is None:
        costs_C = np.geomspace(ladder.lowest, ladder.highest * MAX_EXTRAPOLATION, 2 * GRID_COSTS)
    loss, size = lowest_loss(surface, ladder, costs_C)
    draws_BC, _ = lowest_loss(surface, ladder, costs_C, draws_BK)
    # Where budgets limit the sizes, only worse ones may be left at a higher cost, which need not be spent.
    loss, draws_BC = (np.minimum.accumulate(of, axis=-1) for of in (loss, draws_BC))
    low, high = np.quantile(draws_BC, [(1 - level) / 2, (1 + level) / 2], axis=0)
    ends = (size <= ladder.sizes[0] * (1 + 1e-9)) | (size >= ladder.sizes[-1] * (1 - 1e-9))
    ends |= limited(surface, ladder, costs_C)
    outside = (costs_C < ladder.lowest * (1 - 1e-9)) | (costs_C > ladder.highest * (1 + 1e-9))
    return Frontier(costs_C, loss, low, high, size, ends, outside)


@dataclass(frozen=True)
class Slice:
    """Loss against size at one cost (IsoFLOP).

    Attributes:
        cost: FLOPs or seconds.
        sizes: (N,) those of the grid for which this cost is a budget inside those of the runs.
        loss: (N,) of the surface.
        measured_sizes: (M,) sizes whose curves reach this cost.
        measured_loss: (M,) loss of the mean curve of these sizes, interpolated in the logarithms.
        minimum: Size at the vertex of a parabola through the measured points, in log size; None: fewer than three, or
            no minimum between them.
    """

    cost: float
    sizes: Array
    loss: Array
    measured_sizes: Array
    measured_loss: Array
    minimum: float | None


def iso_cost_slice(surface: Surface, ladder: Ladder, cost: float) -> Slice:
    """Returns the slice of the surface and of the points at one cost."""
    data = surface.data
    sizes_N = ladder.grid()
    sizes_N = sizes_N[ladder.allowed(sizes_N, (cost / ladder.at(sizes_N))[None], np.array([cost]))[0]]
    measured = []
    for size, per_token in zip(ladder.sizes, ladder.cost_per_token, strict=True):
        mine = data.sizes == size
        budgets = np.unique(data.tokens[mine])
        losses = [np.log(data.losses[mine & (data.tokens == budget)]).mean() for budget in budgets]
        tokens = cost / per_token
        if len(budgets) and budgets[0] * (1 - 1e-9) <= tokens <= budgets[-1] * (1 + 1e-9):
            measured.append((size, float(np.exp(np.interp(np.log(tokens), np.log(budgets), losses)))))
    measured_sizes, measured_loss = np.array(measured).reshape(-1, 2).T
    minimum = None
    if len(measured) >= 3:
        square, linear, _ = np.polyfit(np.log(measured_sizes / ladder.sizes[0]), np.log(measured_loss), 2)
        vertex = -linear / (2 * square) if square > 0 else -1.0
        if 0 < vertex < np.log(measured_sizes[-1] / ladder.sizes[0]):
            minimum = float(ladder.sizes[0] * np.exp(vertex))
    loss_N = surface.predict(sizes_N, cost / ladder.at(sizes_N))
    return Slice(cost, sizes_N, loss_N, measured_sizes, measured_loss, minimum)


@dataclass(frozen=True)
class PowerLaw:
    """E + k (C / C0)^-c through a frontier.

    Attributes:
        irreducible: E in nats.
        scale: k in nats, the loss above E at C0.
        exponent: c.
        c0: Reference cost.
    """

    irreducible: float
    scale: float
    exponent: float
    c0: float


def frontier_law(costs_C: Array, loss_C: Array, known_e: float | None = None) -> PowerLaw:
    """Returns the least-squares power law of log loss through a frontier (Hestness et al. 2017, arXiv 1712.00409)."""
    c0 = float(np.exp(np.log(costs_C).mean()))
    x, target, low = np.log(costs_C / c0), np.log(loss_C), float(loss_C.min())
    bounds = ([np.log(1e-3 * low), np.log(1e-6 * low), 1e-3], [np.log(low), np.log(100 * low), 2.0])
    if known_e is not None:
        bounds[0][0], bounds[1][0] = np.log(known_e), np.log(known_e) + 1e-9

    def residual(some: Array) -> Array:
        return np.logaddexp(some[0], some[1] - some[2] * x) - target

    found = []
    for share, c in ((0.3, 0.1), (0.8, 0.3)):
        begin = np.array([np.log(share * low), np.log((1 - share) * low + 1e-3), c])
        if known_e is not None:
            begin[0] = np.log(known_e) + 5e-10
        found.append(least_squares(residual, begin, bounds=bounds, x_scale="jac", ftol=1e-12, xtol=1e-12, gtol=1e-12))
    best = min(found, key=lambda one: one.cost).x
    return PowerLaw(float(np.exp(best[0])), float(np.exp(best[1])), float(best[2]), c0)


@dataclass(frozen=True)
class SizeExponent:
    """The exponent of the best size N* ~ C^n in one way of counting.

    Attributes:
        count: How parameters are counted.
        cost: "exact", or "6ND" with N in this way of counting.
        exponent: Slope of log N* over log C, inside the ladder and its budgets.
    """

    count: Count
    cost: Literal["exact", "6ND"]
    exponent: float


def size_exponents(fit: Fit, ladder: Ladder, counts: dict[Count, Array]) -> tuple[SizeExponent, ...]:
    """Returns the exponents of N* for each way of counting, with exact costs, and with 6 N D.

    The law is always the same; a way of counting changes the name of a size and, with 6 N D, which runs cost the same,
    and so which size is best. Exponents are slopes over the costs at which the best size is inside the ladder and has a
    budget inside those of the runs (`limited`). A way of counting with fewer than three such costs is left out.

    Args:
        fit: The law, in the way of counting of the ladder.
        ladder: Sizes and exact FLOPs per token.
        counts: Way of counting -> parameters of the sizes of the ladder, (S,).
    """
    cheapest, dearest = ladder.lowest / ladder.cost_per_token[0], ladder.highest / ladder.cost_per_token[-1]
    found = []
    for count, named_S in counts.items():
        by_cost: tuple[tuple[Literal["exact", "6ND"], Array], ...]
        by_cost = (("exact", ladder.cost_per_token), ("6ND", 6 * named_S))
        for cost, per_token_S in by_cost:
            ends = float(per_token_S[0] * cheapest), float(per_token_S[-1] * dearest)
            costs_C = np.geomspace(*ends, 10 * GRID_COSTS)
            priced = Ladder(ladder.sizes, per_token_S, *ends, ladder.budgets, ladder.tolerance)
            best_C = lowest_loss(fit, priced, costs_C)[1]
            inside = (best_C > ladder.sizes[0] * 1.001) & (best_C < ladder.sizes[-1] * 0.999)
            inside &= ~limited(fit, priced, costs_C)
            if inside.sum() < 3:
                continue
            named_C = np.interp(np.log(best_C), np.log(ladder.sizes), np.log(named_S))
            slope = float(np.polyfit(np.log(costs_C[inside]), named_C[inside], 1)[0])
            found.append(SizeExponent(count, cost, slope))
    return tuple(found)
