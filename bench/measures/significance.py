"""Approximate randomisation: whether the difference of two systems holds beyond the choice of test sentences.

If two systems were equal, swapping their outputs for a sentence would change nothing. So the outputs are swapped at
random many times, and p is the share of shuffles with a larger difference than the real one: p = (c + 1) / (R + 1).
Noreen 1989, "Computer-Intensive Methods for Testing Hypotheses"; Riezler and Maxwell 2005, for translation. With one
seed p equals that of sacreBLEU's `--paired-ar`: the swaps are the same, and scores are equal to the last bit. With
several seeds the tested difference is the mean of the differences of the seeds, which is what reports print.

That p does not count shuffles with a difference equal to the real one. Where nearly all sentences are identical, such
ties are frequent, and p is 0.0001 for two systems that differ in one sentence. Reports therefore print the p that
counts ties too; it is that of the exact test, and otherwise nearly the same.

p holds for the trained seeds only. Verdicts are those of comparison.py, which cover other seeds too.

Letters: N sentences  K numbers per sentence  R shuffles  S seeds
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench.measures.quality import SCORES, SEED, Array, Statistics, bleu_of, comparable

SHUFFLES = 10_000
CHUNK = 1_000_000
"""Selectors per product (8 MB). A few large products are faster: small ones spend their time on thread coordination."""

EXACT_IN_SINGLE = 2**24
"""Statistics are counts, and sums of counts below this are exact in single precision, which is faster."""

CLOSE = 1e-6
"""A shuffle this close to the real difference is scored again exactly, because p depends on which one is larger."""

Item = TypeVar("Item")
Found = TypeVar("Found")


@functools.lru_cache(maxsize=4)
def _swaps(sentences: int) -> NDArray[np.bool_]:
    """Returns sacreBLEU's selectors, (R, N). All systems on a test set have the same ones, so they are cached."""
    return np.random.default_rng(SEED).integers(2, size=(SHUFFLES, sentences), dtype=bool)


def p_values(baseline: Sequence[Statistics], system: Sequence[Statistics]) -> tuple[float, float]:
    """Returns the two-sided p of a system against a baseline: as in sacreBLEU, and with ties counted.

    The outputs are swapped for each sentence of each seed, stratified as in Clark et al. 2011, ACL ("Better Hypothesis
    Testing for Statistical Machine Translation: Controlling for Optimizer Instability").

    Args:
        baseline: Its statistics, one for each seed.
        system: Those of the system, for the same seeds in the same order and on the same test set.

    Raises:
        ValueError: the two differ in metric, tokenizer or references.
    """
    if not all(map(comparable, baseline, system)):
        raise ValueError(
            "not scored with the metric and tokenizer and on the test set of the baseline; a test needs one of each. "
            "Compare only rows that were scored alike."
        )
    score = SCORES[system[0].metric]
    quick = functools.partial(bleu_of, exact=False) if score is bleu_of else score
    k, sentences = len(system), len(system[0].rows_NK)
    real = abs(sum(theirs.score - ours.score for theirs, ours in zip(baseline, system, strict=True)) / k)
    swaps_RN = _swaps(k * sentences)
    larger = as_large = 0
    rows = max(1, CHUNK // (k * sentences))
    largest_sum = sum(float(one.rows_NK.sum()) for one in (*baseline, *system))
    precision = np.float32 if largest_sum < EXACT_IN_SINGLE else np.float64
    for begin in range(0, SHUFFLES, rows):
        swapped_RN = swaps_RN[begin : begin + rows].astype(precision)
        shuffled: list[tuple[Array, Array]] = []  # for each seed the sums of the two shuffled systems
        for number, (theirs, ours) in enumerate(zip(baseline, system, strict=True)):
            # A shuffle has the baseline's row where its selector is true, ours elsewhere; its counterpart the others.
            of_seed_RN = swapped_RN[:, number * sentences : (number + 1) * sentences]
            one_RK = ours.rows_NK.sum(axis=0) + of_seed_RN @ (theirs.rows_NK - ours.rows_NK).astype(precision)
            shuffled.append((one_RK, (theirs.rows_NK + ours.rows_NK).sum(axis=0) - one_RK))
        shuffled_R = _mean_difference(quick, shuffled)
        close_R = np.abs(shuffled_R - real) < CLOSE
        if close_R.any():
            shuffled_R[close_R] = _mean_difference(score, [(one[close_R], two[close_R]) for one, two in shuffled])
        larger += int(np.sum(shuffled_R > real))
        as_large += int(np.sum(shuffled_R >= real - 1e-9))  # the tolerance keeps ties in spite of rounding
    return (larger + 1) / (SHUFFLES + 1), (as_large + 1) / (SHUFFLES + 1)


def _mean_difference(score: Callable[[Array], Array], seeds: Sequence[tuple[Array, Array]]) -> Array:
    """The absolute mean over seeds of the differences in score, (R,), from the sums of the two systems, (R, K) each."""
    return np.abs(sum(score(one_RK) - score(two_RK) for one_RK, two_RK in seeds) / len(seeds))


def map_parallel(find: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Applies `find` to every item, as many at once as there are cores, each with single-threaded products.

    Several threads within products as small as these would be slower, because they would wait for one another.
    """
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(find, items))
