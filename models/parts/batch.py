"""Batches of sentence pairs: token ids, their lengths, and what a loss over a part of a batch is multiplied by.

Letters in names: B batch  S source length  T target length  N real (unpadded) tokens
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PAD, BOS, EOS, UNK = 0, 1, 2, 3
"""Token ids that mean the same in every vocabulary: padding, begin of sentence, end of sentence, unknown."""


def sent(from_host: Tensor, device: torch.device) -> Tensor:
    """A copy on the device that the host does not wait for, as it would in torch.tensor(..., device=...)."""
    return from_host.to(device, non_blocking=True)


class Tokens(NamedTuple):
    """Token ids, padded on the right with PAD. The lengths live on the host: no shape waits for the device."""

    ids_BS: Tensor
    lengths_B: tuple[int, ...]

    @property
    def length_B(self) -> Tensor:
        """The lengths, on the device of the ids."""
        return sent(torch.tensor(self.lengths_B, device="cpu"), self.ids_BS.device)

    @property
    def mask_BS(self) -> Tensor:
        """True where a token is real."""
        position_S = torch.arange(self.ids_BS.shape[1], device=self.ids_BS.device)
        return position_S < self.length_B[:, None]

    @property
    def reversal_BS(self) -> Tensor:
        """Indices that reverse each sentence within its own length and leave the padding where it is."""
        position_S = torch.arange(self.ids_BS.shape[1], device=self.ids_BS.device)
        mirrored_BS = self.length_B[:, None] - 1 - position_S
        return torch.where(mirrored_BS >= 0, mirrored_BS, position_S)

    @property
    def real_N(self) -> Tensor:
        """Places of the real tokens in the flattened (B * S) ids, sentence by sentence."""
        position_S = torch.arange(self.ids_BS.shape[1], device="cpu")
        real_BS = position_S < torch.tensor(self.lengths_B, device="cpu")[:, None]  # a device would have to be asked
        return sent(real_BS.flatten().nonzero()[:, 0], self.ids_BS.device)

    @property
    def ids_N(self) -> Tensor:
        """The real tokens, sentence by sentence."""
        return self.ids_BS.flatten().index_select(0, self.real_N)

    def to(self, device: torch.device | str) -> Tokens:
        return Tokens(self.ids_BS.to(device, non_blocking=True), self.lengths_B)


class Block(NamedTuple):
    """What a batch costs: the lengths of its sentences, and the widths that both sides are padded to."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    padded: tuple[int, int]


class Batch(NamedTuple):
    """Sentence pairs. Both sides end in EOS; the target begins with its first word, not with BOS.

    Where several processes train one model, each holds a part of every batch, and their gradients are averaged.
    `share`, (target tokens here) x (processes) / (target tokens of all), is what its mean loss is multiplied
    by, so that the average is the mean over all tokens; `parts` are the blocks of all processes.
    """

    source: Tokens
    target: Tokens
    share: float = 1.0
    parts: tuple[Block, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Of the whole batch, whoever reads it."""
        padded = (self.source.ids_BS.shape[1], self.target.ids_BS.shape[1])
        return self.parts or (Block(self.source.lengths_B, self.target.lengths_B, padded),)

    @property
    def share_of_sentences(self) -> float:
        """What a mean over sentences is multiplied by instead of `share`: that counts sentences, not target tokens."""
        whole, part = [block.targets for block in self.blocks], self.target.lengths_B
        sentences, tokens = sum(map(len, whole)), sum(map(sum, whole))
        return self.share * (len(part) / sentences) * (tokens / sum(part))

    @property
    def prefix(self) -> Tokens:
        """What a decoder has read before it writes each token of the target: BOS, then all but the last."""
        ids_BT = functional.pad(self.target.ids_BS[:, :-1], (1, 0), value=BOS)
        return Tokens(ids_BT, self.target.lengths_B)

    def to(self, device: torch.device | str) -> Batch:
        return self._replace(source=self.source.to(device), target=self.target.to(device))
