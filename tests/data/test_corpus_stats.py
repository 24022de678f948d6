"""Corpus statistics of texts with known faults; near-duplicates against a comparison of all pairs of sentences."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.corpus import Corpus, Split
from bench.data.corpus_stats import (
    NEAR_DUPLICATE,
    cached_stats,
    corpus_stats,
    faults,
    jaccard,
    near_duplicates,
    show,
    trigrams,
)

TRAIN = Split(
    ["A man rides.", "A man rides.", "Two dogs run on the green grass.", "A cat."],
    ["Ein Mann fährt.", "Ein Mann fährt.", "Zwei Hunde laufen auf dem Gras.", "Eine Katze."],
)
TEST = Split(
    ["A man rides.", "Two dogs run on the green Grass", "A cat.", "A bird sings."],
    ["Ein Mann fährt.", "Etwas anderes.", "Ein Kater.", "Ein Vogel singt."],
)
CORPUS = Corpus("files-en-de", "en", "de", TRAIN, Split(["A king."], ["Ein König."]), {"test": TEST})


def test_sizes_lengths_and_coverage() -> None:
    train, validation, test = corpus_stats(CORPUS).splits
    assert [split.name for split in (train, validation, test)] == ["train", "validation", "test"]
    assert (train.pairs, train.duplicates, train.sha256) == (4, 1, TRAIN.hash)
    source = train.source
    assert (source.language, source.words, source.distinct_words) == ("en", 15, 11)
    assert (source.mean, source.median, source.longest) == (15 / 4, 3.0, 7)
    assert source.coverage == train.target.coverage == 1.0
    assert (validation.source.coverage, validation.target.coverage) == (0.5, 0.5)
    assert validation.source.p99 == 2


def test_overlap_between_splits() -> None:
    overlaps = {(overlap.split, overlap.other_split): overlap for overlap in corpus_stats(CORPUS).overlaps}
    assert list(overlaps) == [("validation", "train"), ("test", "train"), ("test", "validation")]
    found = overlaps["test", "train"]
    assert (found.pairs, found.sources, found.targets, found.near_duplicates) == (1, 2, 1, 1)
    assert corpus_stats(CORPUS).has_faults
    assert not corpus_stats(CORPUS, thorough=False).has_faults


def test_leaks_are_described_and_statistics_are_cached(tmp_path: Path) -> None:
    (leak,) = corpus_stats(CORPUS).leaks
    assert leak == ("test: 1 of 4 pairs and 2 sources also occur in train, 1 more sources are near-duplicates")
    first = cached_stats(CORPUS, tmp_path)
    (file,) = tmp_path.iterdir()
    assert (first["name"], first["leaks"], first["overlaps"][1]["near_duplicates"]) == ("files-en-de", [leak], 1)
    file.write_text('{"leaks": []}')
    assert cached_stats(CORPUS, tmp_path) == {"leaks": []}  # read from the file, not computed again


def test_faults_are_reported_with_their_line_numbers() -> None:
    split = Split(
        ["", "Fine.", " ", "same words here", "one", "lost \ufffd", "bell \a", "ok", "tab\tbed", "x " * 12, "Berlin"],
        ["x", "Gut.", "", "same words here", "y " * 12, "verloren", "Glocke", "ok", "b", "y y y y", "Berlin"],
    )
    assert faults(split) == {
        "one side is empty": [1],
        "both sides are empty": [3],
        "not translated: both sides are equal": [4],
        "one side has over 3 times the words of the other": [5],
        "U+FFFD: characters were lost in a conversion": [6],
        "control characters": [7, 9],
    }


def test_trigrams_ignore_case_and_punctuation() -> None:
    assert (
        trigrams("A man, RIDES!")
        == trigrams("a man rides")
        == {("", "a", "man"), ("a", "man", "rides"), ("man", "rides", "")}
    )
    assert trigrams("") == trigrams("...") == frozenset()
    assert jaccard(frozenset(), frozenset()) == 0.0


words = st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join)


@given(st.lists(words, max_size=8), st.lists(words, max_size=8))
def test_near_duplicates_are_those_of_an_exhaustive_comparison(sentences: list[str], others: list[str]) -> None:
    expected = [any(jaccard(trigrams(s), trigrams(o)) >= NEAR_DUPLICATE for o in others) for s in sentences]
    assert near_duplicates(sentences, others) == expected


def test_near_duplicates_are_found_fast_enough_for_a_corpus() -> None:
    rng = random.Random(1)
    text = [" ".join(rng.choices(["the", "a", "man", *map(str, range(300))], k=12)) for _ in range(4000)]
    assert not any(near_duplicates(text[:500], text[500:]))
    assert all(near_duplicates(text[:500], text))


def test_statistics_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show(corpus_stats(CORPUS))
    printed = capsys.readouterr().out
    expected = ("files-en-de", "covered by train", "near-duplicate sources", "train: 1 duplicate pairs; sha256")
    for part in (*expected, "validation"):
        assert part in printed
    show(corpus_stats(CORPUS, thorough=False))
    assert "near-duplicate" not in capsys.readouterr().out
