"""Translation quality: BLEU, chrF2 and TER by sacreBLEU on detokenised text, each with a 95 % interval.

BLEU is counted on the tokens of the tokenizer that fits the target language (selection.py). Where that is not
sacreBLEU's default, 13a, `bleu_13a` stands beside it.

All three scores are functions of sums over sentences (n-gram matches, edits). A test set is therefore read once into
one row of numbers per sentence, and the score, its bootstrap interval and the paired tests of significance.py are
computed from these rows. Scores equal those of sacreBLEU's command line bit for bit, because the operations and their
order are the same.

Letters: N sentences  K numbers per sentence  R resamples  S seeds
"""

from __future__ import annotations

import functools
import hashlib
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from scipy.special import stdtrit

from bench.measures.measure import Measure
from bench.measures.selection import DEFAULT_TOKENIZER

Array = NDArray[np.float64]

SEED = 12345
"""sacreBLEU's default seed, so the interval below is the one that its command line prints after the plus-minus sign."""

RESAMPLES = 1000

SCORE_METRICS = ("bleu", "chrf", "ter")
"""The metrics of `score`: BLEU and chrF2 (higher is better), TER (lower is better); all in percent."""

BLEU_13A = "bleu_13a"
"""BLEU with the tokenizer 13a, where `bleu` has another one."""


def bleu_of(sums_RK: Array, exact: bool = True) -> Array:
    """BLEU = BP exp(1/4 sum_n log p_n), BP = exp(min(0, 1 - r/c)); Papineni et al. 2002, ACL.

    A row contains c, r, the matches of 1- to 4-grams and their totals. A zero p_n becomes 1 / (2^k total_n), where k is
    the number of zeros so far (sacreBLEU's smoothing `exp`, from mteval-v13a).

    Args:
        exact: Use `math` for each logarithm and sum. numpy may differ in the last bit, and a paired test compares such
            bits. False uses numpy, which takes milliseconds for ten thousand rows.
    """
    length_R, reference_R = sums_RK[:, 0], sums_RK[:, 1]
    correct_R4, total_R4 = sums_RK[:, 2:6], sums_RK[:, 6:10]
    zero_R4 = correct_R4 == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        if zero_R4.any():  # rare, and powers take most of the time
            smooth_R4 = np.where(zero_R4, 2.0 ** np.cumsum(zero_R4, axis=1), 1.0)
            precision_R4 = 100.0 * np.where(zero_R4, 1.0, correct_R4) / (smooth_R4 * total_R4)
        else:
            precision_R4 = 100.0 * correct_R4 / total_R4
        shortfall_R = 1 - reference_R / length_R
    scores_R = np.zeros(len(sums_RK))
    some_R = correct_R4.any(axis=1) & total_R4.all(
        axis=1
    )  # without a match of any order, or without a 4-gram, the score is 0
    if not exact:
        mean_R = np.log(precision_R4[some_R]).mean(axis=1)
        scores_R[some_R] = np.exp(np.minimum(shortfall_R[some_R], 0) + mean_R)
        return scores_R
    for row in np.flatnonzero(some_R):
        penalty = math.exp(shortfall_R[row]) if length_R[row] < reference_R[row] else 1.0
        scores_R[row] = penalty * math.exp(sum(map(math.log, precision_R4[row].tolist())) / 4)
    return scores_R


def chrf_of(sums_RK: Array) -> Array:
    """chrF2 = 5 P R / (4 P + R) with P and R averaged over character 1- to 6-grams; Popovic 2015, WMT.

    A row contains for each order the number of n-grams of the hypothesis, of the reference, and of both. Orders that
    are missing on one side are excluded from the averages.
    """
    precision_R, recall_R, orders_R = (np.zeros(len(sums_RK)) for _ in range(3))
    for order in range(6):
        ours_R, theirs_R, both_R = sums_RK[:, 3 * order : 3 * order + 3].T
        counts_R = (ours_R > 0) & (theirs_R > 0)
        precision_R += np.divide(both_R, ours_R, out=np.zeros_like(both_R), where=counts_R)
        recall_R += np.divide(both_R, theirs_R, out=np.zeros_like(both_R), where=counts_R)
        orders_R += counts_R
    precision_R /= np.maximum(orders_R, 1)
    recall_R /= np.maximum(orders_R, 1)
    some_R = precision_R + recall_R > 0
    score_R = np.divide(
        5 * precision_R * recall_R, 4 * precision_R + recall_R, out=np.zeros(len(sums_RK)), where=some_R
    )
    return 100 * score_R


