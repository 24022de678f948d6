"""Sentences and sentence pairs as token ids. Pairs that are longer than a limit are dropped here, sources truncated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from bench.data.corpus import Split
from bench.data.vocabulary import Vocabularies, Vocabulary
from models.parts.batch import EOS, PAD, Batch, Tokens


@dataclass(frozen=True)
class Sentences:
    """Token ids of many sentences in one flat array. Each sentence ends in EOS.

    Attributes:
        ids: Sentence i is ids[ends[i] - lengths[i] : ends[i]]. Of a type that the vocabulary fits in.
        lengths: Tokens of each sentence, including EOS.
        ends: Where each sentence ends in `ids`.
    """

    ids: np.ndarray
    lengths: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, sentences: Sequence[Sequence[int]]) -> Sentences:
        """The sentences given as id lists without EOS."""
        lengths = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences)) + 1
        with_eos = chain.from_iterable(chain(sentence, (EOS,)) for sentence in sentences)
        ids = np.fromiter(with_eos, dtype=np.int32, count=int(lengths.sum()))
        return cls(ids, lengths, np.cumsum(lengths))

    @classmethod
    def encode(cls, vocabulary: Vocabulary, sentences: Sequence[str], chunk_size: int = 100_000) -> Sentences:
        """The sentences given as text.

        They are encoded `chunk_size` at a time, because lists of Python integers need ten times the memory of an array.
        """
        begins = range(0, len(sentences), chunk_size)
        chunks = [cls.of(vocabulary.encode(sentences[begin : begin + chunk_size])) for begin in begins]
        lengths = np.concatenate([chunk.lengths for chunk in chunks])
        return cls(np.concatenate([chunk.ids for chunk in chunks]), lengths, np.cumsum(lengths))

    def select(self, mask: np.ndarray) -> Sentences:
        """The sentences for which `mask` is True."""
        lengths = self.lengths[mask]
        return Sentences(self.ids[np.repeat(mask, self.lengths)], lengths, np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, indices: np.ndarray) -> Tokens:
        """The sentences with these indices as one padded block."""
        lengths_B = self.lengths[indices]
        column_S = np.arange(lengths_B.max(initial=0))
        # Behind the end of a sentence the position can exceed the array. Clipping it avoids an index error, and
        # padding replaces the value that was read there.
        position_BS = np.minimum((self.ends[indices] - lengths_B)[:, None] + column_S, len(self.ids) - 1)
        ids_BS = np.where(column_S < lengths_B[:, None], self.ids[position_BS], PAD)
        return Tokens(torch.from_numpy(ids_BS.astype(np.int64)), tuple(lengths_B.tolist()))


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs as ids.

    Attributes:
        sources: Source sentences.
        targets: Target sentences.
        dropped: Pairs of the split that are not among them because they were too long.
    """

    sources: Sentences
    targets: Sentences
    dropped: int = 0

    @classmethod
    def encode(
        cls, split: Split, vocabularies: Vocabularies, max_length: int | None = None, name: str = "train"
    ) -> Pairs:
        """The pairs of a split, encoded. Pairs with a side of more than `max_length` tokens (without EOS) are dropped.

        Args:
            name: Name of the split, for error messages.

        Raises:
            ValueError: the split has no pairs, or all of them are too long.
        """
        if not len(split):
            raise ValueError(f"text: there are no sentence pairs in {name}; check the files of the corpus")
        sources = Sentences.encode(vocabularies.source, split.sources)
        targets = Sentences.encode(vocabularies.target, split.targets)
        if max_length is None:
            return cls(sources, targets)
        short = np.maximum(sources.lengths, targets.lengths) <= max_length + 1
        check_pairs_left(int(short.sum()), len(split), max_length, name)
        return cls(sources.select(short), targets.select(short), int((~short).sum()))

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def max_lengths(self) -> np.ndarray:
        """Tokens of the longer side of each pair, including EOS."""
        return np.maximum(self.sources.lengths, self.targets.lengths)

    def with_shuffled_sources(self) -> Pairs:
        """Each target with the source of the next pair, the last one with that of the first.

        The increase in loss on these pairs measures how much a model uses its source. The pairs keep their lengths, so
        no pair is over a limit that both of its sentences have met.
        """
        lengths = np.roll(self.sources.lengths, -1)
        ids = np.roll(self.sources.ids, -int(self.sources.lengths[0]))
        return Pairs(Sentences(ids, lengths, np.cumsum(lengths)), self.targets)

    def batch(self, indices: np.ndarray) -> Batch:
        """The pairs with these indices as one batch."""
        return Batch(self.sources.tokens(indices), self.targets.tokens(indices))


def check_pairs_left(kept: int, pairs: int, max_length: int, name: str = "train") -> None:
    """Raises ValueError if no pair of a split is short enough."""
    if not kept:
        raise ValueError(
            f"text.max_length: none of {pairs} sentence pairs of {name} has at most {max_length} tokens on both sides; "
            "raise it"
        )


def encode_sources(sentences: Sequence[str], vocabulary: Vocabulary, max_length: int) -> tuple[list[list[int]], int]:
    """Token ids of sentences to translate, and the number of sentences that were longer than `max_length` and were cut.

    A sentence that has only spaces is encoded as an empty one, whose translation is empty.
    """
    return truncate(vocabulary.encode([sentence if sentence.strip() else "" for sentence in sentences]), max_length)


def truncate(sentences: Iterable[list[int]], max_length: int) -> tuple[list[list[int]], int]:
    """The sentences, cut to `max_length` tokens, and the number of sentences that were longer."""
    sentences = list(sentences)
    return [sentence[:max_length] for sentence in sentences], sum(len(sentence) > max_length for sentence in sentences)
