"""Compares the rows of a table: differences in score with simultaneous intervals over seeds and sentences, verdicts.

A difference is the mean score of one row minus that of another, over the seeds that both have. Its variance has two
parts. Sentences: the variance of the difference over bootstrap resamples, each of which draws the same sentences for
both rows and all seeds (Koehn 2004, EMNLP). Seeds: v / k for k common seeds, where v is the sum of the two rows'
variances between seeds. Two or three seeds of one row estimate its variance badly, so it is pooled over the rows of the
table that have the three seeds of a verdict (or, if none has, two). Rows need not have equal variances, and if two of
them vary more than the pooled variance says, their own variances count instead.
bench/checks/significance_simulation.py checks the error rate, also for unequal variances. Bartlett's test says whether
pooling is justified, and reports print it.

The interval is difference +- t sqrt(variance), with Student's t at the degrees of freedom of the pooled variance
(Satterthwaite 1946, Biometrics, for the sum of the parts). With m tests it is computed at the level 1 - 0.05 / m
(Bonferroni), so all intervals of a family hold at the same time with 95 %. A difference is significant if its interval
excludes 0, and only if both rows have at least three seeds in common.

Letters: N sentences  K numbers per sentence  R resamples  D rows and seeds
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance

import numpy as np
from scipy.special import stdtr, stdtrit

from bench.measures.quality import SCORES, Array, Statistics, bleu_of, comparable, weights_of_resamples
from bench.measures.selection import oriented
from bench.measures.significance import map_parallel, p_values

LEVEL = 0.05
"""Probability of at least one false "better" or "worse" in a family of tests of equal rows, at most."""

POWER = 0.80
"""Probability with which a true difference of `Comparison.detectable` is found."""

MIN_SEEDS = 3
"""Seeds that both rows must have for a verdict. With one seed, nothing is known about other seeds."""

UNEQUAL = 0.01
"""Level of Bartlett's test, from which the variances of rows between seeds are called unequal."""

Runs = Mapping[int, Statistics]
"""The statistics of a row by seed."""


@dataclass(frozen=True)
class SeedSpread:
    """The variation of the score between seeds, over the rows of a table that have the seeds of a verdict.

    A row with fewer has no verdict, so that its variation must not decide on those of others. If all have fewer, it is
    over the rows with two.

    Attributes:
        pooled: Pooled standard deviation, in percent as the score.
        degrees: Its degrees of freedom: the sum of (seeds - 1).
        lowest, highest: The smallest and the largest standard deviation of a single row.
        equal: Whether Bartlett's test takes the variances of the rows for equal.
    """

    pooled: float
    degrees: int
    lowest: float
    highest: float
    equal: bool


@dataclass(frozen=True)
class Comparison:
    """The difference between two rows.

    Attributes:
        track: Label of the track.
        row, against: Ids of the two rows.
        difference: Score of `row` minus that of `against`, mean over the seeds that both have.
        low, high: Its simultaneous 95 % interval, corrected for `corrected_for` tests. With one seed it covers the
            sentences only.
        p: Two-sided p of the same difference by approximate randomisation over sentences, uncorrected, with ties
            counted. It holds for the trained seeds only. None if the outputs are identical.
        corrected: p over seeds and sentences, corrected for `corrected_for` tests: at most 0.05 if and only if the
            interval excludes 0. None if the outputs are identical or there are too few seeds.
        detectable: The true difference that this test would find with a probability of about 80 %: (t at the corrected
            level + t at 0.8) standard errors (Cohen 1988, Statistical power analysis). None if `corrected` is.
        verdict: better, worse, no significant difference, too few seeds, identical.
        seeds: The seeds that both rows have.
        total_seeds: Number of seeds that at least one of the rows has.
        corrected_for: Number of tests in the correction.
        spread: The variation between seeds that the interval uses; None with one seed.
    """

    track: str
    row: str
    against: str
    difference: float
    low: float
    high: float
    p: float | None
    corrected: float | None
    detectable: float | None
    verdict: str
    seeds: tuple[int, ...]
    total_seeds: int
    corrected_for: int
    spread: SeedSpread | None

    def reversed(self) -> Comparison:
        """The same test with the two rows exchanged."""
        verdict = {"better": "worse", "worse": "better"}.get(self.verdict, self.verdict)
        ends = {"difference": -self.difference, "low": -self.high, "high": -self.low}
        return replace(self, row=self.against, against=self.row, verdict=verdict, **ends)


