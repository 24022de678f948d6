"""The vocabularies of a training text: learnt from it, or read from the cache, where the next job finds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from bench.data.corpus import Split
from bench.data.vocabulary import KINDS, TextSettings, Vocabularies, Vocabulary, VocabularySizeError, load
from bench.system import terminal

MAX_SENTENCES = 1_000_000
"""Sentences that a vocabulary is learnt from, at most. Of a larger text a sample is drawn, with `SAMPLE_SEED`."""

SAMPLE_SEED = 1


def build(settings: TextSettings, train: Split, cache: Path | None = None) -> Vocabularies:
    """The vocabularies of a training text, learnt or read from the folder `cache`.

    The name of a cached file contains a hash of the text and of the settings that the vocabulary depends on. Nothing
    is written here: `save_to_cache` does it.

    Raises:
        ValueError: a vocabulary of this size cannot be learnt from this text (the message has the limit), or a cached
            file is damaged.
    """
    if not any(train.sources) or not any(train.targets):
        raise ValueError("text: one side of the training text has only empty lines; check the training files")
    source, target = settings.sizes
    if settings.joint:
        joint = learn_or_load(settings.kind, target, [train.sources, train.targets], train.hash, cache)
        return Vocabularies(joint, joint)
    source_key = "vocabulary_size" if settings.source_vocabulary_size is None else "source_vocabulary_size"
    return Vocabularies(
        learn_or_load(settings.kind, source, [train.sources], f"{train.hash} source", cache, key=source_key),
        learn_or_load(settings.kind, target, [train.targets], f"{train.hash} target", cache),
    )


def learn_or_load(
    kind: str,
    size: int,
    sides: Sequence[Sequence[str]],
    text_hash: str,
    cache: Path | None,
    *,
    key: str = "vocabulary_size",
) -> Vocabulary:
    """One vocabulary, read from `cache` if it is there.

    Args:
        kind: subwords, words or characters.
        size: Pieces, including the special ones.
        sides: The text, one or both sides of it.
        text_hash: A hash of the text.
        cache: Folder of vocabularies.
        key: The setting that an error message names.
    """
    path = None
    if cache is not None:
        made_by = {"kind": kind, "vocabulary_size": size, "text": text_hash} | KINDS[kind].rule
        digest = hashlib.sha256(json.dumps(made_by).encode())
        path = cache / f"{kind}-{size}-{digest.hexdigest()[:24]}.vocabulary"
    try:
        vocabulary = (_cached(path) if path else None) or KINDS[kind].learn(sample(sides), size)
    except VocabularySizeError as error:
        raise ValueError(f"text.{key}: {error}") from error
    vocabulary.path = path
    return vocabulary


def _cached(path: Path) -> Vocabulary | None:
    """The vocabulary in a file of the cache; None, and no file, if there is none or it is damaged."""
    if not path.exists():
        return None
    try:
        return load(path)
    except ValueError:
        terminal.say(f"  {path} is damaged; the vocabulary is learnt again")
        path.unlink(missing_ok=True)
        return None


def sample(sides: Sequence[Sequence[str]], most: int = MAX_SENTENCES) -> Iterable[str]:
    """The sentences of all sides, or `most` of them in their order, drawn with a fixed seed.

    Each side of `n` sides gives `most` / n sentences, those of the same pairs.
    """
    count, share = len(sides[0]), most // len(sides)
    if count <= share:
        return chain.from_iterable(sides)
    drawn = np.sort(np.random.default_rng(SAMPLE_SEED).choice(count, share, replace=False, shuffle=False))
    return (side[int(number)] for side in sides for number in drawn)


def sentences_learnt_from(settings: TextSettings, pairs: int) -> tuple[int, int]:
    """How many sentences each vocabulary of a text of so many pairs is learnt from, and of how many."""
    sides = 2 if settings.joint else 1
    return min(pairs, MAX_SENTENCES // sides) * sides, pairs * sides


def save_to_cache(vocabularies: Vocabularies) -> None:
    """Write the vocabularies that `build` learnt to its cache.

    This is separate from `build`, so that a job whose settings turn out to be invalid leaves no file.
    """
    for vocabulary in vocabularies:
        if vocabulary.path and not vocabulary.path.exists():
            vocabulary.path.parent.mkdir(parents=True, exist_ok=True)
            vocabulary.save(vocabulary.path)
