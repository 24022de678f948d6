"""Differences between rows: simultaneous intervals over seeds and sentences, verdicts, the variance between seeds."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from bench.measures import quality
from bench.measures.comparison import Comparison, changes, compare, contrasts
from bench.measures.quality import Statistics, statistics
from tests.measures.test_quality import references, with_errors


def ter(score: float, name: str, sentences: int = 20) -> Statistics:
    """Statistics with exactly this TER in every sentence, so that the choice of sentences changes nothing."""
    rows_NK = np.tile([score * 10, 1000.0], (sentences, 1))
    return Statistics("ter", "", rows_NK, f"{name} {score}", "references")


def rows(scores: Mapping[str, list[float]]) -> dict[str, dict[int, Statistics]]:
    return {row: {seed: ter(score, row) for seed, score in enumerate(of, 1)} for row, of in scores.items()}


def against(found: list[Comparison], baseline: str) -> dict[str, Comparison]:
    return {one.row: one for one in found if one.against == baseline}


def test_the_interval_equals_a_calculation_by_hand() -> None:
    """Two rows, three seeds each with variances 1 and 4: pooled 2.5 with 4 degrees of freedom, t = 2.776."""
    found, other_way = contrasts("", rows({"base": [49, 50, 51], "other": [38, 40, 42]}), "base")
    assert other_way.reversed() == found  # the baseline against the row with the lowest TER
    half = 2.776 * math.sqrt(2 * 2.5 / 3)
    assert found.difference == pytest.approx(-10)
    assert (found.low, found.high) == pytest.approx((-10 - half, -10 + half), abs=1e-3)
    assert found.spread is not None
    assert (found.spread.pooled, found.spread.degrees) == (pytest.approx(math.sqrt(2.5)), 4)
    assert (found.spread.lowest, found.spread.highest) == (pytest.approx(1), pytest.approx(2))
    assert found.spread.equal
    assert (found.verdict, found.seeds, found.corrected_for) == ("better", (1, 2, 3), 1)  # a lower TER is better
    assert found.corrected == pytest.approx(2 * 0.000748, rel=0.01)  # P(T > 10 / 1.291) with 4 degrees of freedom
    assert found.detectable == pytest.approx(half + 0.941 * math.sqrt(2 * 2.5 / 3), abs=1e-3)  # t = 0.941 at 0.8


def test_the_interval_is_corrected_for_the_number_of_rows() -> None:
    """Against the baseline t at 0.05 / (2 * 3); against the selected best of four rows at 0.05 / (2 * 6)."""
    scores = {"base": [40.0, 41, 42], "a": [30.0, 31, 32], "b": [41.0, 42, 43], "c": [44.0, 45, 46]}
    found = contrasts("", rows(scores), "base")
    error = math.sqrt(2 / 3)
    for row, one in against(found, "base").items():
        assert one.corrected_for == 3
        assert (one.high - one.low) / 2 == pytest.approx(3.0158 * error, abs=1e-3), row  # t of 8 degrees at 0.99167
    for row, one in against(found, "a").items():  # the lowest TER
        assert one.corrected_for == 6
        assert (one.high - one.low) / 2 == pytest.approx(3.4789 * error, abs=1e-3), row  # at 0.99583
    assert len(found) == 6


def test_two_rows_that_vary_more_than_the_pooled_variance_have_their_own() -> None:
    """Pooling rows of SD 1 with one of SD 10 would call this row different from chance alone."""
    steady = {f"steady {n}": [50.0 + n / 100, 51 + n / 100, 52 + n / 100] for n in range(9)}
    found = against(
        contrasts("", rows({"base": [50.01, 51.01, 52.01], **steady, "wild": [50, 60, 70]}), "base"), "base"
    )
    spread = found["wild"].spread
    assert spread is not None
    assert spread.pooled**2 == pytest.approx((10 * 1 + 100) / 11)
    assert not spread.equal
    error = {row: (one.high - one.low) / 2 for row, one in found.items()}
    assert error["wild"] / error["steady 1"] == pytest.approx(math.sqrt((1 + 100) / (2 * 10)))
    assert found["wild"].verdict == "no significant difference"


def test_a_row_without_a_verdict_does_not_decide_on_others() -> None:
    """Two seeds, one of which failed, would hide every difference of the table."""
    three: dict[str, list[float]] = {"base": [50, 51, 52], "better": [40, 41, 42]}
    found = against(contrasts("", rows({**three, "failed once": [20, 80]}), "base"), "base")
    assert found["better"].spread == against(contrasts("", rows(three), "base"), "base")["better"].spread
    assert (found["better"].verdict, found["failed once"].verdict) == ("better", "too few seeds")
    (of_two,) = against(contrasts("", rows({"base": [50, 51], "other": [40, 41]}), "base"), "base").values()
    assert of_two.spread is not None, "without three seeds anywhere, intervals have the variation of two"


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        ([50, 51, 52], True),
        ([50, 54, 58], True),  # p = 0.12 by Bartlett's table for variances 1 and 16
        ([50, 70, 90], False),
        ([50, 50, 50], False),  # a row that does not vary beside one that does
    ],
)
def test_unequal_variances_between_seeds_are_noticed(other: list[float], equal: bool) -> None:
    found, *_ = contrasts("", rows({"base": [49, 50, 51], "other": other}), "base")
    assert found.spread is not None
    assert found.spread.equal is equal


def test_rows_that_never_vary_are_equal() -> None:
    found, *_ = contrasts("", rows({"base": [50, 50, 50], "other": [40, 40, 40]}), "base")
    assert found.spread is not None
    assert (found.spread.pooled, found.spread.equal) == (0, True)


def test_a_detectable_difference_is_found_in_four_of_five_tables() -> None:
    """Equal rows of SD 2; then the baseline is made worse by the difference that its test calls detectable."""
    rng, verdicts = np.random.default_rng(1), []

    def of_first_row(scores: dict[str, list[float]]) -> Comparison:
        return against(contrasts("", rows(scores), "base"), "base")["row 0"]

    for _ in range(200):
        scores = {name: [*rng.normal(50, 2, 3)] for name in ("base", *(f"row {n}" for n in range(10)))}
        worse = [score + (of_first_row(scores).detectable or 0.0) for score in scores["base"]]
        verdicts.append(of_first_row(scores | {"base": worse}).verdict)
    # Rather more than 80 %: for rows that happen to vary much, the difference is larger than their true variance asks.
    assert 0.76 <= verdicts.count("better") / len(verdicts) <= 0.92


@pytest.mark.parametrize(("seeds", "verdict"), [(1, "too few seeds"), (2, "too few seeds"), (3, "better")])
def test_a_verdict_needs_three_seeds(seeds: int, verdict: str) -> None:
    refs = references(150)
    base = {seed: statistics(with_errors(refs, seed, 0.3), refs) for seed in range(seeds)}
    found = compare("", {"base": base, "far": {seed: statistics(refs, refs) for seed in range(seeds)}}, "base")
    assert [one.verdict for one in found] == [verdict, {"better": "worse"}.get(verdict, verdict)]
    assert all((one.corrected is None) == (seeds < 3) for one in found)
    assert all(one.p == 1 / 10_001 for one in found)  # p over sentences is printed for any number of seeds
    assert all((one.spread is None) == (seeds == 1) for one in found)


def test_the_seeds_of_the_row_with_fewer_count() -> None:
    scores = rows({"base": [49, 50, 51], "two": [39, 41], "three": [38, 40, 42]})
    found = against(contrasts("", scores, "base"), "base")
    assert found["two"].difference == pytest.approx(40 - 49.5)  # over seeds 1 and 2
    assert (found["two"].seeds, found["two"].total_seeds, found["two"].verdict) == ((1, 2), 3, "too few seeds")
    assert found["three"].verdict == "better"
    scores["none"] = {9: ter(10, "none")}
    assert "none" not in against(contrasts("", scores, "base"), "base")
    assert contrasts("", {"base": {}}, "base") == []


@pytest.mark.parametrize("metric", quality.SCORE_METRICS)
def test_verdicts(metric: str) -> None:
    refs = references(150)
    errors = {"base": 0.15, "alike": 0.15, "better": 0.02, "worse": 0.4}
    runs = {
        row: {seed: statistics(with_errors(refs, 10 * number + seed, rate), refs, metric) for seed in (1, 2, 3)}
        for number, (row, rate) in enumerate(errors.items())
    }
    runs["same"] = dict(runs["base"])
    runs["one sentence"] = {
        seed: statistics([refs[0], *with_errors(refs, seed, 0.15)[1:]], refs, metric) for seed in (1, 2, 3)
    }
    found = against(compare("", runs, "base"), "base")
    assert {row: one.verdict for row, one in found.items()} == {
        "alike": "no significant difference",
        "better": "better",
        "worse": "worse",
        "same": "identical",
        "one sentence": "no significant difference",
    }
    assert (found["same"].p, found["same"].corrected, found["same"].low, found["same"].high) == (None, None, 0, 0)
    assert {one.corrected_for for one in found.values()} == {4}  # "same" is not tested


def test_difference_interval_and_p_are_of_one_quantity() -> None:
    """The printed difference is the middle of its interval, and p is at most 0.05 if the interval excludes 0."""
    refs, rng = references(60), random.Random(1)
    runs = {
        str(row): {
            seed: statistics(with_errors(refs, 10 * row + seed, 0.1 + 0.03 * rng.random()), refs) for seed in range(3)
        }
        for row in range(8)
    }
    found = contrasts("", runs, "0")
    for one in found:
        scores = [[runs[row][seed].score for seed in range(3)] for row in (one.row, one.against)]
        assert one.difference == pytest.approx(fmean(scores[0]) - fmean(scores[1]))
        assert one.difference == pytest.approx((one.low + one.high) / 2)
        assert one.corrected is not None
        assert (one.corrected <= 0.05) == (one.low > 0 or one.high < 0) == (one.verdict in ("better", "worse"))
        assert one.reversed().reversed() == one
        assert (one.reversed().low, one.reversed().row) == (-one.high, one.against)


def test_intervals_of_one_seed_cover_the_sentences() -> None:
    """With one test the half width is 1.96 standard deviations of the paired bootstrap."""
    refs = references(300)
    base, other = (statistics(with_errors(refs, seed), refs) for seed in (1, 2))
    (found,) = [one for one in contrasts("", {"base": {1: base}, "other": {1: other}}, "base") if one.row == "other"]
    weights_RN = quality.weights_of_resamples(len(refs))
    resampled_R = quality.bleu_of(weights_RN @ other.rows_NK) - quality.bleu_of(weights_RN @ base.rows_NK)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * resampled_R.std(ddof=1), rel=1e-3)


def test_changes_use_the_variance_of_the_differences_by_seed() -> None:
    """A change that adds the same to every seed is significant although the seeds differ much among themselves."""
    before = rows({"a": [40, 50, 60], "b": [41, 51, 62], "same": [1, 2, 3], "gone": [5, 6, 7]})
    now = rows({"a": [42, 52.5, 62], "b": [43, 53, 64.5], "same": [1, 2, 3], "new": [5, 6, 7]})
    found = {one.row: one for one in changes("", now, before)}
    assert found.keys() == {"a", "b", "same"}
    assert (found["a"].difference, found["b"].difference) == (pytest.approx(13 / 6), pytest.approx(13 / 6))
    assert {row: one.verdict for row, one in found.items()} == {"a": "worse", "b": "worse", "same": "identical"}
    assert found["a"].corrected_for == 2
    spread = found["a"].spread  # the differences 2, 2.5, 2 and 2, 2, 2.5 have variance 1 / 12 each
    assert spread is not None
    assert (spread.pooled, spread.degrees) == (pytest.approx(math.sqrt(1 / 12)), 4)
    other = {"a": {seed: replace(run, reference_hash="other") for seed, run in before["a"].items()}}
    assert changes("", now, other) == []


def test_rows_on_different_test_sets_cannot_be_compared() -> None:
    scores = rows({"base": [1, 2, 3], "other": [4, 5, 6]})
    scores["other"][1] = replace(scores["other"][1], reference_hash="other")
    with pytest.raises(ValueError, match="differ in metric, tokenizer or references"):
        contrasts("", scores, "base")


def test_twenty_rows_are_tested_in_seconds() -> None:
    refs = references(1000)
    systems = {str(row): {1: statistics(with_errors(refs, row + 1), refs)} for row in range(20)}
    begin = time.process_time()
    compare("", systems, max(systems, key=lambda row: systems[row][1].score))
    assert time.process_time() - begin < 20
