"""Scores, intervals and paired tests compared with sacreBLEU's command line."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.data.corpus import CorpusSettings
from bench.data.find_corpus import load
from bench.measures import quality, significance
from bench.measures.measure import Measure
from bench.measures.quality import SCORE_METRICS, Statistics, statistics

TEXT = 'der die das ein Hund Mann Haus Kind läuft sieht trägt im Park , und roten großen 3,5 U-Bahn "ja" don\'t'
WORDS = TEXT.split()


def references(sentences: int = 80, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) + "." for _ in range(sentences)]


def with_errors(lines: list[str], seed: int, rate: float = 0.15) -> list[str]:
    """The lines with words dropped, swapped and replaced."""
    rng = random.Random(seed)

    def line(words: list[str]) -> str:
        kept = [rng.choice(WORDS) if rng.random() < rate / 2 else w for w in words if rng.random() > rate]
        if rng.random() < 0.2:
            rng.shuffle(kept)
        return " ".join(kept)

    return [line(text.split()) for text in lines]


def sacrebleu(folder: Path, refs: list[str], systems: list[list[str]], *flags: str) -> list[dict]:
    paths = [folder / f"{name}.txt" for name in ("ref", *range(len(systems)))]
    for path, lines in zip(paths, [refs, *systems], strict=True):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(paths[0]), "-i", *map(str, paths[1:])]
    command += ["-m", "bleu", "chrf", "ter", "-w", "14", "-f", "json", *flags]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def assert_equal_to_sacrebleu(folder: Path, refs: list[str], systems: list[list[str]]) -> None:
    """Scores and p-values of every metric equal those that sacreBLEU's command prints for the same files."""
    theirs = sacrebleu(folder, refs, systems, "--paired-ar")
    for metric, label in zip(SCORE_METRICS, ("BLEU", "chrF2", "TER"), strict=True):
        rows = [statistics(system, refs, metric) for system in systems]
        assert [row.score for row in rows] == [printed[label]["score"] for printed in theirs]
        ours = [significance.p_values([rows[0]], [row])[0] for row in rows[1:]]
        assert ours == [printed[label]["p_value"] for printed in theirs[1:]]


def constant_ter(score: float) -> Statistics:
    """Statistics with this TER in each of ten sentences, so that the choice of sentences changes nothing."""
    return Statistics("ter", "", np.tile([score * 10, 1000.0], (10, 1)), str(score), "references")


def half_width(measure: Measure) -> float:
    assert measure.low is not None
    assert measure.high is not None
    return (measure.high - measure.low) / 2


def test_scores_and_intervals_equal_the_command_line(tmp_path: Path) -> None:
    refs = references()
    hypotheses = [*with_errors(refs, 1)[:-2], "", refs[-1].upper()]
    theirs = sacrebleu(tmp_path, refs, [hypotheses], "--confidence")
    found = [statistics(hypotheses, refs, metric) for metric in quality.SCORE_METRICS]
    for ours, printed in zip([quality.mean_with_interval([one]) for one in found], theirs, strict=True):
        assert ours.value is not None
        assert round(ours.value, 14) == printed["score"]
        assert half_width(ours) == pytest.approx(printed["confidence_var"], rel=1e-5)  # sacreBLEU's are float32
        signature = printed["signature"].replace("bs:1000|seed:12345|", "")
        assert ours.provenance == f"sacreBLEU {signature}; 95 % bootstrap, 1000 resamples, sentences only"
    assert quality.bleu(hypotheses, refs) == found[0].score


def test_paired_tests_equal_the_command_line(tmp_path: Path) -> None:
    refs = references()
    base = with_errors(refs, 1)
    near = [*base[:5], refs[5], *base[6:]]  # differs in one sentence, so ties matter
    systems = [base, with_errors(refs, 2, 0.18), with_errors(refs, 3, 0.3), near]
    assert_equal_to_sacrebleu(tmp_path, refs, systems)


@pytest.mark.skipif("MULTI30K" not in os.environ, reason="MULTI30K names no folder with the Multi30k files")
def test_three_systems_on_multi30k_equal_the_command_line(tmp_path: Path) -> None:
    """The whole of test_2016_flickr: its references with words dropped, swapped and replaced at three rates."""
    refs = list(load(CorpusSettings("multi30k-en-de")).tests["test_2016_flickr"].targets)
    systems = [with_errors(refs, seed, rate) for seed, rate in ((1, 0.15), (2, 0.155), (3, 0.2))]
    assert_equal_to_sacrebleu(tmp_path, refs, systems)


