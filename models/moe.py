"""MoE. Shazeer et al. 2017, "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer".

The architecture follows appendix E: a smaller GNMT with 3 + 2 LSTM layers with projections, all with the same output
width; a mixture-of-experts layer between layers 2 and 3 of the encoder and between layers 1 and 2 of the decoder; a
residual connection around every LSTM and mixture layer; a sigmoid on the output of every mixture layer. The mixture
layer itself, with its gates and losses, is models/parts/mixture_of_experts.py.

GNMT's encoder has 9 layers if its lowest, bidirectional layer counts as two, and 3 of the 9 remain. So here layer 1
reads the words forwards, layer 2 reads them backwards, and their outputs are added to the words. As in appendix E, only
the lower decoder layer reads the context. An encoder and a decoder step with the softmax then have the published 85M
multiply-adds.

Ours, where the paper is silent: no biases; 64 groups, one for each device as in its language models; the initial
weights; the decoder begins with zeros; the query of the attention is the lower layer's output without the residual.

Letters: B batch  S source length  T target length  D width  C cells of an LSTM  N real tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.parts.attention import FactoredAttention, weighted_sum
from models.parts.batch import Tokens
from models.parts.dropout import Dropout
from models.parts.flops import Flops, matmul_flops
from models.parts.mixture_of_experts import MixtureOfExperts
from models.parts.recurrent import FusedLSTM, both_directions, lstm_update
from models.parts.stack import Stack
from models.parts.translator import Routing, State, Step, Translator


@dataclass
class Config:
    """Sizes of an MoE translator; the defaults are the paper's largest model (2048 experts).

    Attributes:
        width: Width of embeddings, of the input and output of every layer, and of the attention.
        cells: Cells of an LSTM, projected to the width.
        inner: Inner width of an expert.
        experts: Experts of each of the two mixture layers.
        groups: Groups of experts, for hierarchical gating; 0: flat.
        k: Experts per token; with groups: groups per token, and experts per token in each of these groups.
        gating: noisy (noisy top-k) or balanced (strictly balanced over a batch).
        importance_weight: Weight of the loss of uneven importance (w_importance).
        load_weight: Weight of the loss of uneven load (w_load). Without effect for balanced gates, whose load is even.
        dropout: Rate on embeddings and on the output of each layer.
        initial: Initial weights are uniform between minus and plus this (noisy gates 0); narrow nets need a larger one.
    """

    width: int = 512
    cells: int = 2048
    inner: int = 2048
    experts: int = 2048
    groups: int = 64
    k: int = 2
    gating: Literal["noisy", "balanced"] = "balanced"
    importance_weight: float = 0.01
    load_weight: float = 0.01
    dropout: float = 0.4
    initial: float = 0.05

    def __post_init__(self) -> None:
        if self.groups and self.experts % self.groups:
            raise ValueError(
                f"model.experts: {self.experts} is not divisible by model.groups ({self.groups}); expected a multiple. "
                "Change one of the two."
            )
        choices = min(self.groups, self.experts // self.groups) if self.groups else self.experts
        if not 0 < self.k < choices:
            raise ValueError(
                f"model.k: {self.k} experts per token; expected at least 1 and fewer than {choices}, the smallest "
                "number that a gate selects from. Change model.k, model.experts or model.groups."
            )


class Memory(NamedTuple):
    x_BSD: Tensor
    keys_BSD: Tensor
    mask_BS: Tensor


class Past(NamedTuple):
    lower_h_BD: Tensor
    lower_c_BC: Tensor
    upper_h_BD: Tensor
    upper_c_BC: Tensor


class Model(Translator):
    """The translator of appendix E."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        width, cells = config.width, config.cells
        self.source_embedding = nn.Embedding(source_vocabulary, width)
        self.target_embedding = nn.Embedding(target_vocabulary, width)
        self.encoder = Stack[FusedLSTM](FusedLSTM(width, cells, width) for _ in range(3))
        self.encoder_mixture = self.create_mixture()
        self.W_y = nn.Linear(width, 4 * cells, bias=False)
        self.W_lower = nn.Linear(2 * width, 4 * cells, bias=False)  # reads context and state
        self.P = nn.Linear(cells, width, bias=False)
        self.attention = FactoredAttention(width)
        self.decoder_mixture = self.create_mixture()
        self.upper = FusedLSTM(width, cells, width)
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(width, target_vocabulary, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -config.initial, config.initial)
        self.mixtures = (self.encoder_mixture, self.decoder_mixture)
        for mixture in self.mixtures:
            mixture.gate.initialize(config.initial)

    def create_mixture(self) -> MixtureOfExperts:
        """Return one of the two mixture layers, which have the same sizes."""
        config = self.config
        return MixtureOfExperts(
            width=config.width,
            inner=config.inner,
            experts=config.experts,
            groups=config.groups,
            k=config.k,
            gating=config.gating,
            importance_weight=config.importance_weight,
            load_weight=config.load_weight,
            dropout=config.dropout,
        )

    def multiplied_parameters(self) -> int:
        """Return the parameters that a token is multiplied with: of a mixture, its gates and the chosen experts."""
        idle = 0
        for mixture in self.mixtures:
            used = mixture.flops().forward // 2
            idle += sum(parameter.numel() for parameter in mixture.parameters()) - used
        return super().multiplied_parameters() - idle

    def auxiliary_loss(self) -> Tensor | None:
        losses = [mixture.loss for mixture in self.mixtures if mixture.loss is not None]
        for mixture in self.mixtures:
            mixture.loss = None
        return torch.stack(losses).sum() if losses else None

    def is_repeatable(self, *, training: bool) -> bool:
        """Return False: how many tokens each expert computes depends on the batch and is read back to the host."""
        return False

    def set_routing(self, routing: Routing) -> None:
        for mixture in self.mixtures:
            mixture.set_routing(routing)

    def pop_routing_statistics(self) -> dict[str, float]:
        tokens = sum(mixture.evaluated_tokens for mixture in self.mixtures)
        pairs = sum(mixture.evaluated_pairs for mixture in self.mixtures)
        for mixture in self.mixtures:
            mixture.evaluated_tokens = mixture.evaluated_pairs = 0
        return {"experts_per_token": pairs / tokens} if tokens else {}

    def zero_states(self, sentences: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first h_BD and c_BC of an LSTM."""
        h_BD, c_BC = (self.initial_state(sentences, n, like=like) for n in (self.config.width, self.config.cells))
        return h_BD, c_BC

    def encode(self, source: Tokens) -> Memory:
        first, second, third = self.encoder
        x_BSD = self.dropout(self.source_embedding(source.ids_BS))
        h_BD, c_BC = self.zero_states(len(x_BSD), x_BSD)
        states = (h_BD[None], c_BC[None])
        forward_BSD, backward_BSD = both_directions(first, second, x_BSD, source.reversal_BS, states)
        x_BSD = x_BSD + self.dropout(forward_BSD) + self.dropout(backward_BSD)
        x_BSD = self.encoder_mixture(x_BSD, source.real_index_N)
        x_BSD = x_BSD + self.dropout(third(x_BSD, states)[0])
        return Memory(x_BSD, self.attention.keys(x_BSD), source.mask_BS)

    def initial_past(self, memory: Memory) -> Past:
        return Past(*self.zero_states(len(memory.x_BSD), memory.x_BSD) * 2)

    def decode(self, memory: Memory, target: Tokens) -> Tensor:
        y_BTD = self.dropout(self.target_embedding(target.ids_BS))
        return self.advance(y_BTD, memory, self.initial_past(memory), target.real_index_N)[0]

    def start(self, memory: Memory) -> State:
        return State(memory, self.initial_past(memory))

    def step(self, previous_B: Tensor, state: State) -> Step:
        y_B1D = self.dropout(self.target_embedding(previous_B[:, None]))
        every_sentence_B = torch.arange(len(previous_B), device=previous_B.device)
        x_B1D, past, weights_BS = self.advance(y_B1D, *state, every_sentence_B)
        return Step(x_B1D[:, 0], State(state.source, past), weights_BS)

    def advance(self, y_BTD: Tensor, memory: Memory, past: Past, real_index_N: Tensor) -> tuple[Tensor, Past, Tensor]:
        """Return (x_BTD of the top layer, the past after the last position, weights_BS at the last position)."""
        h_BD, c_BC, outputs, attention = past.lower_h_BD, past.lower_c_BC, [], []
        for from_y_B4C in self.W_y(y_BTD).unbind(dim=1):
            attention.append(self.attention(h_BD, memory.keys_BSD, memory.mask_BS))
            context_BD = weighted_sum(attention[-1], memory.x_BSD)
            o_BC, c_BC = lstm_update(from_y_B4C + self.W_lower(torch.cat((context_BD, h_BD), dim=1)), c_BC)
            h_BD = self.P(o_BC)
            outputs.append(h_BD)
        x_BTD = self.decoder_mixture(y_BTD + self.dropout(torch.stack(outputs, dim=1)), real_index_N)
        upper_BTD, (h_1BD, c_1BC) = self.upper(x_BTD, (past.upper_h_BD[None], past.upper_c_BC[None]))
        return x_BTD + self.dropout(upper_BTD), Past(h_BD, c_BC, h_1BD[0], c_1BC[0]), attention[-1]

    def flops_layer(self, inputs: int) -> Flops:
        """Return the FLOPs of an LSTM layer at one position: four gates read input and state, P reads the cells."""
        width, cells = self.config.width, self.config.cells
        return matmul_flops(1, inputs + width, 4 * cells) + matmul_flops(1, cells, width)

    def flops_encode(self, source_length: int) -> Flops:
        position = self.flops_layer(self.config.width) * 3 + self.encoder_mixture.flops()
        return position * source_length + self.attention.flops_keys(source_length)

    def flops_skipped_at_padding(self) -> tuple[Flops, Flops]:
        return self.encoder_mixture.flops(), self.decoder_mixture.flops()

    def flops_step(self, source_length: int, position: int) -> Flops:
        """Return the FLOPs of attention, lower layer (reads word and context), mixture and upper layer."""
        width = self.config.width
        attention = self.attention.flops_scores(source_length) + matmul_flops(1, source_length, width)
        layers = self.flops_layer(2 * width) + self.flops_layer(width)
        return attention + layers + self.decoder_mixture.flops()
