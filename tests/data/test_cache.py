"""The cache on disk: it returns what was computed, and nothing that other code computed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
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


@pytest.fixture
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small splits and few probes, because generation is not what is tested here."""
    monkeypatch.setattr(grammar, "TEST_PAIRS", 10)
    monkeypatch.setattr(grammar, "NAMES_PAIRS", 5)
    monkeypatch.setattr(grammar, "contrastive", functools.partial(grammar.contrastive, size=20))
    monkeypatch.setattr(grammar, "nested", functools.partial(grammar.nested, size=3))
    yield
    for cached_function in (grammar._probes, generate_splits):
        cached_function.cache_clear()


generate_splits = grammar._generate_splits


def must_not_be_called(*_: object) -> list[int]:
    raise AssertionError("computed again")


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


@pytest.mark.usefixtures("few_pairs")
def test_a_second_process_reads_what_the_first_one_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    text = grammar.load(SMALL, "en", "de")
    grammar._probes.cache_clear()
    probes = grammar.probes(SMALL, "en", "de")
    grammar._probes.cache_clear()
    monkeypatch.setattr(grammar, "_generate_splits", must_not_be_called)
    assert grammar.load(SMALL, "en", "de") == text
    again = grammar.probes(SMALL, "en", "de")
    assert again == probes
    assert again.test[0].alignment, "alignments must be sets of tuples, not lists"
    # Contrasts must be hashable, because they are an argument of the cached function `_target_only`.
    assert hash(again.contrasts) == hash(probes.contrasts)


@pytest.mark.usefixtures("few_pairs")
def test_probes_of_much_text_are_made_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "PROBES_AT_ONCE", SMALL.pairs)
    grammar.load(SMALL, "en", "de")
    grammar._probes.cache_clear()
    monkeypatch.setattr(grammar, "_generate_splits", must_not_be_called)
    assert len(grammar.probes(SMALL, "en", "de").test) == 10


@pytest.mark.usefixtures("few_pairs")
@pytest.mark.parametrize("other", [CorpusSettings(pairs=41, lemmas=80), CorpusSettings(pairs=40, lemmas=81)])
def test_other_settings_have_another_file(other: CorpusSettings, cache: Path) -> None:
    first = grammar.load(SMALL, "en", "de")
    assert grammar.load(other, "en", "de") != first
    assert len(files(cache)) == 2


def test_other_code_has_another_file(cache: Path, tmp_path: Path) -> None:
    code = tmp_path / "code.yaml"
    code.write_text("one")
    assert cached(list[int], lambda: [1], "x", (), [code]) == [1]
    assert cached(list[int], must_not_be_called, "x", (), [code]) == [1]
    code.write_text("two")
    assert cached(list[int], lambda: [2], "x", (), [code]) == [2]


@pytest.mark.parametrize("content", [b"", b"[1, 2", b'["one"]', b"\xff"])
def test_a_damaged_file_is_replaced(content: bytes, cache: Path) -> None:
    cached(list[int], lambda: [1], "x", (), [])
    (file,) = files(cache)
    file.write_bytes(content)
    assert cached(list[int], lambda: [1], "x", (), []) == [1]
    assert files(cache) == [file]
    assert cached(list[int], must_not_be_called, "x", (), []) == [1]


def test_without_a_writable_folder_the_result_is_computed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cached(list[int], lambda: [1], "x", (), []) == [1]


def test_dataclasses_are_read_back_unchanged() -> None:
    one = Example("a", "b", ("a",), ("b",), frozenset({(0, 0)}), (frozenset({0}), frozenset()), 2, frozenset({"x"}))
    probes = Probes((), (one,), ())
    cached(Probes, lambda: probes, "x", (), [])
    assert cached(Probes, lambda: Probes((), (), ()), "x", (), []) == probes
