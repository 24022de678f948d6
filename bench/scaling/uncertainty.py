"""Uncertainty of fits: the noise between runs, and refits of data simulated from the fit.

All points of one curve share the random deviation of their run, so a bootstrap over points gives intervals that are
too narrow, and one over runs changes nothing where a size has one run. Intervals come from simulation instead: losses
from the fitted law, a deviation for each run, one for each point (and one for each size and budget, if these scatter
more than seeds explain), and a new fit. The standard deviations between runs and cells are themselves drawn from their
scaled inverse chi-square distributions (Gelman et al., Bayesian Data Analysis, section 3.2), because they have few
degrees of freedom. Letters in names: B draws, P points, R runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from bench.scaling.fit import Data, Fit, refit
from bench.scaling.laws import Array

ENOUGH_DF = 7
"""Degrees of freedom from which the noise between runs is known well enough (the simulation has as many)."""

DRAWS = 400
"""Simulated data sets of an interval."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations of log loss.

    Attributes:
        run_sd: Between runs.
        run_df: Degrees of freedom of run_sd.
        point_sd: Between points of one run, around the law.
        source: What the spread comes from: replicates with other seeds, or the scatter of sizes around the law, which
            also contains settings that are not equally good at all sizes.
        cell_sd: Between the sizes and budgets, beside the deviation of each run, if they scatter more than seeds
            explain; else 0. All seeds of a size and budget share this deviation.
        cell_df: Degrees of freedom of cell_sd.
    """

    run_sd: float
    run_df: int
    point_sd: float
    source: Literal["seeds", "sizes"] = "seeds"
    cell_sd: float = 0.0
    cell_df: int = 0

    @property
    def spread_sd(self) -> float:
        """Standard deviation of a single run around the law, without that of its points."""
        return float(np.hypot(self.run_sd, self.cell_sd))

    @property
    def df(self) -> int:
        """Degrees of freedom of the larger part of the spread."""
        return self.cell_df if self.cell_sd > self.run_sd else self.run_df

    @property
    def degrees(self) -> float:
        """Degrees of freedom for a quantile: infinite if only points vary, whose deviation is known from very many."""
        return self.df if self.spread_sd else np.inf

    def inflated_variance(self, fit: Fit) -> float:
        """Variance of a log residual, inflated for points that share a run or a cell, for `identify`."""
        points, runs, cells = len(fit.data.runs), len(np.unique(fit.data.runs)), len(set(cells_of_runs(fit.data)))
        return self.point_sd**2 + points / runs * self.run_sd**2 + points / cells * self.cell_sd**2


def cells_of_runs(data: Data) -> NDArray[np.int64]:
    """Returns the cell of each run, (R,): runs of one size with the same budgets are replicates of one cell."""
    known: dict[tuple[float, ...], int] = {}
    found = []
    for run in np.unique(data.runs):
        mine = data.runs == run
        key = (float(data.sizes[mine][0]), *np.sort(data.tokens[mine]).tolist())
        found.append(known.setdefault(key, len(known)))
    return np.array(found, dtype=np.int64)


def covariance(data: Data, noise: Noise) -> Array:
    """Returns the covariance of the log losses of all points, (P, P)."""
    cell_P = cells_of_runs(data)[np.unique(data.runs, return_inverse=True)[1]]
    found = noise.point_sd**2 * np.eye(len(data.runs)) + noise.run_sd**2 * (data.runs[:, None] == data.runs[None])
    return found + noise.cell_sd**2 * (cell_P[:, None] == cell_P[None])


def pooled_noise(fits: Sequence[Fit]) -> Noise:
    """Returns the noise pooled over rows: from seeds, and from the scatter between sizes.

    The scatter is used beside the seeds if it is significantly larger than they explain (F-test, 5 %), and alone
    without any replicate.

    Raises:
        ValueError: nothing is left to estimate noise from.
    """
    within = between = scatter = 0.0
    df_within = df_between = df_scatter = 0
    lengths, sizes_of_cells = [], list[int]()
    for fit in fits:
        residuals, runs = fit.residuals, np.unique(fit.data.runs, return_inverse=True)[1]
        counts = np.bincount(runs)
        means = np.bincount(runs, residuals) / counts
        several = counts > 1
        if several.any():
            chosen = several[runs]
            within += float(((residuals - means[runs])[chosen] ** 2).sum())
            df_within += max(int((counts[several] - 1).sum()) - 2, 0)  # b and B0 are fitted within runs
        cells = cells_of_runs(fit.data)
        for cell in np.unique(cells):
            cell_means = means[cells == cell]
            between += float(((cell_means - cell_means.mean()) ** 2).sum())
            df_between += len(cell_means) - 1
            scatter += float(len(cell_means) * cell_means.mean() ** 2)
            sizes_of_cells.append(len(cell_means))
        fitted = int(fit.free.sum()) - (2 if several.all() else 0)
        df_scatter += max(len(np.unique(cells)) - fitted, 0)
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
    variance, df = (of_seeds, df_between) if df_between else (of_sizes, df_scatter)
    variance = max(variance - point_variance / float(np.mean(lengths)), 0.0)
    noise = Noise(float(np.sqrt(variance)), df, float(np.sqrt(point_variance)), "sizes" if use_sizes else "seeds")
    if not (use_sizes and df_between):
        return noise
    # A cell of n runs contributes n (cell variance) + (run variance) to the scatter.
    cell_variance = (of_sizes - of_seeds) / float(np.mean(sizes_of_cells))
    return replace(noise, cell_sd=float(np.sqrt(cell_variance)), cell_df=df_scatter)


def law_error(fit: Fit, pooled: Noise) -> float:
    """Returns by how much a law misses its sizes and budgets: the SD of log loss between them, beside that of runs.

    It is 0 unless the F-test (5 %) says that the noise of runs does not explain it: that of the row, or of all rows if
    its seeds have fewer than ENOUGH_DF degrees of freedom. Without any replicate it is the SD of the residuals. It is
    also 0 if runs have several points, which share their deviation: without the law, the noise of a point is unknown.
    """
    data, cell_R = fit.data, cells_of_runs(fit.data)
    if len(np.unique(data.runs)) < len(data.runs):
        return 0.0
    sizes_K, residual_R = np.bincount(cell_R), fit.residuals[np.argsort(data.runs)]
    mean_K = np.bincount(cell_R, residual_R) / sizes_K
    df_scatter, df_seeds = len(sizes_K) - int(fit.free.sum()), len(residual_R) - len(sizes_K)
    if df_scatter < 1:
        return 0.0
    scatter = float((sizes_K * mean_K**2).sum()) / df_scatter
    if pooled.source == "sizes" and not pooled.cell_sd:
        return float(np.sqrt(scatter))
    variance, df = float(((residual_R - mean_K[cell_R]) ** 2).sum()) / max(df_seeds, 1), df_seeds
    if df_seeds < ENOUGH_DF:
        variance, df = pooled.run_sd**2, pooled.run_df
    if scatter <= variance * f_distribution.ppf(0.95, df_scatter, df):
        return 0.0
    return float(np.sqrt((scatter - variance) / sizes_K.mean()))


def noise_of(fit: Fit, pooled: Noise) -> Noise:
    """Returns the noise of one row: its own, if its seeds have ENOUGH_DF degrees of freedom, else the pooled one.

    Rows differ: the losses of one row may vary ten times as much between seeds as those of another one. With pooled
    noise, the intervals of the first would be too narrow, and one row that does not follow its law would make the
    intervals of all others wide.
    """
    runs, cells = len(np.unique(fit.data.runs)), len(set(cells_of_runs(fit.data).tolist()))
    return pooled_noise([fit]) if runs - cells >= ENOUGH_DF else pooled


def simulate(fit: Fit, noise: Noise, rng: np.random.Generator, draws: int = DRAWS) -> Array:
    """Returns the parameters of refits to data simulated from the fit, (draws, 5)."""
    runs = np.unique(fit.data.runs, return_inverse=True)[1]
    run_BR = deviations(rng, noise.run_sd, noise.run_df, draws, int(runs.max()) + 1)
    point_BP = noise.point_sd * rng.standard_normal((draws, len(runs)))
    if noise.cell_sd:
        cells = cells_of_runs(fit.data)
        run_BR = run_BR + deviations(rng, noise.cell_sd, noise.cell_df, draws, int(cells.max()) + 1)[:, cells]
    fitted_P = np.log(fit.predict(fit.data.sizes, fit.data.tokens))
    return refit(fit, fitted_P + run_BR[:, runs] + point_BP)


def deviations(rng: np.random.Generator, sd: float, df: int, draws: int, number: int) -> Array:
    """Deviations of `number` runs or cells, (draws, number); each draw has a standard deviation of its own."""
    sd_B = sd * np.sqrt(df / rng.chisquare(df, draws))
    return sd_B[:, None] * rng.standard_normal((draws, number))


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
