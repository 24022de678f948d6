"""Token ids into batches: bucketed by length under a token budget, in an order that is a function of the seed.

Sentences stand one after another in one flat array, and a batch is one indexing of it: nothing is done item by item,
and no worker processes are needed. The n-th batch of a run depends on the seed and on n alone, so a run that is
interrupted after n batches goes on with batch n + 1 exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch

from bench.data.corpus import Split
from bench.data.vocabulary import Vocabularies, Vocabulary
from models.parts.batch import EOS, PAD, Batch, Block, Tokens


@dataclass(frozen=True)
class Sentences:
    """Id lists in one flat array, each ended by EOS: sentence i is ids[ends[i] - lengths[i] : ends[i]]."""

    ids: np.ndarray
    lengths: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, sentences: Sequence[Sequence[int]]) -> Sentences:
        """From id lists without EOS."""
        lengths = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences)) + 1
        ended = chain.from_iterable(chain(sentence, (EOS,)) for sentence in sentences)
        ids = np.fromiter(ended, dtype=np.int32, count=int(lengths.sum()))
        return cls(ids, lengths, np.cumsum(lengths))

    @classmethod
    def encoded(cls, vocabulary: Vocabulary, sentences: Sequence[str], at_once: int = 100_000) -> Sentences:
        """From text, some at a time, since lists of Python integers take ten times the room of an array."""
        begins = range(0, len(sentences), at_once)
        parts = [cls.of(vocabulary.encode(sentences[begin : begin + at_once])) for begin in begins]
        lengths = np.concatenate([local_part.lengths for local_part in parts])
        return cls(np.concatenate([local_part.ids for local_part in parts]), lengths, np.cumsum(lengths))

    def where(self, kept: np.ndarray) -> Sentences:
        """Those for which `kept` is True."""
        lengths = self.lengths[kept]
        return Sentences(self.ids[np.repeat(kept, self.lengths)], lengths, np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, places: np.ndarray) -> Tokens:
        """The sentences at these places as one padded block."""
        lengths_B = self.lengths[places]
        column_S = np.arange(lengths_B.max(initial=0))
        # Past a sentence's end the index may run over the array's: it is clipped, and the value is not used.
        index_BS = np.minimum((self.ends[places] - lengths_B)[:, None] + column_S, len(self.ids) - 1)
        ids_BS = np.where(column_S < lengths_B[:, None], self.ids[index_BS], PAD)
        return Tokens(torch.from_numpy(ids_BS.astype(np.int64)), tuple(lengths_B.tolist()))


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs as ids. `dropped` counts the pairs that were too long and are not among them."""

    sources: Sentences
    targets: Sentences
    dropped: int = 0

    @classmethod
    def of(cls, split: Split, vocabularies: Vocabularies, max_length: int | None = None) -> Pairs:
        """Encode both sides. Pairs with a side of more than `max_length` tokens (EOS not counted) are left out.

        Raises:
            ValueError: no pair is there, or none is left.
        """
        if not len(split):
            raise ValueError("text: there are no sentence pairs")
        sources = Sentences.encoded(vocabularies.source, split.sources)
        targets = Sentences.encoded(vocabularies.target, split.targets)
        if max_length is None:
            return cls(sources, targets)
        kept = np.maximum(sources.lengths, targets.lengths) <= max_length + 1
        if not kept.any():
            raise ValueError(f"text.max_length: none of {len(split)} sentence pairs has at most {max_length} tokens")
        return cls(sources.where(kept), targets.where(kept), int((~kept).sum()))

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def longer_side(self) -> np.ndarray:
        """Length of the longer side of each pair, EOS counted."""
        return np.maximum(self.sources.lengths, self.targets.lengths)

    def batch(self, places: np.ndarray) -> Batch:
        return Batch(self.sources.tokens(places), self.targets.tokens(places))


class BatchCounts(NamedTuple):
    """What a batch holds: pairs; real tokens with EOS; and the tokens of both padded blocks."""

    pairs: int
    source_tokens: int
    target_tokens: int
    padded_tokens: int


def count_tokens(batch: Batch) -> BatchCounts:
    source, target = batch.source, batch.target
    return BatchCounts(
        len(source.lengths_B),
        sum(source.lengths_B),
        sum(target.lengths_B),
        source.ids_BS.numel() + target.ids_BS.numel(),
    )


