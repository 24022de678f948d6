"""Filters of training pairs: length, ratio of lengths, duplicates, identical sides, script. All are off by default."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from bench.data.corpus import Corpus, FilterSettings, Split
from bench.data.languages import script_of, scripts_of


def check(settings: FilterSettings) -> None:
    """Raises ValueError if a filter has a value that no pair or every pair would fail."""
    for key, least in (("min_words", 1), ("max_words", 1), ("max_ratio", 1.0)):
        value = getattr(settings, key)
        if value is not None and not value >= least:
            raise ValueError(f"corpus.filters.{key}: {value} is too small; expected at least {least}; raise it")
    if settings.min_words and settings.max_words and settings.min_words > settings.max_words:
        raise ValueError(
            f"corpus.filters.min_words: {settings.min_words} is more than max_words, {settings.max_words}; expected at "
            "most that; lower min_words or raise max_words"
        )


def active(settings: FilterSettings) -> dict[str, object]:
    """The filters that are on, with their values."""
    off = asdict(FilterSettings())
    return {key: value for key, value in asdict(settings).items() if value != off[key]}


def kept_pairs(corpus: Corpus, settings: FilterSettings, removed: Counter[str]) -> Iterator[tuple[str, str]]:
    """The training pairs that pass all filters, in their order.

    Args:
        corpus: The corpus.
        settings: The filters.
        removed: Counts the removed pairs by the first filter that each of them fails: length, ratio, identical sides,
            script, duplicate.
    """
    languages = corpus.source_language, corpus.target_language
    scripts = [scripts_of(each) for each in languages]
    is_first = first_occurrences(corpus.train) if settings.duplicates else None
    for number, (source, target) in enumerate(corpus.train):
        reason = _reason(source, target, settings, scripts)
        if reason is None and is_first is not None and not is_first[number]:
            reason = "duplicates"
        if reason:
            removed[reason] += 1
        else:
            yield source, target


def _reason(source: str, target: str, settings: FilterSettings, scripts: list[set[str]]) -> str | None:
    """The first setting that a pair fails; None if it passes."""
    short, long = sorted((len(source.split()), len(target.split())))
    if settings.min_words is not None and short < settings.min_words:
        return "min_words"
    if settings.max_words is not None and long > settings.max_words:
        return "max_words"
    if settings.max_ratio is not None and long > settings.max_ratio * short:
        return "max_ratio"
    if settings.identical and source == target:
        return "identical"
    if settings.script and not all(map(_is_in_script, (source, target), scripts)):
        return "script"
    return None


def _is_in_script(sentence: str, scripts: set[str]) -> bool:
    """Whether at least half of the letters are in one of the scripts. True without letters, or if none is known."""
    letters = [script_of(character) for character in sentence if character.isalpha()]
    return not scripts or 2 * sum(script in scripts for script in letters) >= len(letters)


def first_occurrences(split: Split) -> np.ndarray:
    """For each pair, whether no earlier pair is equal to it."""
    found = np.zeros(len(split), dtype=bool)
    found[np.unique(pair_hashes(split), return_index=True)[1]] = True
    return found


def pair_hashes(split: Split) -> np.ndarray:
    """A hash of 64 bits for each pair. Among 10 million pairs, two have the same by chance with probability 3e-6."""
    digests = (hashlib.blake2b(f"{s}\n{t}".encode("utf-8", "replace"), digest_size=8).digest() for s, t in split)
    return np.fromiter((int.from_bytes(digest, "little") for digest in digests), dtype=np.uint64, count=len(split))
