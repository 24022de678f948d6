"""Batches of sentence pairs: token ids, sentence lengths, and the weight of a process's loss in distributed training.

Letters in names: B batch  S source length  T target length  N real (unpadded) tokens
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PAD, BOS, EOS, UNK = 0, 1, 2, 3
"""Token ids with the same meaning in every vocabulary: padding, begin of sentence, end of sentence, unknown word."""


def copy_to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor to a device. The host does not wait for a GPU, not even if the tensor is large.

    A copy from pageable memory may wait until the GPU has done all earlier work, and torch.tensor(..., device=...)
    always does.
    """
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Tokens(NamedTuple):
    """Token ids of several sentences, padded on the right with PAD; no word has this id.

    The lengths are stored on the host, so that no shape has to be read back from the device. What a model needs of them
    it computes from the ids, on the device. So its work depends on nothing but the ids and their shape, and a GPU can
    record and repeat it (bench/training/recorded_updates.py).
    """

    ids_BS: Tensor
    lengths_B: tuple[int, ...]

    @property
    def length_B(self) -> Tensor:
        """The lengths, computed from the ids, on their device."""
        return self.mask_BS.sum(dim=1)

    @property
    def mask_BS(self) -> Tensor:
        """True at real tokens, False at padding."""
        return self.ids_BS != PAD

    @property
    def reversal_BS(self) -> Tensor:
        """Indices that reverse each sentence within its own length and leave the padding in place."""
        position_S = torch.arange(self.ids_BS.shape[1], device=self.ids_BS.device)
        mirrored_BS = self.length_B[:, None] - 1 - position_S
        return torch.where(mirrored_BS >= 0, mirrored_BS, position_S)

    @property
    def real_index_N(self) -> Tensor:
        """Indices of the real tokens in the flattened (B * S) ids, sentence by sentence."""
        position_S = torch.arange(self.ids_BS.shape[1], device="cpu")
        # On the host: `nonzero` on a device would make the host wait for the number of real tokens.
        real_BS = position_S < torch.tensor(self.lengths_B, device="cpu")[:, None]
        return copy_to_device(real_BS.flatten().nonzero()[:, 0], self.ids_BS.device)

    @property
    def ids_N(self) -> Tensor:
        """Ids of the real tokens, sentence by sentence."""
        return self.ids_BS.flatten().index_select(0, self.real_index_N)

    def padded(self, multiple: int, longest: int | None = None) -> Tokens:
        """Return the sentences with padding up to a multiple of positions, but not beyond `longest`."""
        length = self.ids_BS.shape[1]
        wanted = -(-length // multiple) * multiple
        missing = (wanted if longest is None else min(longest, wanted)) - length
        return self._replace(ids_BS=functional.pad(self.ids_BS, (0, missing), value=PAD)) if missing else self

    def to(self, device: torch.device | str) -> Tokens:
        return Tokens(copy_to_device(self.ids_BS, device), self.lengths_B)


class BatchShape(NamedTuple):
    """What the cost of a batch depends on: the lengths of its sentences, and the (source, target) padded lengths."""

    source_lengths: tuple[int, ...]
    target_lengths: tuple[int, ...]
    padded_lengths: tuple[int, int]


class Batch(NamedTuple):
    """Sentence pairs. Both sides end in EOS; the target begins with its first word, not with BOS.

    Attributes:
        source: Source sentences.
        target: Target sentences.
        loss_weight: Factor of the mean loss over target tokens. In distributed training each process holds a part of
            every batch and gradients are averaged over processes. With the factor (target tokens of this process) x
            (processes) / (target tokens of all processes) this average equals the mean over all tokens. A part that
            `split` returns has the factor of the batch, times its share of the batch's target tokens.
        process_shapes: The shapes of the parts of all processes; empty if this is the whole batch. A part that `split`
            returns has the shapes of its batch.
    """

    source: Tokens
    target: Tokens
    loss_weight: float = 1.0
    process_shapes: tuple[BatchShape, ...] = ()

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        """The shapes of all parts of the whole batch, one for each process."""
        padded_lengths = (self.source.ids_BS.shape[1], self.target.ids_BS.shape[1])
        return self.process_shapes or (BatchShape(self.source.lengths_B, self.target.lengths_B, padded_lengths),)

    @property
    def sentence_loss_weight(self) -> float:
        """Factor of a mean loss over sentences: like `loss_weight`, with sentences counted instead of target tokens."""
        lengths_of_all, lengths_here = [shape.target_lengths for shape in self.shapes], self.target.lengths_B
        sentences, tokens = sum(map(len, lengths_of_all)), sum(map(sum, lengths_of_all))
        return self.loss_weight * (len(lengths_here) / sentences) * (tokens / sum(lengths_here))

    @property
    def prefix(self) -> Tokens:
        """The decoder's input at each target position: BOS, then all target tokens but EOS."""
        ids_BT = functional.pad(self.target.ids_BS[:, :-1], (1, 0), value=BOS)
        return Tokens(ids_BT.masked_fill(self.target.ids_BS == PAD, PAD), self.target.lengths_B)

    def padded(self, multiple: int) -> Batch:
        """Return the batch with its shorter side padded to a multiple, but not beyond the longer side."""
        longest = max(self.source.ids_BS.shape[1], self.target.ids_BS.shape[1])
        source, target = (side.padded(multiple, longest) for side in (self.source, self.target))
        return self._replace(source=source, target=target)

    def split(self, count: int) -> list[Batch]:
        """Return `count` parts with about as many sentence pairs each; one part for each pair if there are fewer.

        The parts keep the padding, so together they cost what the whole batch costs. Their weighted losses sum to its
        weighted loss.
        """
        pairs, tokens = len(self.target.lengths_B), sum(self.target.lengths_B)
        count = min(count, pairs)
        bounds = [pairs * number // count for number in range(count + 1)]
        parts = []
        for rows in map(slice, bounds, bounds[1:]):
            source, target = (Tokens(side.ids_BS[rows], side.lengths_B[rows]) for side in (self.source, self.target))
            loss_weight = self.loss_weight * sum(target.lengths_B) / tokens
            parts.append(Batch(source, target, loss_weight, self.shapes))
        return parts

    def to(self, device: torch.device | str) -> Batch:
        return self._replace(source=self.source.to(device), target=self.target.to(device))
