"""The analysis of a whole study: laws of all rows with their intervals, comparisons of all pairs, and warnings.

A row is of one of three kinds:
1. No curve: there are too few points or sizes, or the points do not determine all parameters.
2. Interpolation only: the law is not identified for another reason, such as an open interval of E, or it misses sizes
   and budgets by more than MAX_SCATTER. Then there are the frontier inside the range of the data, with a band, and
   verdicts in the common range: of the law, or, if that misses points, of the points (`Interpolation`). Exponents, best
   sizes and extrapolation are refused with the reason.
3. Identified: the law gives all of these.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.scaling.bleu import BleuLaw, fit_bleu
from bench.scaling.crossing import Crossing, NotComparable, compare
from bench.scaling.fit import GRID, MAX_CONDITION, MIN_BUDGETS, Data, Fit, Identification, fit_law, identify
from bench.scaling.frontier import (
    MAX_EXTRAPOLATION,
    Curve,
    Ladder,
    PowerLaw,
    SizeExponent,
    Surface,
    frontier,
    limited,
)
from bench.scaling.held_out import FormChoice, choose_form
from bench.scaling.interpolation import Interpolation
from bench.scaling.laws import Array
from bench.scaling.optima import FRONTIER_COSTS, Optimum, best_sizes, exponents_of_best_sizes, law_of_frontier
from bench.scaling.outliers import Drift, RunDeviation, drift_deviation, wrong_run
from bench.scaling.points import Point, with_equal_budgets
from bench.scaling.uncertainty import (
    DRAWS,
    Interval,
    Noise,
    law_error,
    noise_of,
    parameter_intervals,
    pooled_noise,
    simulate,
)

Cost = Literal["flops", "seconds"]
COSTS: tuple[Cost, ...] = ("flops", "seconds")

SEED = 20261127
DRIFT_BUDGETS = 5
"""Budgets, the last one a doubling, from which the prediction of the largest budget shows a wrong schedule."""

MIN_POINTS = 6
"""One more than a law has parameters: with fewer, the residuals say nothing."""

MIN_CURVE_SIZES = 3
"""With fewer sizes, what lies between them is a guess."""

MAX_SCATTER = 0.05
"""Standard deviation of log loss between sizes and budgets, beside that of seeds, up to which a law describes a row.
Laws of the 180 results of Gordon et al. 2021 have residuals of 2 to 3 %."""


@dataclass(frozen=True)
class RowAnalysis:
    """What the points of one row say.

    Attributes:
        row: Architecture.
        points: Its points, those of one budget with equal tokens and pairs (`with_equal_budgets`).
        reasons: Why exponents and extrapolation are refused; empty: they are not.
        fit: The law; None: too few points.
        choice: The choice of its form, with held-out predictions.
        identification: Whether the points determine its parameters.
        curves: Cost -> frontier; without those that the data do not allow.
        interpolation: What the curves are computed from if the law misses sizes and budgets; None: from the law.
        intervals: E, A0, B0, a, b with their intervals; empty if refused.
        noise: The noise of its runs (`noise_of`); None: cannot be estimated.
        law_error: By how much its law misses sizes and budgets (`law_error`), as a SD of log loss.
        optima: Best sizes at three costs of the range where no budget limits them; empty if refused, or if there is no
            such range.
        exponents: Exponents of the best size in each way of counting; empty if refused.
        frontier_law: The power law of the frontier in FLOPs, and its exponent with the interval; None if refused, or
            if budgets limit the frontier almost everywhere.
        bleu: BLEU against loss; None: fewer than four points with a BLEU.
        wrong_run: Name and deviation of a run to look at; None: no run deviates.
        drift: Whether the points of short budgets are end points; None: fewer than three budgets.
    """

    row: str
    points: tuple[Point, ...]
    reasons: tuple[str, ...]
    fit: Fit | None = None
    choice: FormChoice | None = None
    identification: Identification | None = None
    noise: Noise | None = None
    law_error: float = 0.0
    curves: dict[Cost, Curve] | None = None
    interpolation: Interpolation | None = None
    intervals: dict[str, Interval] | None = None
    optima: tuple[Optimum, ...] = ()
    exponents: tuple[tuple[SizeExponent, Interval], ...] = ()
    frontier_law: tuple[PowerLaw, Interval] | None = None
    bleu: BleuLaw | None = None
    wrong_run: tuple[str, RunDeviation] | None = None
    drift: Drift | None = None

    def curve(self, cost: Cost) -> Curve | None:
        """Returns the frontier in a cost, if there is one."""
        return (self.curves or {}).get(cost)

    @property
    def spent(self) -> dict[Cost, float | None]:
        """Cost -> sum over runs; None: not measured for all runs."""
        found: dict[Cost, float | None] = {}
        for cost in COSTS:
            runs: dict[str, float | None] = {}
            for point in self.points:  # the points of a run are stations of one training
                value = getattr(point, cost)
                runs[point.run] = None if value is None else max(value, runs.get(point.run) or 0.0)
            values = [value for value in runs.values() if value is not None]
            found[cost] = sum(values) if len(values) == len(runs) else None
        return found


@dataclass(frozen=True)
class Pair:
    """The comparison of two rows in one cost.

    Attributes:
        first: Row.
        second: Row.
        cost: In what cost.
        crossing: The verdict; None: refused.
        refused: The row without a law, because of which there is no verdict; "" if none.
        reasons: Why there is no verdict.
    """

    first: str
    second: str
    cost: Cost
    crossing: Crossing | None
    refused: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """What the points of a study say.

    Attributes:
        rows: Row -> its analysis, in the order of the study.
        noise: The noise of runs, pooled over rows, for rows with too few seeds of their own; None: cannot be estimated.
        pairs: Every pair of rows in every cost.
    """

    rows: dict[str, RowAnalysis]
    noise: Noise | None
    pairs: tuple[Pair, ...]


def analyse(
    points: Iterable[Point],
    rows: Sequence[str],
    known_e: float | None = None,
    draws: int = DRAWS,
    starts: Sequence[tuple[float, float]] = GRID,
) -> Analysis:
    """Returns the analysis of a study, also of one in progress: what cannot be said has a reason.

    The same points give the same numbers: the random draws of a row depend on its name alone.

    Args:
        points: End points of all rows, as measured.
        rows: The rows, in the order of the study; rows without points are included.
        known_e: Irreducible loss in nats per target token, if it is known.
        draws: Simulated data sets of an interval.
        starts: Exponents (a, b) from which fits start.
    """
    by_row: dict[str, list[Point]] = {row: [] for row in rows}
    for point in points:
        by_row[point.row].append(point)
    found = {row: _fitted(row, tuple(with_equal_budgets(of)), known_e, starts) for row, of in by_row.items()}
    if pooled := _noise(one.fit for one in found.values()):
        found = {
            row: replace(one, law_error=law_error(one.fit, pooled)) if one.fit else one for row, one in found.items()
        }
    noise = _noise_of_laws(found.values())
    others = {row: _noise_of_laws(other for name, other in found.items() if name != row) or noise for row in found}
    found = {row: _with_law(one, noise, others[row], draws) for row, one in found.items()}
    pairs = tuple(
        _pair(found[first], found[second], cost) for cost in COSTS for first, second in itertools.combinations(rows, 2)
    )
    return Analysis(found, noise, pairs)


def _noise(fits: Iterable[Fit | None]) -> Noise | None:
    """The noise pooled over these laws; None if it cannot be estimated: neither seeds nor enough sizes."""
    try:
        return pooled_noise([fit for fit in fits if fit])
    except ValueError:
        return None


def _noise_of_laws(rows: Iterable[RowAnalysis]) -> Noise | None:
    """The noise pooled over rows. What the laws of some rows miss is no noise of the others."""
    rows = list(rows)
    noise, kept = (
        _noise(row.fit for row in of) for of in (rows, [row for row in rows if row.law_error <= MAX_SCATTER])
    )
    if noise is None or kept is None:
        return noise
    return replace(noise, point_sd=kept.point_sd, source=kept.source, cell_sd=kept.cell_sd, cell_df=kept.cell_df)


def _fitted(
    row: str, points: tuple[Point, ...], known_e: float | None, starts: Sequence[tuple[float, float]]
) -> RowAnalysis:
    """The law of a row, if it has enough points, and its BLEU against its loss."""
    scored = [(point.loss, point.bleu) for point in points if point.bleu is not None]
    losses, bleus = np.array(scored, dtype=np.float64).reshape(-1, 2).T
    bleu = _bleu(losses, bleus)
    if len(points) < MIN_POINTS:
        return RowAnalysis(row, points, (f"{len(points)} points; at least {MIN_POINTS} are needed",), bleu=bleu)
    data = Data.of(points)
    choice = choose_form(data, known_e, starts)
    fit = fit_law(data, choice.form, known_e, starts=starts)
    # The same as outliers.schedule_drift, which would fit once more.
    drifts = [Drift(float(one.errors.mean())) for one in choice.held_out[choice.form] if one.what == "largest budget"]
    budgets = np.unique(data.tokens)
    # The limit of a drift is that of one doubling, predicted from several (outliers.MAX_DRIFT).
    doubles = len(budgets) >= DRIFT_BUDGETS and budgets[-1] / budgets[-2] < 2.5
    drift = drifts[0] if drifts and doubles else None
    return RowAnalysis(row, points, (), fit, choice, bleu=bleu, drift=drift)


def _bleu(losses: Array, bleus: Array) -> BleuLaw | None:
    """BLEU against loss; None with fewer than four points, or if these do not look like the curve at all."""
    if len(np.unique(losses[bleus > 0])) <= 3:
        return None
    try:
        return fit_bleu(losses, bleus)
    except RuntimeError:  # scipy: the least squares do not converge, with BLEU near 0
        return None


def _with_law(row: RowAnalysis, pooled: Noise | None, others: Noise | None, draws: int) -> RowAnalysis:
    """The row with all that its law allows.

    Args:
        row: With its fit.
        pooled: The noise of all rows.
        others: That of the other rows. In a row with few seeds, a wrong run is judged by it, because it increases the
            noise that is pooled with its own row.
        draws: Simulated data sets of an interval.
    """
    fit = row.fit
    if fit is None:
        return row
    noise = noise_of(fit, pooled) if pooled else None
    identification = identify(
        fit, (noise.inflated_variance(fit) or None) if noise else None, noise.degrees if noise else np.inf
    )
    reasons = identification.reasons
    misses = row.law_error > MAX_SCATTER
    if misses:
        reasons += (
            f"the law misses sizes and budgets by {100 * row.law_error:.1f} %, more than seeds explain; at most "
            f"{100 * MAX_SCATTER:.0f} % is accepted",
        )
    row = replace(row, reasons=reasons, identification=identification, noise=noise)
    if noise is None:
        return replace(row, reasons=(*reasons, "the noise between runs is unknown"))
    if row.drift:
        row = replace(row, drift=replace(row.drift, deviation=drift_deviation(fit, noise)))
    undetermined = identification.rank < identification.parameters or identification.condition >= MAX_CONDITION
    undetermined |= len(np.unique(fit.data.tokens)) < MIN_BUDGETS
    if undetermined or len(np.unique(fit.data.sizes)) < MIN_CURVE_SIZES:
        return row  # where N and D grow together, even losses inside the range of the data are extrapolated
    rng = np.random.default_rng([SEED, zlib.crc32(row.row.encode())])
    interpolation = Interpolation.of(fit) if misses else None
    surface: Surface = interpolation or fit
    draws_BK = interpolation.simulate(noise, rng, draws) if interpolation else simulate(fit, noise, rng, draws)
    curves: dict[Cost, Curve] = {}
    for cost in COSTS:
        if any(getattr(point, cost) is None for point in row.points):
            continue
        ladder = Ladder.of(row.points, cost=cost, tolerance=noise.run_sd)
        # Where budgets limit the highest cost, the line of the law beyond it would not continue that of the frontier.
        ends = bool(reasons) or bool(limited(surface, ladder, np.array([ladder.highest]))[0])
        beyond = 1.0 if ends else MAX_EXTRAPOLATION
        costs_C = np.geomspace(ladder.lowest, ladder.highest * beyond, FRONTIER_COSTS)
        curves[cost] = Curve(surface, ladder, draws_BK, frontier(surface, ladder, draws_BK, costs_C))
    deviating = wrong_run(fit, others or noise)
    names = list(dict.fromkeys(point.run for point in row.points))
    row = replace(
        row,
        curves=curves,
        interpolation=interpolation,
        wrong_run=(names[deviating.run], deviating) if deviating else None,
    )
    if reasons:
        return row
    return replace(
        row,
        intervals=parameter_intervals(fit, draws_BK),
        optima=best_sizes(curves["flops"]),
        exponents=exponents_of_best_sizes(fit, curves["flops"], row.points),
        frontier_law=law_of_frontier(curves["flops"], fit.known_e),
    )


def _pair(first: RowAnalysis, second: RowAnalysis, cost: Cost) -> Pair:
    """The comparison of two rows, or the reason why there is none."""
    curves = []
    for row in (first, second):
        curve = row.curve(cost)
        if curve is None:
            if row.curves:
                return Pair(first.row, second.row, cost, None, reasons=("seconds were not measured for all points",))
            return Pair(first.row, second.row, cost, None, row.row, row.reasons)
        curves.append((curve.surface, curve.ladder, curve.draws))
    try:
        return Pair(first.row, second.row, cost, compare(*curves))
    except NotComparable as error:
        return Pair(first.row, second.row, cost, None, reasons=(error.reason,))
