"""Tests whether the difference between two systems is significant: approximate randomisation on sentence statistics.

If two systems were equal, swapping their outputs for a sentence would change nothing. So the outputs are swapped at
random many times, and p is the share of shuffles with a larger difference than the real one: p = (c + 1) / (R + 1).
Noreen 1989, "Computer-Intensive Methods for Testing Hypotheses"; Riezler and Maxwell 2005, for translation. With one
seed p equals that of sacreBLEU's `--paired-ar`: the swaps are the same, and scores are equal to the last bit.

That p does not count shuffles with a difference equal to the real one. Where nearly all sentences are identical, such
ties are frequent, and p is 0.0001 for two systems that differ in one sentence. Verdicts and Holm's correction therefore
use the p that counts ties too; it is that of the exact test, and otherwise nearly the same.

Letters: N sentences  K numbers per sentence  R shuffles
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench.measures.quality import SCORES, SEED, Array, Statistics, bleu_of, comparable

SHUFFLES = 10_000
CHUNK = 1_000_000
"""Selectors per product (8 MB). A few large products are faster: small ones spend their time on thread coordination."""

CLOSE = 1e-6
"""A shuffle this close to the real difference is scored again exactly, because p depends on which one is larger."""

LEVEL = 0.05

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Paired:
    """The test of a system against the baseline.

    Attributes:
        difference: Mean score of the system minus that of the baseline, over the seeds that both have.
        p: p of the two-sided test as in sacreBLEU; None if the outputs are identical, so that there is nothing to test.
        adjusted: p with ties counted, after Holm's correction for the number of systems.
        seeds: Number of paired seeds.
        verdict: identical; no significant difference; or better or worse, at 5 % after the correction.
    """

    difference: float
    p: float | None
    adjusted: float | None
    seeds: int
    verdict: str


@functools.lru_cache(maxsize=4)
def _swaps(sentences: int) -> NDArray[np.bool_]:
    """Returns sacreBLEU's selectors, (R, N). All systems on a test set have the same ones, so they are cached."""
    return np.random.default_rng(SEED).integers(2, size=(SHUFFLES, sentences), dtype=bool)


def p_values(baseline: Statistics, system: Statistics) -> tuple[float, float]:
    """Returns the two-sided p of a system against a baseline: as in sacreBLEU, and with ties counted."""
    score = SCORES[system.metric]
    quick = functools.partial(bleu_of, exact=False) if score is bleu_of else score
    ours_NK, theirs_NK = system.rows_NK, baseline.rows_NK
    real = abs(baseline.score - system.score)
    swaps_RN = _swaps(len(ours_NK))
    # A shuffle has the baseline's row where its selector is true and ours elsewhere; its counterpart has the others.
    difference_NK, ours_K, both_K = theirs_NK - ours_NK, ours_NK.sum(axis=0), (theirs_NK + ours_NK).sum(axis=0)
    larger = as_large = 0
    rows = max(1, CHUNK // len(ours_NK))
    for begin in range(0, SHUFFLES, rows):
        one_RK = ours_K + swaps_RN[begin : begin + rows].astype(np.float64) @ difference_NK
        shuffled_R = np.abs(quick(one_RK) - quick(both_K - one_RK))
        close_R = np.abs(shuffled_R - real) < CLOSE
        if close_R.any():
            shuffled_R[close_R] = np.abs(score(one_RK[close_R]) - score((both_K - one_RK)[close_R]))
        larger += int(np.sum(shuffled_R > real))
        as_large += int(np.sum(shuffled_R >= real - 1e-9))  # the tolerance keeps ties in spite of rounding
    return (larger + 1) / (SHUFFLES + 1), (as_large + 1) / (SHUFFLES + 1)


def map_parallel(find: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Applies `find` to every item, as many at once as there are cores, each with single-threaded products.

    Several threads within products as small as these would be slower, because they would wait for one another.
    """
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(find, items))


def joined(seeds: Sequence[Statistics]) -> Statistics:
    """Joins the seeds of one system to one long test set.

    Outputs are then swapped for each sentence of each seed, stratified as in Clark et al. 2011, ACL ("Better Hypothesis
    Testing for Statistical Machine Translation: Controlling for Optimizer Instability").
    """
    hashes = "".join(seed.output_hash for seed in seeds), "".join(seed.reference_hash for seed in seeds)
    rows: Array = np.concatenate([seed.rows_NK for seed in seeds])
    return replace(seeds[0], rows_NK=rows, output_hash=hashes[0], reference_hash=hashes[1])


def holm(uncorrected: Sequence[float], tests: int | None = None) -> list[float]:
    """Returns p-values corrected for their number m: the smallest times m, the next times m - 1, ..., never decreasing.

    Args:
        uncorrected: The p-values.
        tests: m, if the p-values were selected from so many; the result is then at least Holm's result for all of them.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics.
    """
    adjusted, largest = [0.0] * len(uncorrected), 0.0
    for rank, index in enumerate(sorted(range(len(uncorrected)), key=lambda index: uncorrected[index])):
        largest = max(largest, min(1.0, ((tests or len(uncorrected)) - rank) * uncorrected[index]))
        adjusted[index] = largest
    return adjusted


def paired_tests(
    baseline: Mapping[int, Statistics], systems: Mapping[str, Mapping[int, Statistics]], tests: int | None = None
) -> dict[str, Paired]:
    """Tests every system against the baseline, paired by seed and Holm-corrected.

    Args:
        baseline: Its statistics by seed.
        systems: Row -> statistics by seed.
        tests: Number of tests to correct for; by default the number of rows whose outputs differ from the baseline's.

    Raises:
        ValueError: a system shares no seed with the baseline, or was scored on another test set, metric or tokenizer.
    """
    differences: dict[str, tuple[float, int]] = {}
    differing: dict[str, tuple[Statistics, Statistics]] = {}
    for name, runs in systems.items():
        seeds = sorted(baseline.keys() & runs.keys())
        if not seeds:
            raise ValueError(
                f"{name}: no seed in common with the baseline ({sorted(runs)} and {sorted(baseline)}); add one"
            )
        ours, theirs = joined([runs[seed] for seed in seeds]), joined([baseline[seed] for seed in seeds])
        if not comparable(ours, theirs):
            raise ValueError(
                f"{name}: not scored with the metric and tokenizer and on the test set of the baseline; compare only "
                "rows that were"
            )
        mean = sum(runs[seed].score - baseline[seed].score for seed in seeds) / len(seeds)
        differences[name] = mean, len(seeds)
        if ours.output_hash != theirs.output_hash:
            differing[name] = theirs, ours
    tested = dict(zip(differing, map_parallel(lambda pair: p_values(*pair), differing.values()), strict=True))
    adjusted = dict(zip(tested, holm([with_ties for _, with_ties in tested.values()], tests), strict=True))
    found = {}
    for name, (difference, seeds) in differences.items():
        p, corrected = tested[name][0] if name in tested else None, adjusted.get(name)
        lower_is_better = next(iter(systems[name].values())).metric == "ter"
        found[name] = Paired(
            difference, p, corrected, seeds, verdict(-difference if lower_is_better else difference, corrected)
        )
    return found


def verdict(gain: float, adjusted: float | None) -> str:
    """The verdict on a gain: identical (not tested), no significant difference, better or worse."""
    if adjusted is None:
        return "identical"
    if adjusted > LEVEL:
        return "no significant difference"
    return "better" if gain > 0 else "worse"
