"""What is kept in the cache folder: the same as what was made, and never what other code made."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.data.corpora import grammar
from bench.data.corpora._cache import cached
from bench.data.corpus import CorpusSettings, Example, Probes

SMALL = CorpusSettings(pairs=40, lemmas=80)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def never() -> list[int]:
    raise AssertionError("made again")


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_the_second_process_reads_what_the_first_has_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    text = grammar.load(SMALL, "en", "de")
    grammar._probes.cache_clear()
    probes = grammar.probes(SMALL, "en", "de")
    grammar._probes.cache_clear()
    monkeypatch.setattr(grammar, "_draw", never)
    assert grammar.load(SMALL, "en", "de") == text
    again = grammar.probes(SMALL, "en", "de")
    grammar._probes.cache_clear()
    assert again == probes
    assert again.test[0].alignment, "sets of pairs, not lists"
    assert hash(again.contrasts) == hash(probes.contrasts)  # they are a key of _target_only


@pytest.mark.parametrize("other", [CorpusSettings(pairs=41, lemmas=80), CorpusSettings(pairs=40, lemmas=81)])
def test_other_settings_have_another_file(other: CorpusSettings, cache: Path) -> None:
    first = grammar.load(SMALL, "en", "de")
    assert grammar.load(other, "en", "de") != first
    assert len(files(cache)) == 2


def test_other_code_has_another_file(cache: Path, tmp_path: Path) -> None:
    code = tmp_path / "made.yaml"
    code.write_text("one")
    assert cached(list[int], lambda: [1], "x", (), [code]) == [1]
    assert cached(list[int], never, "x", (), [code]) == [1]
    code.write_text("two")
    assert cached(list[int], lambda: [2], "x", (), [code]) == [2]


@pytest.mark.parametrize("content", [b"", b"[1, 2", b'["one"]', b"\xff"])
def test_a_file_that_cannot_be_read_is_made_again(content: bytes, cache: Path) -> None:
    cached(list[int], lambda: [1], "x", (), [])
    (file,) = files(cache)
    file.write_bytes(content)
    assert cached(list[int], lambda: [1], "x", (), []) == [1]
    assert files(cache) == [file]
    assert cached(list[int], never, "x", (), []) == [1]


def test_without_a_place_to_write_it_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cached(list[int], lambda: [1], "x", (), []) == [1]


def test_dataclasses_come_back_whole() -> None:
    one = Example("a", "b", ("a",), ("b",), frozenset({(0, 0)}), (frozenset({0}), frozenset()), 2, frozenset({"x"}))
    probes = Probes((), (one,), ())
    cached(Probes, lambda: probes, "x", (), [])
    assert cached(Probes, lambda: Probes((), (), ()), "x", (), []) == probes
