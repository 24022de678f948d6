"""Is the difference between two systems more than chance? Approximate randomisation on sentence statistics.

If two systems were the same, swapping their outputs for a sentence would change nothing. So the outputs are swapped at
random many times, and p is the share of shuffles whose difference is larger than the real one: p = (c + 1) / (R + 1).
Noreen 1989, "Computer-Intensive Methods for Testing Hypotheses"; Riezler and Maxwell 2005, for translation. With one
seed p equals sacreBLEU's `--paired-ar`: the same swaps, and scores equal to the last bit.

That p does not count shuffles whose difference equals the real one. Where nearly all sentences are the same such ties
are the rule, and p says 0.0001 of two systems that differ in one sentence. So verdicts, and Holm's correction, rest on
the p that counts ties too, which is the exact test and hardly differs otherwise.

Letters: N sentences  K numbers a sentence  R shuffles
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

from bench.measures.quality import SCORES, SEED, Array, Statistics, bleu_of

SHUFFLES = 10_000
CHUNK = 1_000_000
"""Selectors at a time, 8 MB: few products, because the threads of each wait for one another longer than they work."""

CLOSE = 1e-6
"""A shuffle this near to the real difference is scored again, to the last bit: on which side it falls counts."""

LEVEL = 0.05

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Paired:
    """A system against the baseline.

    Attributes:
        difference: Mean score of the system minus the baseline's, over the seeds that both have.
        p: Of the two-sided test, as sacreBLEU gives it; None where the outputs are identical: nothing to test.
        adjusted: p with ties counted, after Holm's correction for the number of systems.
        seeds: How many seeds were paired.
        verdict: identical; no significant difference; or better or worse, at 5 % after the correction.
    """

    difference: float
    p: float | None
    adjusted: float | None
    seeds: int
    verdict: str


@functools.lru_cache(maxsize=4)
def _swaps(sentences: int) -> NDArray[np.bool_]:
    """Selectors of sacreBLEU, (R, N): the same for all systems on a test set, so drawn once."""
    return np.random.default_rng(SEED).integers(2, size=(SHUFFLES, sentences), dtype=bool)


def p_values(baseline: Statistics, system: Statistics) -> tuple[float, float]:
    """Two-sided p of one system against one baseline: equal to sacreBLEU's, and with ties counted."""
    score = SCORES[system.metric]
    quick = functools.partial(bleu_of, exact=False) if score is bleu_of else score
    ours_NK, theirs_NK = system.rows_NK, baseline.rows_NK
    real = abs(baseline.score - system.score)
    swaps_RN = _swaps(len(ours_NK))
    # A shuffle takes the baseline's row where its selector is true and ours elsewhere; its twin takes the others.
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
        as_large += int(np.sum(shuffled_R >= real - 1e-9))  # rounding may split a tie
    return (larger + 1) / (SHUFFLES + 1), (as_large + 1) / (SHUFFLES + 1)


def each(find: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """`find` of every item, as many at once as there are cores, each product in one thread.

    Shared out over threads, a product as small as these takes longer than in one: they wait for one another.
    """
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(find, items))


def joined(seeds: Sequence[Statistics]) -> Statistics:
    """The seeds of one system as one long test set.

    Swapping then happens for each sentence of each seed, stratified as in Clark et al. 2011, ACL ("Better Hypothesis
    Testing for Statistical Machine Translation: Controlling for Optimizer Instability").
    """
    hashes = "".join(seed.output_hash for seed in seeds), "".join(seed.reference_hash for seed in seeds)
    rows: Array = np.concatenate([seed.rows_NK for seed in seeds])
    return replace(seeds[0], rows_NK=rows, output_hash=hashes[0], reference_hash=hashes[1])


def holm(uncorrected: Sequence[float], tests: int | None = None) -> list[float]:
    """p-values corrected for their number: the smallest times m, the next times m - 1, ..., never falling.

    Args:
        uncorrected: The p-values.
        tests: m, if they were picked out of so many; what is returned is then at least what Holm gives for all of them.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics.
    """
    adjusted, largest = [0.0] * len(uncorrected), 0.0
    for rank, place in enumerate(sorted(range(len(uncorrected)), key=lambda place: uncorrected[place])):
        largest = max(largest, min(1.0, ((tests or len(uncorrected)) - rank) * uncorrected[place]))
        adjusted[place] = largest
    return adjusted


def paired_tests(
    baseline: Mapping[int, Statistics], systems: Mapping[str, Mapping[int, Statistics]], tests: int | None = None
) -> dict[str, Paired]:
    """Every system against the baseline: {row: {seed: statistics}}, paired by seed, Holm-corrected.

    Args:
        baseline: Its statistics by seed.
        systems: Those of each row.
        tests: What is corrected for; by default as many as there are rows with other outputs than the baseline's.

    Raises:
        ValueError: a system shares no seed with the baseline, or was scored on another test set or metric.
    """
    differences: dict[str, tuple[float, int]] = {}
    differing: dict[str, tuple[Statistics, Statistics]] = {}
    for name, runs in systems.items():
        seeds = sorted(baseline.keys() & runs.keys())
        if not seeds:
            raise ValueError(f"{name}: no seed in common with the baseline ({sorted(runs)} and {sorted(baseline)})")
        ours, theirs = joined([runs[seed] for seed in seeds]), joined([baseline[seed] for seed in seeds])
        if (ours.metric, ours.reference_hash) != (theirs.metric, theirs.reference_hash):
            raise ValueError(f"{name}: not scored with the metric and on the test set of the baseline")
        mean = sum(runs[seed].score - baseline[seed].score for seed in seeds) / len(seeds)
        differences[name] = mean, len(seeds)
        if ours.output_hash != theirs.output_hash:
            differing[name] = theirs, ours
    tested = dict(zip(differing, each(lambda pair: p_values(*pair), differing.values()), strict=True))
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
    """What a corrected p says of a gain: identical (nothing was tested), no significant difference, better or worse."""
    if adjusted is None:
        return "identical"
    if adjusted > LEVEL:
        return "no significant difference"
    return "better" if gain > 0 else "worse"