@pytest.mark.parametrize("metric", SCORE_METRICS)
def test_scores_of_odd_sums(metric: str) -> None:
    """Empty hypotheses, no match, no 4-gram, one word: the vectorised formula equals sacreBLEU's."""
    for hypothesis, reference in [
        ("", "a b"),
        ("x", "a b c d e"),
        ("a b", "a b"),
        ("a a a a x", "a b c d e"),
        ("a", ""),
    ]:
        scorer = {"bleu": quality.BLEU, "chrf": quality.CHRF, "ter": quality.TER}[metric]()
        expected = scorer.corpus_score([hypothesis], [[reference]]).score
        assert statistics([hypothesis], [reference], metric).score == expected


def test_a_score_needs_as_many_hypotheses_as_references() -> None:
    with pytest.raises(ValueError, match="2 hypotheses and 1 references"):
        quality.chrf(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no hypotheses"):
        quality.bleu([], [])


def test_the_interval_of_four_fold_data_is_half_as_wide() -> None:
    for metric in SCORE_METRICS:
        small, large = references(200, 5), references(800, 5)
        narrow, wide = (
            quality.mean_with_interval([statistics(with_errors(refs, 6), refs, metric)]) for refs in (large, small)
        )
        assert half_width(narrow) / half_width(wide) == pytest.approx(0.5, rel=0.1)


def test_the_interval_covers_seeds() -> None:
    """The variances of seeds and sentences are added; for equal seeds the interval is that of the sentences alone."""
    refs = references(300)
    one = statistics(with_errors(refs, 1), refs)
    alone, equal = quality.mean_with_interval([one]), quality.mean_with_interval([one, one, one])
    assert (equal.low, equal.high) == pytest.approx((alone.low, alone.high), rel=1e-12)
    assert "Student's t over 3 seeds, and sentences" in equal.provenance

    seeds = [statistics(with_errors(refs, seed, rate), refs) for seed, rate in enumerate(np.linspace(0.1, 0.25, 12))]
    scores = [seed.score for seed in seeds]
    found = quality.mean_with_interval(seeds)
    assert found.value == pytest.approx(np.mean(scores))
    of_seeds = np.var(scores, ddof=1) / len(seeds)
    weights_RN = quality.weights_of_resamples(len(refs))
    of_sentences = np.var(np.mean([quality.bleu_of(weights_RN @ seed.rows_NK) for seed in seeds], axis=0))
    assert half_width(found) == pytest.approx(2.2 * np.sqrt(of_seeds + of_sentences), rel=0.1)  # t of 11 degrees

    with pytest.raises(ValueError, match="one test set"):
        quality.mean_with_interval([one, statistics(refs, list(reversed(refs)))])


@pytest.mark.parametrize("metric", SCORE_METRICS)
def test_the_interval_stays_on_the_scale(metric: str) -> None:
    """Two perfect seeds and an empty one: the stretched means are beyond both ends of the scale."""
    refs = references(100)
    found = quality.mean_with_interval([statistics(lines, refs, metric) for lines in (refs, refs, [""] * 100)])
    assert found.low is not None
    assert found.high is not None
    assert found.low == 0
    assert found.high == 100 if metric != "ter" else found.high > 100


def test_statistics_are_read_back_unchanged(tmp_path: Path) -> None:
    refs = references()
    kept = [statistics(with_errors(refs, 1), refs, metric) for metric in SCORE_METRICS]
    quality.write(tmp_path / "statistics.npz", kept)
    for before, after in zip(kept, quality.read(tmp_path / "statistics.npz"), strict=True):
        assert np.array_equal(before.rows_NK, after.rows_NK)
        assert {**vars(before), "rows_NK": 0} == {**vars(after), "rows_NK": 0}


@pytest.mark.parametrize(("seeds", "t"), [(2, 12.706), (3, 4.303), (5, 2.776)])
def test_the_interval_over_seeds_uses_students_t(seeds: int, t: float) -> None:
    """Where the sentences do not matter, the half width is t times the standard error; t from a table."""
    found = quality.mean_with_interval([constant_ter(40 + 2 * seed) for seed in range(seeds)])
    error = np.std([40 + 2 * seed for seed in range(seeds)], ddof=1) / np.sqrt(seeds)
    assert half_width(found) == pytest.approx(t * error, rel=0.025)
    assert found.value == pytest.approx(40 + (seeds - 1))


@pytest.mark.parametrize("seeds", [2, 3])
def test_intervals_over_seeds_cover_the_true_mean(seeds: int) -> None:
    """Of 1,000 intervals at 95 %, 950 cover it, with a standard deviation of 7. By drawing seeds it was 82 and 87 %."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(1000):
        found = quality.mean_with_interval([constant_ter(score) for score in 500 + 2 * rng.standard_normal(seeds)])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 500 <= found.high
    assert 929 <= covered <= 971


def test_p_over_several_seeds_is_that_of_the_mean_difference() -> None:
    """Two seeds with two sentences each have 16 ways to swap; p is compared with that of all of them."""
    refs = ["a b c d e f", "g h i j k l m"]
    ours = [statistics(lines, refs) for lines in (["a b c d e f", "g h i j k x m"], ["a b c d e x", "g h i j k l m"])]
    theirs = [statistics(lines, refs) for lines in (["a b c d x f", "g h i j x l m"], ["a b c d e f", "g h i j k l x"])]

    def difference(swaps: tuple[bool, ...]) -> float:
        scores = []
        for seed, (one, two) in enumerate(zip(ours, theirs, strict=True)):
            swapped = np.array(swaps[2 * seed : 2 * seed + 2])[:, None]
            pair = np.where(swapped, two.rows_NK, one.rows_NK), np.where(swapped, one.rows_NK, two.rows_NK)
            scores.append([float(quality.bleu_of(rows.sum(axis=0, keepdims=True))[0]) for rows in pair])
        return float(np.mean([a - b for a, b in scores]))

    every = [abs(difference(swaps)) for swaps in itertools.product((False, True), repeat=4)]
    real = abs(np.mean([a.score - b.score for a, b in zip(ours, theirs, strict=True)]))
    larger, as_large = (np.mean([of > real + 1e-9 for of in every]), np.mean([of >= real - 1e-9 for of in every]))
    assert 0.1 < as_large < 1
    assert significance.p_values(theirs, ours) == (pytest.approx(larger, abs=0.02), pytest.approx(as_large, abs=0.02))
    with pytest.raises(ValueError, match="test set of the baseline"):
        significance.p_values(theirs, [statistics(refs, refs[::-1])] * 2)


def test_p_is_the_same_in_both_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    refs, rng = references(), random.Random(3)
    pair = [[statistics([line if rng.random() < share else "Hund ." for line in refs], refs)] for share in (0.5, 0.6)]
    in_single = significance.p_values(*pair)
    assert 0.01 < in_single[0] < 0.99
    monkeypatch.setattr(significance, "EXACT_IN_SINGLE", 0)
    assert significance.p_values(*pair) == in_single


def test_the_printed_p_counts_ties() -> None:
    """Two systems that differ in one sentence: every shuffle is as large as the real difference, and none larger."""
    refs = references(150)
    base = with_errors(refs, 1)
    pair = [statistics(base, refs)], [statistics([refs[0], *base[1:]], refs)]
    assert significance.p_values(*pair) == (1 / 10_001, 1.0)


@pytest.mark.parametrize(
    ("tokenizer", "bleu"),
    [("zh", 59.8480563213), ("char", 64.8875435634), ("13a", 0.0)],
)
def test_bleu_with_another_tokenizer(tokenizer: str, bleu: float) -> None:
    """The values are those of `sacrebleu -tok TOKENIZER -w 10` on the same lines."""
    hypotheses = ["那个男人看见了 12 个狗。", "那个鸟找到这棵树。"]
    references = ["那个男人看见了 125 个狗。", "那个鸟找到了这个树。"]
    found = quality.statistics(hypotheses, references, tokenizer=tokenizer)
    assert found.score == pytest.approx(bleu)
    assert found.tokenizer == tokenizer
    beside = quality.statistics(hypotheses, references, "bleu_13a", tokenizer)
    assert (beside.metric, beside.tokenizer, beside.score) == ("bleu_13a", "13a", 0.0)


def test_bleu_13a_stands_beside_bleu_with_another_tokenizer() -> None:
    assert quality.metrics_of("13a") == ("bleu", "chrf", "ter")
    assert quality.metrics_of("zh") == ("bleu", "chrf", "ter", "bleu_13a")


def test_scores_with_different_tokenizers_are_not_joined() -> None:
    lines = ["那个男人看见了这个狗。"]
    seeds = [quality.statistics(lines, lines, tokenizer=name) for name in ("zh", "char")]
    with pytest.raises(ValueError, match="the seeds differ in metric, tokenizer or references"):
        quality.mean_with_interval(seeds)
