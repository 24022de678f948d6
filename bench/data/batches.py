"""Batches of token ids: bucketed by length, limited by tokens or by pairs, in an order determined by the seed.

All sentences of a side are stored in one flat array, and a batch is made by one indexing operation. Nothing is done
sentence by sentence, so no data-loader worker processes are needed. Batch n of a run depends on the seed and on n
only, so a run that was interrupted after n batches resumes with exactly batch n + 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from bench.data.encoded_pairs import Pairs, Sentences
from models.parts.batch import Batch, BatchShape, Tokens


def batch_boundaries(lengths: np.ndarray, batch_tokens: int, batch_pairs: int | None = None) -> np.ndarray:
    """Indices at which sorted sentences are divided into batches: 0, the end of batch 1, ..., the number of sentences.

    In each batch, (sentences) x (longest sentence) <= `batch_tokens` and sentences <= `batch_pairs`. A longer sentence
    has a batch of its own.

    Args:
        lengths: Tokens of each sentence, longest first.
        batch_tokens: Largest number of padded tokens of a batch.
        batch_pairs: Largest number of sentences of a batch; None for no such limit.
    """
    boundaries, most = [0], batch_pairs or len(lengths)
    while boundaries[-1] < len(lengths):
        size = min(most, max(1, int(batch_tokens // lengths[boundaries[-1]])))
        boundaries.append(min(len(lengths), boundaries[-1] + size))
    return np.array(boundaries)


class PairBatches(pl.LightningDataModule):
    """An endless sequence of training batches, epoch after epoch.

    In each epoch every pair occurs once. The pairs are sorted by the length of their longer side, with pairs of equal
    length in a new random order; they are divided into batches of at most `batch_tokens` padded tokens on the longer
    side and `batch_pairs` pairs; and the batches are shuffled. Everything is determined by (seed, epoch). The
    boundaries are the same in each epoch.

    Attributes:
        consumed: The number of batches that training has used. It is the whole state: an iterator begins there.
            Training sets it, because Lightning fetches batches in advance.
        rank: In distributed training, the number of this process. It decides which part of each batch is read here.
        processes: The number of processes. The batches do not depend on it.
        multiple: The shorter side of a batch is padded to a multiple of this, but not beyond the longer side. Batches
            then have fewer different shapes.

    Raises:
        ValueError: one sentence alone is longer than `batch_tokens`, which bounds the memory of an update.
    """

    def __init__(self, pairs: Pairs, batch_tokens: int, seed: int, batch_pairs: int | None = None) -> None:
        super().__init__()
        self.pairs, self.seed, self.consumed = pairs, seed, 0
        self.rank, self.processes, self.multiple = 0, 1, 1
        self.max_lengths = pairs.max_lengths
        longest = int(self.max_lengths.max(initial=0))
        if longest > batch_tokens:
            raise ValueError(
                f"training.batch_tokens: {batch_tokens} is less than the longest sentence, {longest} tokens; raise it, "
                "or lower text.max_length"
            )
        self.boundaries = batch_boundaries(np.sort(self.max_lengths)[::-1], batch_tokens, batch_pairs)

    @property
    def batches_per_epoch(self) -> int:
        return len(self.boundaries) - 1

    def longest(self) -> Batch:
        """The part that this process reads of the batch with the longest sentences, which needs the most memory."""
        return self.local_part(np.argsort(-self.max_lengths, kind="stable")[: self.boundaries[1]])

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Indices of the pairs of each batch of an epoch; epochs are counted from 0."""
        random = np.random.default_rng((self.seed, epoch))
        shuffled = random.permutation(len(self.pairs))
        longest_first = shuffled[np.argsort(-self.max_lengths[shuffled], kind="stable")]
        batches = [longest_first[begin:end] for begin, end in pairwise(self.boundaries)]
        return [batches[number] for number in random.permutation(len(batches))]

    def local_part(self, indices: np.ndarray) -> Batch:
        """The part of a batch that this process reads: every `processes`-th pair, so that all parts are about as long.

        If a batch has fewer pairs than there are processes, the remaining processes read its first pair with loss
        weight 0, because the other processes wait for a gradient from each of them. That pair is counted once.

        Args:
            indices: The pairs of the whole batch.
        """
        if self.processes == 1:
            return self.pairs.batch(indices).padded(self.multiple)
        sources, targets = self.pairs.sources.lengths, self.pairs.targets.lengths
        parts = [indices[rank :: self.processes] for rank in range(self.processes) if rank < len(indices)]
        shapes = tuple(
            BatchShape(tuple(s.tolist()), tuple(t.tolist()), (int(s.max()), int(t.max())))
            for s, t in ((sources[part], targets[part]) for part in parts)
        )
        if self.rank < len(parts):
            part = parts[self.rank]
            loss_weight = int(targets[part].sum()) * self.processes / int(targets[indices].sum())
        else:
            part, loss_weight = indices[:1], 0.0
        return self.pairs.batch(part)._replace(loss_weight=loss_weight, process_shapes=shapes)

    def train_dataloader(self) -> BatchStream:
        return BatchStream(self)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.consumed = state_dict["consumed"]


class BatchStream(Iterable[Batch]):
    """The iterable that Lightning reads. Its state is that of its `PairBatches`, not the position of an iterator."""

    def __init__(self, batches: PairBatches) -> None:
        self.batches = batches
        self.state_dict, self.load_state_dict = batches.state_dict, batches.load_state_dict

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = divmod(self.batches.consumed, self.batches.batches_per_epoch)
        while True:
            for indices in self.batches.epoch(epoch)[first:]:
                yield self.batches.local_part(indices)
            epoch, first = epoch + 1, 0


def evaluation_batches(pairs: Pairs, batch_tokens: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches with every pair once, longest first: (indices, batch), where row r of the batch is pair indices[r].

    A pair that is longer than `batch_tokens` is a batch of its own: evaluation needs every pair, and without gradients
    one pair fits where a training batch does.
    """
    longest_first = np.argsort(-pairs.max_lengths, kind="stable")
    for begin, end in pairwise(batch_boundaries(pairs.max_lengths[longest_first], batch_tokens)):
        yield longest_first[begin:end], pairs.batch(longest_first[begin:end])


def source_batches(sources: Sequence[Sequence[int]], batch_size: int) -> Iterator[tuple[np.ndarray, Tokens]]:
    """Batches of sources, longest first: (indices, tokens), where row r of the batch is sources[indices[r]].

    Args:
        sources: Id lists without EOS.
        batch_size: Sentences of a batch; the last one can have fewer.
    """
    sentences = Sentences.of(sources)
    longest_first = np.argsort(-sentences.lengths, kind="stable")
    for begin in range(0, len(longest_first), batch_size):
        indices = longest_first[begin : begin + batch_size]
        yield indices, sentences.tokens(indices)
