"""Uncertainty of fits: the noise between runs, pooled over rows, and refits of data simulated from the fit.

All points of one curve share the random deviation of their run, so a bootstrap over points gives intervals that are
too narrow, and one over runs changes nothing where a size has one run. Intervals come from simulation instead: losses
from the fitted law, a deviation for each run, one for each point, and a new fit. The standard deviation between runs is
itself drawn from its scaled inverse chi-square distribution (Gelman et al., Bayesian Data Analysis, section 3.2),
because it has few degrees of freedom. Letters in names: B draws, P points, R runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import f as f_distribution

from bench.scaling.fit import Fit, refit
from bench.scaling.laws import Array

DRAWS = 400
"""Simulated data sets of an interval."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations of log loss.

    Attributes:
        run_sd: Between runs.
        run_df: Degrees of freedom of run_sd.
        point_sd: Between points of one run, around the law.
        source: Where run_sd comes from: replicates with other seeds, or the scatter of sizes around the law, which also
            contains settings that are not equally good at all sizes.
    """

    run_sd: float
    run_df: int
    point_sd: float
    source: Literal["seeds", "sizes"] = "seeds"

    def inflated_variance(self, fit: Fit) -> float:
        """Variance of a log residual, inflated for points that share a run, for `identify`."""
        per_run = len(fit.data.runs) / len(np.unique(fit.data.runs))
        return self.point_sd**2 + per_run * self.run_sd**2


def pooled_noise(fits: Sequence[Fit]) -> Noise:
    """Returns the noise pooled over rows: from seeds, or from the scatter between sizes.

    The scatter is used if it is significantly larger (F-test, 5 %), and without any replicate.

    Raises:
        ValueError: nothing is left to estimate noise from.
    """
    within = between = scatter = 0.0
    df_within = df_between = df_scatter = 0
    lengths = []
    for fit in fits:
        residuals, runs = fit.residuals, np.unique(fit.data.runs, return_inverse=True)[1]
        counts = np.bincount(runs)
        means = np.bincount(runs, residuals) / counts
        several = counts > 1
        if several.any():
            chosen = several[runs]
            within += float(((residuals - means[runs])[chosen] ** 2).sum())
            df_within += max(int((counts[several] - 1).sum()) - 2, 0)  # b and B0 are fitted within runs
        cells: dict[tuple[float, ...], list[int]] = {}
        for run in range(len(counts)):
            mine = runs == run
            cells.setdefault((fit.data.sizes[mine][0], *np.sort(fit.data.tokens[mine])), []).append(run)
        for cell in cells.values():
            cell_means = means[cell]
            between += float(((cell_means - cell_means.mean()) ** 2).sum())
            df_between += len(cell) - 1
            scatter += float(len(cell) * cell_means.mean() ** 2)
        fitted = int(fit.free.sum()) - (2 if several.all() else 0)
        df_scatter += max(len(cells) - fitted, 0)
        lengths.append(float(counts.mean()))
    if not df_between and not df_scatter:
        raise ValueError(
            "scaling points: the noise between runs cannot be estimated; expected several seeds of a size, or more "
            "sizes than the law has parameters; add seeds at the smallest sizes"
        )
    point_variance = within / df_within if df_within else 0.0
    of_seeds = between / df_between if df_between else 0.0
    of_sizes = scatter / df_scatter if df_scatter else 0.0
    use_sizes = not df_between
    if df_between and df_scatter and of_seeds > 0:
        use_sizes = bool(of_sizes / of_seeds > f_distribution.ppf(0.95, df_scatter, df_between))
    variance, df = (of_sizes, df_scatter) if use_sizes else (of_seeds, df_between)
    variance = max(variance - point_variance / float(np.mean(lengths)), 0.0)
    return Noise(float(np.sqrt(variance)), df, float(np.sqrt(point_variance)), "sizes" if use_sizes else "seeds")


def simulate(fit: Fit, noise: Noise, rng: np.random.Generator, draws: int = DRAWS) -> Array:
    """Returns the parameters of refits to data simulated from the fit, (draws, 5)."""
    runs = np.unique(fit.data.runs, return_inverse=True)[1]
    run_sd_B = noise.run_sd * np.sqrt(noise.run_df / rng.chisquare(noise.run_df, draws))
    run_BR = run_sd_B[:, None] * rng.standard_normal((draws, int(runs.max()) + 1))
    point_BP = noise.point_sd * rng.standard_normal((draws, len(runs)))
    fitted_P = np.log(fit.predict(fit.data.sizes, fit.data.tokens))
    return refit(fit, fitted_P + run_BR[:, runs] + point_BP)


@dataclass(frozen=True)
class Interval:
    """A value with its interval.

    Attributes:
        value: Of the fit.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def interval(value: float, draws_B: Array, level: float = 0.95) -> Interval:
    """Returns the percentile interval of the draws. Draws that are not a number are left out."""
    low, high = np.nanquantile(draws_B, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def parameter_intervals(fit: Fit, draws_BK: Array, level: float = 0.95) -> dict[str, Interval]:
    """Returns the intervals of E, A0, B0 in nats and of a, b."""
    columns = [*np.exp(draws_BK[:, :3]).T, *draws_BK[:, 3:].T]
    values = [*np.exp(fit.parameters[:3]), *fit.parameters[3:]]
    names = ("E", "A0", "B0", "a", "b")
    return {name: interval(float(of), draws, level) for name, of, draws in zip(names, values, columns, strict=True)}


def loss_interval(fit: Fit, draws_BK: Array, size: float, tokens: float, level: float = 0.95) -> Interval:
    """Returns the interval of the law's loss in nats at N and D: of the mean over runs, without the noise of one."""
    return interval(float(fit.predict(size, tokens)), fit.predict(size, tokens, draws_BK), level)
