"""An encoded text in the cache gives the batches of one that was encoded in memory, also after damage and kills."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.data import encoded_corpus
from bench.data.batches import PairBatches
from bench.data.cache_entry import provide
from bench.data.corpus import Split
from bench.data.encoded_pairs import Pairs
from bench.data.learn_vocabularies import build
from bench.data.vocabulary import TextSettings, Vocabularies

PAIRS = 57
SPLIT = Split(
    [f"a man {'sees ' * (n % 5)}a dog {n}" for n in range(PAIRS)], [f"ein Mann {n} {n}" for n in range(PAIRS)]
)
LIMIT = 7


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(encoded_corpus, "FEWEST", 1)
    monkeypatch.setattr(encoded_corpus, "CHUNK", 10)
    monkeypatch.setattr(encoded_corpus, "POOL_FROM", 100)


@pytest.fixture
def vocabularies() -> Vocabularies:
    return build(TextSettings("words", 40), SPLIT)


def entry(cache: Path) -> Path:
    (folder,) = (path for path in (cache / "attention-ladder" / "encoded").iterdir() if path.name[0] != ".")
    return folder


def assert_same(one: Pairs, other: Pairs) -> None:
    assert (len(one), one.dropped) == (len(other), other.dropped)
    ours, theirs = (list(PairBatches(pairs, 60, 1).epoch(1)) for pairs in (one, other))
    for indices, expected in zip(ours, theirs, strict=True):
        assert indices.tolist() == expected.tolist()
        for mine, its in zip(one.batch(indices)[:2], other.batch(expected)[:2], strict=True):
            assert mine.ids_BS.tolist() == its.ids_BS.tolist()
            assert (mine.ids_BS.dtype, mine.lengths_B) == (its.ids_BS.dtype, its.lengths_B)


def test_mapped_pairs_give_the_batches_of_pairs_in_memory(vocabularies: Vocabularies, tmp_path: Path) -> None:
    expected = Pairs.encode(SPLIT, vocabularies, LIMIT)
    assert 0 < expected.dropped < PAIRS
    for _ in range(2):  # encoded, then read
        found = encoded_corpus.encode(SPLIT, vocabularies, LIMIT, 1)
        assert_same(found, expected)
        assert found.sources.ids.dtype == np.uint16
        assert isinstance(found.sources.ids.base, np.memmap)
    assert not list(entry(tmp_path).glob("*chunk*"))


def test_processes_encode_as_one_process_does(vocabularies: Vocabularies, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes some seconds: each process of the pool imports torch."""
    monkeypatch.setattr(encoded_corpus, "POOL_FROM", 1)
    assert_same(encoded_corpus.encode(SPLIT, vocabularies, LIMIT, 2), Pairs.encode(SPLIT, vocabularies, LIMIT))


def test_a_text_is_encoded_once(vocabularies: Vocabularies, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded_corpus.encode(SPLIT, vocabularies, LIMIT, 1)
    monkeypatch.setattr(encoded_corpus, "_encode_chunk", must_not_be_called)
    encoded_corpus.encode(SPLIT, vocabularies, LIMIT, 1)
    with pytest.raises(AssertionError, match="encoded again"):
        encoded_corpus.encode(SPLIT, vocabularies, LIMIT + 1, 1)


def must_not_be_called(*_: object) -> None:
    raise AssertionError("encoded again")


def test_a_killed_job_is_continued_with_its_finished_chunks(
    vocabularies: Vocabularies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original, encoded = encoded_corpus._encode_chunk, list[str]()

    def killed_at_the_fourth(
        words: Vocabularies, limit: int, sources: Sequence[str], targets: Sequence[str], path: Path
    ) -> None:
        if len(encoded) == 3:
            encoded.append("killed")
            raise KeyboardInterrupt
        encoded.append(path.name)
        original(words, limit, sources, targets, path)

    monkeypatch.setattr(encoded_corpus, "_encode_chunk", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        encoded_corpus.encode(SPLIT, vocabularies, LIMIT, 1)
    (partial,) = (tmp_path / "attention-ladder" / "encoded").glob(".*.partial")
    (partial / encoded[0]).write_bytes(b"PK half of a file")
    found = encoded_corpus.encode(SPLIT, vocabularies, LIMIT, 1)
    assert_same(found, Pairs.encode(SPLIT, vocabularies, LIMIT))
    assert encoded[4:] == [encoded[0], *(f"chunk-{begin:012}.npz" for begin in (30, 40, 50))]


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "manifest"])
def test_a_damaged_entry_is_made_again(vocabularies: Vocabularies, tmp_path: Path, damage: str) -> None:
    encoded_corpus.encode(SPLIT, vocabularies, LIMIT, 1)
    file = entry(tmp_path) / "source.ids.npy"
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "manifest":
        (entry(tmp_path) / "manifest.json").write_text("[]")
    else:
        file.write_bytes(data[:-8] if damage == "truncated" else data[:-2] + b"\x07\x07")
    assert_same(encoded_corpus.encode(SPLIT, vocabularies, LIMIT, 1), Pairs.encode(SPLIT, vocabularies, LIMIT))
    assert file.read_bytes() == data


def test_a_manifest_that_a_kill_left_behind_is_not_part_of_the_entry(tmp_path: Path) -> None:
    (partial := tmp_path / ".entry.partial").mkdir()
    (partial / "manifest.json").write_text("{}")  # killed before the folder was renamed
    filled = []

    def fill(folder: Path) -> None:
        filled.append(folder)
        (folder / "numbers").write_bytes(b"12")

    for _ in range(2):
        provide(tmp_path / "entry", fill)
    assert len(filled) == 1


def test_without_a_writable_cache_the_text_is_encoded_in_memory(
    vocabularies: Vocabularies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_same(encoded_corpus.encode(SPLIT, vocabularies, LIMIT, 1), Pairs.encode(SPLIT, vocabularies, LIMIT))
    assert "the encoded text is not kept" in capsys.readouterr().out


def test_a_limit_that_no_pair_meets_is_an_error(vocabularies: Vocabularies) -> None:
    with pytest.raises(ValueError, match=r"^text\.max_length: none of 57 sentence pairs of train has at most 1 tokens"):
        encoded_corpus.encode(SPLIT, vocabularies, 1, 1)