@dataclass(frozen=True)
class _Pair:
    """Two rows that share seeds: `ours` minus `theirs`."""

    row: str
    against: str
    ours: Runs
    theirs: Runs

    @property
    def seeds(self) -> list[int]:
        return sorted(self.ours.keys() & self.theirs.keys())

    @property
    def metric(self) -> str:
        return self.ours[self.seeds[0]].metric

    @property
    def identical(self) -> bool:
        return all(self.ours[seed].output_hash == self.theirs[seed].output_hash for seed in self.seeds)

    def scores(self) -> list[list[float]]:
        """The scores of each row, over all of its seeds."""
        return [[run.score for run in runs.values()] for runs in (self.ours, self.theirs)]

    def differences(self) -> list[float]:
        """The difference in score for each common seed."""
        return [self.ours[seed].score - self.theirs[seed].score for seed in self.seeds]


def compare(track: str, systems: Mapping[str, Runs], baseline: str) -> list[Comparison]:
    """`contrasts` with the p over sentences."""
    return _with_p(contrasts(track, systems, baseline), systems, systems)


def contrasts(track: str, systems: Mapping[str, Runs], baseline: str) -> list[Comparison]:
    """Compares every row with the baseline and, if another row has the best score, every row with that one.

    The baseline is named before the results are known, so its family has as many tests as rows that differ from it. The
    best row is selected by the results, as if all pairs had been tested, so its family has as many tests as pairs.

    Args:
        track: Label of the track.
        systems: Row -> seed -> statistics, all on one test set and metric. Rows without runs are left out.
        baseline: Id of the baseline.

    Returns:
        The comparisons without p over sentences, whose 10,000 shuffles for each pair `compare` adds.

    Raises:
        ValueError: the rows differ in metric, tokenizer or references.
    """
    systems = {row: runs for row, runs in systems.items() if runs}
    if not systems:
        return []
    resampled = _resampled_scores([*systems.values()])
    spread = _spread([[run.score for run in runs.values()] for runs in systems.values()])

    def against(row: str, tests: int | None = None) -> list[Comparison]:
        others = [_Pair(other, row, runs, systems[row]) for other, runs in systems.items() if other != row]
        pairs = [pair for pair in others if pair.seeds]
        corrected_for = tests or max(1, sum(not pair.identical for pair in pairs))
        return [
            _contrast(track, pair, resampled, spread, _seed_variance(spread, pair.scores()), corrected_for)
            for pair in pairs
        ]

    found = against(baseline) if baseline in systems else []
    metric = next(run.metric for runs in systems.values() for run in runs.values())
    best = max(systems, key=lambda row: oriented(metric, fmean(run.score for run in systems[row].values())))
    if best != baseline:
        found += against(best, len(systems) * (len(systems) - 1) // 2)
    return found


def changes(track: str, now: Mapping[str, Runs], before: Mapping[str, Runs]) -> list[Comparison]:
    """Compares each row with itself in another suite, over the seeds that both have.

    The pairs share row and seed, so the variance between seeds is that of their differences. It is pooled in the same
    way. The correction counts the rows whose outputs differ. Rows with another test set, metric or tokenizer are left
    out.
    """
    pairs = [
        pair
        for row, runs in now.items()
        if (pair := _Pair(row, row, runs, before.get(row, {}))).seeds
        and all(comparable(pair.ours[seed], pair.theirs[seed]) for seed in pair.seeds)
    ]
    if not pairs:
        return []
    resampled = _resampled_scores([runs for pair in pairs for runs in (pair.ours, pair.theirs)])
    differing = [pair for pair in pairs if not pair.identical]
    spread = _spread([pair.differences() for pair in differing])

    def contrast(pair: _Pair) -> Comparison:
        seed_variance = _seed_variance(spread, [pair.differences()])
        return _contrast(track, pair, resampled, spread, seed_variance, max(1, len(differing)))

    return _with_p(map(contrast, pairs), now, before)


def _with_p(found: Iterable[Comparison], ours: Mapping[str, Runs], theirs: Mapping[str, Runs]) -> list[Comparison]:
    """The comparisons with their p over sentences."""

    def add(one: Comparison) -> Comparison:
        if one.verdict == "identical":
            return one
        runs = [[of[seed] for seed in one.seeds] for of in (theirs[one.against], ours[one.row])]
        return replace(one, p=p_values(*runs)[1])

    return map_parallel(add, found)


def _resampled_scores(rows: Sequence[Runs]) -> dict[int, Array]:
    """The score of every run on every bootstrap resample: id of the statistics -> (R,).

    Raises:
        ValueError: the runs differ in metric, tokenizer or references.
    """
    runs = [run for of_row in rows for run in of_row.values()]
    first = runs[0]
    if any(not comparable(run, first) for run in runs):
        raise ValueError(
            "the rows differ in metric, tokenizer or references; a comparison needs one of each. Compare only rows "
            "that were scored on the same test set."
        )
    weights_RN = weights_of_resamples(len(first.rows_NK))
    sums_RDK = (weights_RN @ np.concatenate([run.rows_NK for run in runs], axis=1)).reshape(
        len(weights_RN), len(runs), -1
    )
    scores_RD = _quick_score(first.metric, sums_RDK.reshape(-1, sums_RDK.shape[-1])).reshape(len(weights_RN), -1)
    return {id(run): scores_R for run, scores_R in zip(runs, scores_RD.T, strict=True)}


def _quick_score(metric: str, sums_RK: Array) -> Array:
    """The scores of sums; BLEU to all but the last bits."""
    score = SCORES[metric]
    return bleu_of(sums_RK, exact=False) if score is bleu_of else score(sums_RK)


def _spread(series: Iterable[Sequence[float]]) -> SeedSpread | None:
    """The variation between the seeds of each series; None if no series has two."""
    every = [values for values in series if len(values) > 1]
    several = [values for values in every if len(values) >= MIN_SEEDS] or every
    degrees = sum(len(values) - 1 for values in several)
    if not degrees:
        return None
    variances = [variance(values) for values in several]
    pooled = sum(of * (len(values) - 1) for of, values in zip(variances, several, strict=True)) / degrees
    return SeedSpread(math.sqrt(pooled), degrees, math.sqrt(min(variances)), math.sqrt(max(variances)), _equal(several))


def _equal(series: Sequence[Sequence[float]]) -> bool:
    """Whether Bartlett's test takes the variances of the series for equal."""
    varying = [len(set(values)) > 1 for values in series]
    if len(series) == 1 or not any(varying):
        return True
    if not all(varying):
        return False
    from scipy.stats import bartlett  # importing it takes a second, and most tables have one seed

    return float(bartlett(*series).pvalue) > UNEQUAL


def _seed_variance(spread: SeedSpread | None, series: Sequence[Sequence[float]]) -> float:
    """The variance between seeds of the sum of these series, by the pooled variance or their own, if larger.

    Args:
        spread: The pooled variance; None if no row has two seeds.
        series: The scores of the two rows of a difference, or their differences, by seed.
    """
    if spread is None:
        return 0.0
    own = sum(variance(values) for values in series if len(values) > 1)
    return max(len(series) * spread.pooled**2, own)


def _contrast(
    track: str,
    pair: _Pair,
    resampled: Mapping[int, Array],
    spread: SeedSpread | None,
    seed_variance: float,
    tests: int,
) -> Comparison:
    """The comparison of a pair, without p. `seed_variance` is that of the difference for one seed."""
    seeds = pair.seeds
    k, difference = len(seeds), fmean(pair.differences())
    rows, total_seeds = (pair.row, pair.against), len(pair.ours.keys() | pair.theirs.keys())

    def comparison(
        half: float, verdict: str, corrected: float | None = None, detectable: float | None = None
    ) -> Comparison:
        of_seeds = spread if k > 1 else None
        values = difference, difference - half, difference + half, None, corrected, detectable
        return Comparison(track, *rows, *values, verdict, tuple(seeds), total_seeds, tests, of_seeds)

    if pair.identical:
        return comparison(0.0, "identical")
    differences_R = sum(resampled[id(pair.ours[seed])] - resampled[id(pair.theirs[seed])] for seed in seeds) / k
    of_seeds = seed_variance / k if k > 1 and spread else 0.0
    total = float(np.var(differences_R, ddof=1)) + of_seeds
    error = math.sqrt(total)
    degrees = spread.degrees * (total / of_seeds) ** 2 if spread and of_seeds else math.inf
    half = float(stdtrit(degrees, 1 - LEVEL / (2 * tests))) * error
    if k < MIN_SEEDS:
        return comparison(half, "too few seeds")
    corrected = (
        min(1.0, tests * 2 * float(stdtr(degrees, -abs(difference) / error))) if error else float(not difference)
    )
    detectable = half + float(stdtrit(degrees, POWER)) * error
    return comparison(half, _verdict(oriented(pair.metric, difference), corrected), corrected, detectable)


def _verdict(gain: float, corrected: float) -> str:
    """The verdict of a tested gain."""
    if corrected > LEVEL:
        return "no significant difference"
    return "better" if gain > 0 else "worse"