def ter_of(sums_RK: Array) -> Array:
    """TER = edits / words of the reference; a moved phrase is one edit. Snover et al. 2006, AMTA."""
    edits_R, words_R = sums_RK.T
    ratio_R = np.divide(edits_R, words_R, out=np.where(edits_R > 0, 1.0, 0.0), where=words_R > 0)
    return 100 * ratio_R


def unsmoothed_bleu_of(sums_RK: Array) -> Array:
    """BLEU of multi-bleu.perl: 0 if one of the four precisions is 0."""
    return np.where((sums_RK[:, 2:6] > 0).all(axis=1), bleu_of(sums_RK), 0.0)


SCORES: dict[str, Callable[[Array], Array]] = {
    "bleu": bleu_of,
    BLEU_13A: bleu_of,
    "chrf": chrf_of,
    "ter": ter_of,
    # The variants of bleu_variants.py.
    "bleu_lowercase": bleu_of,
    "bleu_tokenised": unsmoothed_bleu_of,
    "bleu_compound_split": unsmoothed_bleu_of,
    "bleu_characters": bleu_of,
    "bleu_ko_mecab": bleu_of,
}
"""For each metric the function from rows of sums over sentences to scores in percent."""

HIGHEST = {metric: math.inf if metric == "ter" else 100.0 for metric in SCORES}
"""Upper end of each metric's scale in percent; the lower end is 0. TER has none: edits can outnumber the words."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """One row of numbers per sentence: all that a score, its interval and a paired test need of a system's output.

    Attributes:
        metric: A key of SCORES.
        signature: sacreBLEU's signature.
        rows_NK: The rows; whole numbers, so sums are exact in any order.
        output_hash: SHA-256 of the hypotheses: equal for identical outputs.
        reference_hash: SHA-256 of the references; only systems with equal ones can be compared.
    """

    metric: str
    signature: str
    rows_NK: Array
    output_hash: str
    reference_hash: str

    @functools.cached_property  # a comparison of all rows of a table asks for each score many times
    def score(self) -> float:
        """The score of the whole test set in percent."""
        return float(SCORES[self.metric](self.rows_NK.sum(axis=0, keepdims=True))[0])

    @property
    def tokenizer(self) -> str:
        """The tokenizer that the signature names, with its version; empty for a score without tokens."""
        pieces = [piece.partition(":") for piece in self.signature.split("|")]
        return next((value for key, _, value in pieces if key == "tok"), "")


def _hash(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def metrics_of(tokenizer: str) -> tuple[str, ...]:
    """The scores of a test set whose targets have this tokenizer of BLEU."""
    return SCORE_METRICS if tokenizer == DEFAULT_TOKENIZER else (*SCORE_METRICS, BLEU_13A)


def statistics(
    hypotheses: Sequence[str], references: Sequence[str], metric: str = "bleu", tokenizer: str = DEFAULT_TOKENIZER
) -> Statistics:
    """Computes the statistics of a system's output on one test set, for one metric of `metrics_of`.

    Args:
        tokenizer: sacreBLEU's name of the tokenizer; for the metric bleu.

    Raises:
        ValueError: there are not as many hypotheses as references, or there are none.
    """
    return statistics_by(_scorer(metric, tuple(references), tokenizer), metric, hypotheses, references)


@functools.lru_cache(maxsize=16)  # all validations have the same references
def _scorer(metric: str, references: tuple[str, ...], tokenizer: str) -> Metric:
    """Returns a sacreBLEU scorer that has already read its references."""
    if metric in ("bleu", BLEU_13A):
        return BLEU(tokenize=tokenizer if metric == "bleu" else DEFAULT_TOKENIZER, references=[list(references)])
    return {"chrf": CHRF, "ter": TER}[metric](references=[list(references)])


def statistics_by(scorer: Metric, metric: str, hypotheses: Sequence[str], references: Sequence[str]) -> Statistics:
    """As `statistics`, with any sacreBLEU scorer whose rows fit `SCORES[metric]`; it may have read its references."""
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses and {len(references)} references; expected as many of each")
    if not hypotheses:
        raise ValueError("there are no hypotheses to score; expected at least one")
    new_references = None if scorer._ref_cache else [list(references)]
    rows = scorer._extract_corpus_statistics(list(hypotheses), new_references)
    signature = scorer.get_signature().format()
    return Statistics(metric, signature, np.array(rows, dtype=np.float64), _hash(hypotheses), _hash(references))


@functools.lru_cache(maxsize=4)  # the rows of a table share their test sets
def weights_of_resamples(sentences: int, resamples: int = RESAMPLES) -> Array:
    """Returns how often each resample draws each sentence, (R, N), with the draws of sacreBLEU's bootstrap."""
    drawn_RN = np.random.default_rng(SEED).choice(sentences, size=(resamples, sentences), replace=True)
    flat = (drawn_RN + np.arange(resamples)[:, None] * sentences).ravel()
    weights_RN = np.bincount(flat, minlength=resamples * sentences).reshape(resamples, sentences).astype(np.float64)
    weights_RN.flags.writeable = False
    return weights_RN


