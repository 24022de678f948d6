"""Perceptron as a translator. Rosenblatt 1958, "The perceptron: a probabilistic model for information storage".

Figure 1 of the paper: sensory units S are connected to association units A by fixed random connections; an A-unit fires
when the sum of its inputs reaches a threshold; only the connections from A-units to responses R are trained. Here the
sensory units are words, and the response is the next target word.

At target position t the perceptron sees the source words at t-2 ... t+2 (PAD outside the sentence), the mean of the
source, and the last two target words. There are two differences from the paper, without which it could not be trained
like the other rows: the responses are the classes of a softmax instead of separate units, and they are trained by its
gradient instead of by error correction.

Letters: B batch  S source length  T target length  W window slots  P padded source  A association units  V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.parts.batch import PAD, Tokens
from models.parts.flops import NO_FLOPS, Flops, matmul_flops
from models.parts.translator import State, Step, Translator
from models.parts.window import RECENT, SLOTS, first_past, padded_source, source_index


class Association(nn.Module):
    """a = [sum over slots k of E_k[word in slot k] + mean over the source of E_mean >= theta].

    The random connections E depend on their seed only, so checkpoints do not store them.
    """

    source_WVA: Tensor
    mean_VA: Tensor
    target_WVA: Tensor

    def __init__(self, units: int, threshold: float, seed: int, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.threshold = threshold
        generator = torch.Generator().manual_seed(seed)

        def connections(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.register_buffer("source_WVA", connections(SLOTS, source_vocabulary, units), persistent=False)
        self.register_buffer("mean_VA", connections(source_vocabulary, units), persistent=False)
        self.register_buffer("target_WVA", connections(RECENT, target_vocabulary, units), persistent=False)

    def mean(self, source: Tokens) -> Tensor:
        """Return mean_BA of the sources."""
        drawn_BSA = functional.embedding(source.ids_BS, self.mean_VA)
        return (drawn_BSA * source.mask_BS[..., None]).sum(dim=1) / source.length_B[:, None]

    def forward(self, source_ids_BTW: Tensor, mean_BTA: Tensor, target_ids_BTW: Tensor) -> Tensor:
        """Return fired_BTA: 1 for the units that fire, 0 for the others."""
        sum_BTA = mean_BTA
        for ids_BTW, table_WVA in ((source_ids_BTW, self.source_WVA), (target_ids_BTW, self.target_WVA)):
            for slot, table_VA in enumerate(table_WVA):
                sum_BTA = sum_BTA + functional.embedding(ids_BTW[..., slot], table_VA)
        return (sum_BTA >= self.threshold).to(sum_BTA.dtype)


@dataclass
class Config:
    """Sizes of a perceptron.

    Attributes:
        units: Association units.
        threshold: Sum at which a unit fires (theta). One connection has standard deviation 1, the sum of a unit 2.7.
        connections_seed: Seed of the random connections. They are part of the architecture, not of a job's seed.
    """

    units: int = 2048
    threshold: float = 0.0
    connections_seed: int = 1958


class Memory(NamedTuple):
    ids_BP: Tensor  # the padded source
    mean_BA: Tensor


class Model(Translator):
    """softmax(W a + b) of the association units a; W and b are the only trained parameters."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.association = Association(
            config.units, config.threshold, config.connections_seed, source_vocabulary, target_vocabulary
        )
        self.output = nn.Linear(config.units, target_vocabulary)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def encode(self, source: Tokens) -> Memory:
        return Memory(padded_source(source.ids_BS), self.association.mean(source))

    def decode(self, memory: Memory, target: Tokens) -> Tensor:
        position_T = torch.arange(target.ids_BS.shape[1], device=target.ids_BS.device)
        index_TW = source_index(position_T, memory.ids_BP.shape[1])
        recent_ids_BTW = functional.pad(target.ids_BS, (RECENT - 1, 0), value=PAD).unfold(1, RECENT, 1)
        return self.association(memory.ids_BP[:, index_TW], memory.mean_BA[:, None], recent_ids_BTW)

    def start(self, memory: Memory) -> State:
        return State(memory, first_past(memory.ids_BP))

    def step(self, previous_B: Tensor, state: State) -> Step:
        (ids_BP, mean_BA), (position_B, before_B) = state.source, state.past
        source_ids_BW = ids_BP.gather(1, source_index(position_B, ids_BP.shape[1]))
        hidden_BA = self.association(source_ids_BW, mean_BA, torch.stack((before_B, previous_B), dim=-1))
        return Step(hidden_BA, State(state.source, (position_B + 1, previous_B)), None)

    # Random connections are looked up and added, which costs no FLOPs. The trained layer's input needs no gradient.

    def flops_encode(self, source_length: int) -> Flops:
        return NO_FLOPS

    def flops_step(self, source_length: int, position: int) -> Flops:
        return NO_FLOPS

    def flops_project(self) -> Flops:
        return matmul_flops(1, self.output.in_features, self.output.out_features, input_gradient=False)
