"""The data passport against texts whose faults are known, and near sentences against every comparison made."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.corpus import Corpus, Split
from bench.data.corpus_stats import NEAR, corpus_stats, faults, jaccard, kept, near, show, trigrams

TRAIN = Split(
    ["A man rides.", "A man rides.", "Two dogs run on the green grass.", "A cat."],
    ["Ein Mann fährt.", "Ein Mann fährt.", "Zwei Hunde laufen auf dem Gras.", "Eine Katze."],
)
TEST = Split(
    ["A man rides.", "Two dogs run on the green Grass", "A cat.", "A bird sings."],
    ["Ein Mann fährt.", "Etwas anderes.", "Ein Kater.", "Ein Vogel singt."],
)
CORPUS = Corpus("files-en-de", "en", "de", TRAIN, Split(["A king."], ["Ein König."]), {"test": TEST})


def test_sizes_lengths_and_cover() -> None:
    train, validation, test = corpus_stats(CORPUS).splits
    assert [split.name for split in (train, validation, test)] == ["train", "validation", "test"]
    assert (train.pairs, train.repeated, train.sha256) == (4, 1, TRAIN.hash)
    source = train.source
    assert (source.language, source.words, source.distinct) == ("en", 15, 11)
    assert (source.mean, source.median, source.longest) == (15 / 4, 3.0, 7)
    assert source.covered == train.target.covered == 1.0
    assert (validation.source.covered, validation.target.covered) == (0.5, 0.5)
    assert validation.source.p99 == 2


def test_overlap() -> None:
    overlaps = {(found.split, found.within): found for found in corpus_stats(CORPUS).overlaps}
    assert list(overlaps) == [("validation", "train"), ("test", "train"), ("test", "validation")]
    found = overlaps["test", "train"]
    assert (found.pairs, found.sources, found.targets, found.near) == (1, 2, 1, 1)
    assert corpus_stats(CORPUS).faulty
    assert not corpus_stats(CORPUS, thorough=False).faulty


def test_leaks_are_told(tmp_path: Path) -> None:
    (leak,) = corpus_stats(CORPUS).leaks
    assert leak == "test: 1 of 4 pairs and 2 sources stand in train, 1 more sources are near to one there"
    first = kept(CORPUS, tmp_path)
    (file,) = tmp_path.iterdir()
    assert (first["name"], first["leaks"], first["overlaps"][1]["near"]) == ("files-en-de", [leak], 1)
    file.write_text('{"leaks": []}')
    assert kept(CORPUS, tmp_path) == {"leaks": []}  # made once


def test_faults_are_named_with_their_lines() -> None:
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


def test_trigrams_see_words_only() -> None:
    assert (
        trigrams("A man, RIDES!")
        == trigrams("a man rides")
        == {("", "a", "man"), ("a", "man", "rides"), ("man", "rides", "")}
    )
    assert trigrams("") == trigrams("...") == frozenset()
    assert jaccard(frozenset(), frozenset()) == 0.0


words = st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join)


@given(st.lists(words, max_size=8), st.lists(words, max_size=8))
def test_near_finds_what_all_comparisons_find(sentences: list[str], others: list[str]) -> None:
    every = [any(jaccard(trigrams(s), trigrams(o)) >= NEAR for o in others) for s in sentences]
    assert near(sentences, others) == every


def test_near_is_quick_enough_for_a_corpus() -> None:
    rng = random.Random(1)
    text = [" ".join(rng.choices(["the", "a", "man", *map(str, range(300))], k=12)) for _ in range(4000)]
    assert not any(near(text[:500], text[500:]))
    assert all(near(text[:500], text))


def test_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show(corpus_stats(CORPUS))
    printed = capsys.readouterr().out
    for part in ("files-en-de", "covered by train", "near sources", "train: 1 repeated pairs; sha256", "validation"):
        assert part in printed
    show(corpus_stats(CORPUS, thorough=False))
    assert "overlap" not in capsys.readouterr().out