def ends(values_R: Array) -> tuple[float, float]:
    """Returns the ends of the middle 95 % of resampled values: 1/40 is cut off at each end, as in sacreBLEU."""
    ordered_R = np.sort(values_R)
    cut = len(ordered_R) // 40
    return float(ordered_R[cut]), float(ordered_R[-cut - 1])


def mean_with_interval(seeds: Sequence[Statistics]) -> Measure:
    """Returns the mean score over seeds with a 95 % interval that covers both seeds and test sentences.

    Sentences: bootstrap; each resample draws the same sentences for every seed, since the seeds share the test set
    (Koehn 2004, EMNLP). Seeds: each resample is moved by the standard error over the k seeds times a value of Student's
    t with k - 1 degrees of freedom, because two or three seeds estimate their variance badly. The interval therefore
    covers the expected score, that of the mean over all seeds, at 95 % for every k; for two seeds it is wide (t =
    12.7). With one seed it covers the sentences only.

    Raises:
        ValueError: the seeds differ in metric, tokenizer or test set.
    """
    first, k = seeds[0], len(seeds)
    if any(not comparable(seed, first) for seed in seeds):
        raise ValueError(
            "the seeds differ in metric, tokenizer or references; an interval needs one metric and one test set"
        )
    weights_RN = weights_of_resamples(len(first.rows_NK))
    scores_RS = np.stack([SCORES[first.metric](weights_RN @ seed.rows_NK) for seed in seeds], axis=1)
    means_R = scores_RS.mean(axis=1)
    interval = sentence_interval()
    if k > 1:
        error = np.std([seed.score for seed in seeds], ddof=1) / math.sqrt(k)
        means_R = means_R + error * _shuffled_quantiles_of_t(k - 1, len(means_R))
        interval = f"95 % bootstrap, {RESAMPLES} resamples, Student's t over {k} seeds, and sentences"
    low, high = ends(np.clip(means_R, 0.0, HIGHEST[first.metric]))  # a moved mean may be outside the scale
    provenance = f"sacreBLEU {first.signature}; {interval}"
    return Measure(first.metric, sum(seed.score for seed in seeds) / k, "percent", low, high, provenance)


def comparable(one: Statistics, other: Statistics) -> bool:
    """Whether two scores are of the same metric with the same tokenizer on the same references."""
    return (one.metric, one.tokenizer, one.reference_hash) == (other.metric, other.tokenizer, other.reference_hash)


def _shuffled_quantiles_of_t(degrees: int, number: int) -> Array:
    """Returns evenly spaced quantiles of Student's t in a fixed random order.

    Random draws would make the ends of the interval vary: for two seeds they depend on the 25 largest of 1,000 values.
    """
    quantiles_R: Array = stdtrit(degrees, (np.arange(number) + 0.5) / number)
    return np.random.default_rng(SEED + 1).permutation(quantiles_R)


def sentence_interval() -> str:
    """The piece of a score's provenance that describes its interval over the sentences of one seed."""
    return f"95 % bootstrap, {RESAMPLES} resamples, sentences only"


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = DEFAULT_TOKENIZER) -> float:
    """Returns BLEU in percent without an interval, for validation."""
    return statistics(hypotheses, references, tokenizer=tokenizer).score


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Returns chrF2 in percent without an interval, for validation."""
    return statistics(hypotheses, references, "chrf").score


def write(path: Path, systems: Sequence[Statistics]) -> None:
    """Writes statistics to one .npz file, so that later tests need not score the text again."""
    # Any, because pyright would otherwise assume that one of the names may be the flag `allow_pickle`.
    arrays: dict[str, Any] = {
        f"{number}.rows": system.rows_NK.astype(np.int32) for number, system in enumerate(systems)
    }
    labels = [[s.metric, s.signature, s.output_hash, s.reference_hash] for s in systems]
    with path.open("wb") as file:
        np.savez_compressed(file, labels=np.array(labels), **arrays)


def read(path: Path) -> list[Statistics]:
    """Reads statistics that `write` has written.

    Raises:
        ValueError: the file is damaged, or contains pickled objects, which are not loaded.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return [
                Statistics(
                    str(metric), str(signature), file[f"{number}.rows"].astype(np.float64), str(ours), str(theirs)
                )
                for number, (metric, signature, ours, theirs) in enumerate(file["labels"])
            ]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: not the sentence statistics of a test set, or damaged: {error}; restore the file, or run the job "
            "again"
        ) from error
