"""A corpus is normalized, filtered and kept in the cache; its text is that of the files, however it is stored."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.data import find_corpus, learn_vocabularies, prepared_corpus, stored_text
from bench.data.corpus import CorpusSettings, FilterSettings, Split
from bench.data.corpus_stats import corpus_stats
from bench.data.stored_text import LineWriter, StoredLines
from bench.data.vocabulary import TextSettings
from tests.helpers import tiny_job

PAIRS = [
    ("the cat sleeps here", "die Katze schläft hier"),
    ("the cat sleeps here", "die Katze schläft hier"),
    ("one", "eins"),
    ("the dog barks", "the dog barks"),
    ("the dog barks", "der Hund bellt sehr laut und sehr lange in der Nacht"),
    ("the bird sings", "птица поёт песню"),
    ("a very long sentence of nine words is here", "ein sehr langer Satz aus neun Wörtern ist hier"),
    ("the tree grows", "der Baum wächst"),
]
TEXT = TextSettings()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusSettings:
    """A corpus in files whose text is always stored in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(prepared_corpus, "CACHED_BYTES", 0)
    monkeypatch.setattr(stored_text, "FEWEST", 3)
    monkeypatch.setattr(stored_text, "BLOCK", 3)
    tiny_job.write_corpus(tmp_path)
    for side, language in enumerate(("en", "de")):
        text = "".join(f"{pair[side]}\n" for pair in PAIRS)
        (tmp_path / f"train.{language}").write_text(text, encoding="utf-8")
    paths: dict[str, Any] = {
        split: [str(tmp_path / f"{split}.{end}") for end in ("en", "de")] for split in ("train", "val", "test")
    }
    return CorpusSettings("files", **paths)


@pytest.mark.parametrize(
    ("key", "value", "removed"),
    [
        ("min_words", 2, [2]),
        ("max_words", 8, [4, 6]),
        ("max_ratio", 3.0, [4]),
        ("duplicates", True, [1]),
        ("identical", True, [3]),
        ("script", True, [5]),
    ],
)
def test_a_filter_removes_what_its_name_says(
    settings: CorpusSettings, key: str, value: Any, removed: list[int]
) -> None:
    corpus = prepared_corpus.load(replace(settings, filters=FilterSettings(**{key: value})), TEXT)
    assert list(corpus.train) == [pair for number, pair in enumerate(PAIRS) if number not in removed]
    assert corpus.removed == {key: len(removed)}
    stats = corpus_stats(corpus)
    assert (stats.removed, stats.splits[0].pairs) == ({key: len(removed)}, len(PAIRS) - len(removed))


def test_a_pair_counts_for_the_first_filter_that_it_fails(settings: CorpusSettings) -> None:
    filters = FilterSettings(min_words=2, max_words=8, duplicates=True, identical=True)
    corpus = prepared_corpus.load(replace(settings, filters=filters), TEXT)
    assert corpus.removed == {"min_words": 1, "max_words": 2, "duplicates": 1, "identical": 1}
    assert len(corpus.validation) == len(find_corpus.load(settings).validation)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (FilterSettings(min_words=0), r"^corpus\.filters\.min_words: 0 is too small; expected at least 1; raise it$"),
        (FilterSettings(max_ratio=0.5), r"^corpus\.filters\.max_ratio: 0\.5 is too small; expected at least 1\.0"),
        (FilterSettings(min_words=9, max_words=3), r"^corpus\.filters\.min_words: 9 is more than max_words, 3;"),
        (FilterSettings(min_words=99), r"^corpus\.filters: the filters remove all 8 training pairs \(min_words 8\);"),
    ],
)
def test_filters_that_cannot_be_meant_are_errors(
    settings: CorpusSettings, filters: FilterSettings, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepared_corpus.load(replace(settings, filters=filters), TEXT)


def test_stored_text_is_that_of_the_files(settings: CorpusSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Split([pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS])
    for _ in range(2):
        corpus = prepared_corpus.load(settings, TEXT)
        assert isinstance(corpus.train.sources, StoredLines)
        assert corpus.train == expected
        assert corpus.train.hash == expected.hash
        monkeypatch.setattr(find_corpus, "load", lambda _: pytest.fail("the files were read again"))


def test_files_that_changed_are_read_again(settings: CorpusSettings) -> None:
    before = prepared_corpus.load(settings, TEXT)
    assert settings.train
    Path(settings.train[1]).write_text("".join(f"{pair[1]}!\n" for pair in PAIRS), encoding="utf-8")
    assert prepared_corpus.load(settings, TEXT).train.targets[0] == f"{before.train.targets[0]}!"


def test_a_damaged_text_is_made_again(settings: CorpusSettings, tmp_path: Path) -> None:
    prepared_corpus.load(settings, TEXT)
    (file,) = (tmp_path / "cache").rglob("train.target")
    file.write_bytes(file.read_bytes()[:-5])
    assert list(prepared_corpus.load(settings, TEXT).train) == PAIRS


def test_stored_lines_behave_as_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_text, "FEWEST", 3)
    monkeypatch.setattr(stored_text, "BLOCK", 2)
    lines = ["a", "", "ü\r", "d \u2028", "", ""]
    stored = LineWriter.collect(lines)
    assert isinstance(stored, StoredLines)
    assert (list(stored), len(stored), stored[2], stored[-1]) == (lines, 6, "ü\r", "")
    assert stored[1:4] == lines[1:4]
    assert stored[::2] == lines[::2]
    assert stored[4:2] == []
    assert stored != lines[:-1]
    with pytest.raises(IndexError):
        stored[6]


def test_a_text_that_does_not_fit_the_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit the system writes a part of a block, and says so only in the number of bytes."""
    monkeypatch.setattr(stored_text, "FEWEST", 3)
    lines = ["some words"] * 20_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (11 * len(lines) - 5, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            LineWriter.collect(lines)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_vocabulary_of_a_large_text_is_learnt_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [[f"s{n}" for n in range(100)], [f"t{n}" for n in range(100)]]
    drawn = list(learn_vocabularies.sample(sides, 20))
    assert len(set(drawn)) == 20
    assert [text[1:] for text in drawn[:10]] == [text[1:] for text in drawn[10:]]
    assert drawn == list(learn_vocabularies.sample(sides, 20))
    assert list(learn_vocabularies.sample(sides, 200)) == sides[0] + sides[1]
    monkeypatch.setattr(learn_vocabularies, "MAX_SENTENCES", 1000)
    assert learn_vocabularies.sentences_learnt_from(TextSettings(joint=True), 4000) == (1000, 8000)
    assert learn_vocabularies.sentences_learnt_from(TextSettings(joint=False), 400) == (400, 400)
