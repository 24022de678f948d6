"""What the tests of several corpora share."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from bench.data.corpora import grammar as grammar_corpus

FEW_PAIRS = 60  # of the validation and test splits of `few_pairs`


@pytest.fixture
def few_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Validation and test splits of `FEW_PAIRS` pairs, for tests in which size is not the point; nothing is cached."""
    monkeypatch.setattr(grammar_corpus, "TEST_PAIRS", FEW_PAIRS)
    monkeypatch.setattr(grammar_corpus, "NAMES_PAIRS", FEW_PAIRS)
    uncached = functools.lru_cache(grammar_corpus._generate_splits.__wrapped__)
    monkeypatch.setattr(grammar_corpus, "_generate_splits", uncached)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