def batch_boundaries(falling: np.ndarray, batch_tokens: int) -> np.ndarray:
    """Where lengths in falling order are cut, so that (sentences) x (longest) <= batch_tokens in each batch.

    Raises:
        ValueError: one sentence alone is longer than the budget.
    """
    if len(falling) and falling[0] > batch_tokens:
        raise ValueError(
            f"training.batch_tokens: {batch_tokens} is less than the longest sentence, {falling[0]} tokens; raise it, "
            "or lower text.max_length"
        )
    places = [0]
    while places[-1] < len(falling):
        places.append(min(len(falling), places[-1] + int(batch_tokens // falling[places[-1]])))
    return np.array(places)


class PairBatches(pl.LightningDataModule):
    """Training batches without end, epoch after epoch.

    In each epoch every pair comes once: all pairs are sorted by the longer side, equal lengths in a new random order,
    cut into batches of at most `batch_tokens` padded tokens on the longer side, and the batches are shuffled. All of
    it follows from (seed, epoch). The lengths at which batches are cut are the same in each epoch.

    `consumed` is the number of batches that training has used. Training sets it, since Lightning draws batches ahead;
    it is all the state there is, and an iterator begins at it. Where several processes train one model, `rank` of
    `processes` says which part of every batch this one reads; the batches are the same, whatever their number.
    """

    def __init__(self, pairs: Pairs, batch_tokens: int, seed: int) -> None:
        super().__init__()
        self.pairs, self.seed, self.consumed = pairs, seed, 0
        self.rank, self.processes = 0, 1
        self.longer_side = pairs.longer_side
        self.batch_boundaries = batch_boundaries(np.sort(self.longer_side)[::-1], batch_tokens)

    @property
    def batches_per_epoch(self) -> int:
        return len(self.batch_boundaries) - 1

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The places of the pairs of each batch of an epoch, counted from 0."""
        random = np.random.default_rng((self.seed, epoch))
        shuffled = random.permutation(len(self.pairs))
        falling = shuffled[np.argsort(-self.longer_side[shuffled], kind="stable")]
        batches = [falling[begin:end] for begin, end in pairwise(self.batch_boundaries)]
        return [batches[place] for place in random.permutation(len(batches))]

    def local_part(self, places: np.ndarray) -> Batch:
        """What this process reads of a batch: every `processes`-th pair, so that the parts are about equally long.

        Of a batch with fewer pairs than processes, some have no part. They read its first pair, with a share of 0,
        since the others wait for their gradient; that pair is counted once.
        """
        if self.processes == 1:
            return self.pairs.batch(places)
        sources, targets = self.pairs.sources.lengths, self.pairs.targets.lengths
        dealt = [places[rank :: self.processes] for rank in range(self.processes) if rank < len(places)]
        blocks = tuple(
            Block(tuple(s.tolist()), tuple(t.tolist()), (int(s.max()), int(t.max())))
            for s, t in ((sources[mine], targets[mine]) for mine in dealt)
        )
        if self.rank < len(dealt):
            mine = dealt[self.rank]
            share = int(targets[mine].sum()) * self.processes / int(targets[places].sum())
        else:
            mine, share = places[:1], 0.0
        return self.pairs.batch(mine)._replace(share=share, parts=blocks)

    def train_dataloader(self) -> Stream:
        return Stream(self)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.consumed = state_dict["consumed"]


class Stream(Iterable[Batch]):
    """What Lightning iterates over. Its state is that of its `PairBatches`, not how far an iterator has been drawn."""

    def __init__(self, batches: PairBatches) -> None:
        self.batches = batches
        self.state_dict, self.load_state_dict = batches.state_dict, batches.load_state_dict

    def __iter__(self) -> Iterator[Batch]:
        epoch, place = divmod(self.batches.consumed, self.batches.batches_per_epoch)
        while True:
            for places in self.batches.epoch(epoch)[place:]:
                yield self.batches.local_part(places)
            epoch, place = epoch + 1, 0


def evaluation_batches(pairs: Pairs, batch_tokens: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every pair once, longest first: (places, batch), where row r of the batch is pair places[r]."""
    falling = np.argsort(-pairs.longer_side, kind="stable")
    for begin, end in pairwise(batch_boundaries(pairs.longer_side[falling], batch_tokens)):
        yield falling[begin:end], pairs.batch(falling[begin:end])


def source_batches(sources: Sequence[Sequence[int]], sentences: int) -> Iterator[tuple[np.ndarray, Tokens]]:
    """Sources alone, longest first, so many sentences a batch: (places, tokens), row r being sources[places[r]]."""
    flat = Sentences.of(sources)
    falling = np.argsort(-flat.lengths, kind="stable")
    for begin in range(0, len(falling), sentences):
        yield falling[begin : begin + sentences], flat.tokens(falling[begin : begin + sentences])


def truncate(sentences: Iterable[list[int]], max_length: int) -> tuple[list[list[int]], int]:
    """Sentences cut to `max_length` tokens, and how many were longer."""
    whole = list(sentences)
    return [sentence[:max_length] for sentence in whole], sum(len(sentence) > max_length for sentence in whole)
