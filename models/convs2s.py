"""ConvS2S. Gehring et al. 2017, "Convolutional Sequence to Sequence Learning".

Encoder and decoder are stacks of convolutional blocks with gated linear units; every decoder block attends to the
source (multi-step attention, Figure 1). Position embeddings are learned and added to the words. Every layer except the
embeddings has weight normalization (Salimans and Kingma 2016: w = g v / ||v|| for each output). To preserve variances,
every sum of two signals is multiplied by sqrt(0.5), and the result of attention over m source words by m sqrt(1 / m)
(section 3.4). The gradient of the encoder's layers is divided by 2 x attention layers, as in the released code; in the
paper it is divided by the number of attention layers.

Paper and released code also differ in the stacks: see experiments/convs2s.yaml. From the released code (fairseq's first
fconv), not in the paper: W_c and b_c on the context, projections in residual connections where widths change, sqrt(0.5)
in d_i and in the values, and embeddings of width 768, where the paper has 512 everywhere.

Incremental decoding caches the last K - 1 inputs of each convolution. Whole sentences use the same code, with zeros
before their first word.

Letters: B batch  S source length  T target length  E embedding  D width of a block  K kernel  P past inputs, K - 1
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.parts.attention import AttentionWeights, masked_softmax
from models.parts.batch import Tokens
from models.parts.convolution import prepend_past, windows
from models.parts.dropout import Dropout
from models.parts.flops import NO_FLOPS, Flops, matmul_flops
from models.parts.stack import Stack
from models.parts.translator import State, Step, Translator

HALF = math.sqrt(0.5)


class WeightNormLinear(nn.Linear):
    """W = g v / ||v||, with a length g and a direction v for each output; `weight` is v.

    Initialized with v from N(0, gain / inputs), section 3.5, g = ||v|| and bias 0. Without gradients W is cached until
    v or g changes; otherwise decoding would compute it again for every word.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight, std=math.sqrt(gain / inputs))
        nn.init.zeros_(self.bias)
        self.g = nn.Parameter(self.weight.detach().norm(dim=1, keepdim=True))
        self.cached: tuple[tuple[int, ...], Tensor] | None = None

    def train(self, mode: bool = True) -> WeightNormLinear:
        """Switch the mode; a change discards the cached W, so that measurements of memory can begin without it."""
        self.cached = self.cached if mode == self.training else None
        return super().train(mode)

    def matrix(self) -> Tensor:
        """Return W. The cache also stores the versions of v and g, which show whether W is still valid."""
        v, g = self.weight, self.g
        versions = v._version, g._version, v.data_ptr(), g.data_ptr()
        if self.cached is not None and self.cached[0] == versions and not torch.is_grad_enabled():
            return self.cached[1]
        W = v * (g / v.square().sum(dim=1, keepdim=True).sqrt())
        self.cached = None if W.requires_grad else (versions, W)
        return W

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.matrix(), self.bias)


class Convolution(nn.Module):
    """h_i = GLU(W [x_a; ...; x_{a+K-1}] + b), GLU([A B]) = A * sigma(B); section 3.2. The window of h_i begins at a.

    W is initialized with four times the variance, because the gate halves the standard deviation, multiplied by
    1 - dropout, because dropout increases the variance.
    """

    def __init__(self, inputs: int, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.kernel, self.dropout = kernel, Dropout(dropout)
        self.W = WeightNormLinear(kernel * inputs, 2 * width, 4 * (1 - dropout))
        self.residual = WeightNormLinear(inputs, width) if inputs != width else nn.Identity()

    def gate(self, x_BTD: Tensor) -> Tensor:
        """Return one output for each window that fits into x."""
        return functional.glu(self.W(windows(x_BTD, self.kernel)))

    def flops(self, positions: int) -> Flops:
        inputs, width = self.W.in_features // self.kernel, self.W.out_features // 2
        residual = matmul_flops(positions, inputs, width) if inputs != width else NO_FLOPS
        return matmul_flops(positions, self.kernel * inputs, 2 * width) + residual


class EncoderBlock(Convolution):
    """x' = sqrt(0.5) (h + x); the window is centred at i, a = i - K/2.

    Padding is set to zero before the convolution.
    """

    def forward(self, x_BSD: Tensor, mask_BS1: Tensor) -> Tensor:
        left = (self.kernel - 1) // 2
        inputs_BSD = functional.pad(self.dropout(x_BSD) * mask_BS1, (0, 0, left, self.kernel - 1 - left))
        return (self.gate(inputs_BSD) + self.residual(x_BSD)) * HALF


class Memory(NamedTuple):
    z_BSE: Tensor  # encoder outputs z_j^u, the keys
    values_BSE: Tensor  # sqrt(0.5) (z_j^u + e_j)
    scale_B11: Tensor  # m sqrt(1 / m), m the real length
    mask_BS: Tensor


class DecoderBlock(Convolution):
    """x' = sqrt(0.5) (h~ + x); the window ends at i, a = i - K + 1; h~ adds attention over the source:

    d_i = sqrt(0.5) (W_d h_i + b_d + g_i), g_i the embedding of the previous word; equation 1
    a_ij = softmax_j(d_i . z_j^u)
    c_i = m sqrt(1 / m) sum_j a_ij sqrt(0.5) (z_j^u + e_j); equation 2
    h~_i = sqrt(0.5) (h_i + W_c c_i + b_c)
    """

    def __init__(self, inputs: int, width: int, kernel: int, dropout: float, embedding: int) -> None:
        super().__init__(inputs, width, kernel, dropout)
        self.W_d = WeightNormLinear(width, embedding)
        self.W_c = WeightNormLinear(embedding, width)
        self.weights = AttentionWeights()

    def forward(self, x_BTD: Tensor, g_BTE: Tensor, memory: Memory, past_BPD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x' of every position, the next past_BPD, weights_BTS)."""
        inputs_BTD, past_BPD = prepend_past(past_BPD, self.dropout(x_BTD))
        h_BTD = self.gate(inputs_BTD)
        d_BTE = (self.W_d(h_BTD) + g_BTE) * HALF
        scores_BTS = torch.bmm(d_BTE, memory.z_BSE.transpose(1, 2))
        weights_BTS = self.weights(masked_softmax(scores_BTS, memory.mask_BS[:, None]))
        c_BTE = torch.bmm(weights_BTS, memory.values_BSE) * memory.scale_B11
        h_BTD = (self.W_c(c_BTE) + h_BTD) * HALF
        return (h_BTD + self.residual(x_BTD)) * HALF, past_BPD, weights_BTS

    def flops_attention(self, queries: int, keys: int) -> Flops:
        width, embedding = self.W_d.in_features, self.W_d.out_features
        return (matmul_flops(queries, width, embedding) + matmul_flops(queries, embedding, keys)) * 2


@dataclass
class Config:
    """Sizes of a ConvS2S; the defaults are the paper's for English to German, but for embeddings and dropout.

    Attributes:
        stack: Blocks of the encoder, and of the decoder, from the bottom: [number of blocks, width, kernel] each.
        embedding: Width of a word, and of the queries and keys of attention (released code; the paper has 512).
        out: Width of the layer between decoder and softmax.
        positions: Number of learned positions; all later positions use the last one.
        dropout: Rate on embeddings, before every convolution and before the softmax (0.2 from memory).
    """

    stack: list[tuple[int, int, int]] = field(default_factory=lambda: [(10, 512, 3), (3, 768, 3), (2, 2048, 1)])
    embedding: int = 768
    out: int = 512
    positions: int = 1024
    dropout: float = 0.2

    @property
    def blocks(self) -> list[tuple[int, int, int]]:
        """(width of the input, width, kernel) of each block; the first block's input is as wide as its output."""
        outputs = [(width, kernel) for times, width, kernel in self.stack for _ in range(times)]
        input_widths = [outputs[0][0], *(width for width, _ in outputs)]
        return [(inputs, width, kernel) for inputs, (width, kernel) in zip(input_widths, outputs, strict=False)]


class Embedding(nn.Module):
    """e_j = w_j + p_j, word plus position; section 3.1. Both tables are initialized with N(0, 0.1^2)."""

    def __init__(self, vocabulary: int, config: Config) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, config.embedding)
        self.positions = nn.Embedding(config.positions, config.embedding)
        self.dropout = Dropout(config.dropout)
        for table in (self.words, self.positions):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, ids_BT: Tensor, begin_B: Tensor) -> Tensor:
        """Return e_BTE; `begin_B` is the position of the first word, counted from 0."""
        position_BT = begin_B[:, None] + torch.arange(ids_BT.shape[1], device=ids_BT.device)
        p_BTE = self.positions(position_BT.clamp(max=self.positions.num_embeddings - 1))
        return self.dropout(self.words(ids_BT) + p_BTE)


class Past(NamedTuple):
    position_B: Tensor
    inputs: tuple[Tensor, ...]  # past_BPD of each block


class Model(Translator):
    """ConvS2S: convolutional encoder and decoder, with attention in every decoder block."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        gain, first, last = 1 - config.dropout, config.blocks[0][0], config.blocks[-1][1]
        self.source_embedding = Embedding(source_vocabulary, config)
        self.target_embedding = Embedding(target_vocabulary, config)
        self.encoder_in = WeightNormLinear(config.embedding, first, gain)
        self.decoder_in = WeightNormLinear(config.embedding, first, gain)
        self.encoder = Stack[EncoderBlock](EncoderBlock(*block, config.dropout) for block in config.blocks)
        self.decoder = Stack[DecoderBlock](
            DecoderBlock(*block, config.dropout, config.embedding) for block in config.blocks
        )
        self.encoder_out = WeightNormLinear(last, config.embedding)
        self.decoder_out = WeightNormLinear(last, config.out)
        self.dropout = Dropout(config.dropout)
        self.output = WeightNormLinear(config.out, target_vocabulary, gain)

    def encode(self, source: Tokens) -> Memory:
        mask_BS = source.mask_BS
        e_BSE = self.source_embedding(source.ids_BS, torch.zeros_like(source.ids_BS[:, 0]))
        x_BSD = self.encoder_in(e_BSE)
        for block in self.encoder:
            x_BSD = block(x_BSD, mask_BS[..., None])
        z_BSE = self.encoder_out(x_BSD)
        if z_BSE.requires_grad:  # the gradient of e_j is not divided: section 3.4 excludes the source embeddings
            z_BSE.register_hook(lambda gradient: gradient / (2 * len(self.decoder)))
        m_B = source.length_B.to(e_BSE.dtype)
        return Memory(z_BSE, (z_BSE + e_BSE) * HALF, m_B.sqrt()[:, None, None], mask_BS)

    def decode(self, memory: Memory, target: Tokens) -> Tensor:
        return self.advance(target.ids_BS, self.start(memory))[0]

    def start(self, memory: Memory) -> State:
        """Return the state at position 0, with zeros as the past inputs of every convolution."""
        sentences = len(memory.z_BSE)
        inputs = tuple(memory.z_BSE.new_zeros(sentences, kernel - 1, width) for width, _, kernel in self.config.blocks)
        position_B = torch.zeros(sentences, dtype=torch.long, device=memory.z_BSE.device)
        return State(memory, Past(position_B, inputs))

    def step(self, previous_B: Tensor, state: State) -> Step:
        hidden_B1D, past, attention_BS = self.advance(previous_B[:, None], state)
        return Step(hidden_B1D[:, 0], State(state.source, past), attention_BS)

    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, Past, Tensor]:
        """Return (input of the softmax, past after the last position, attention_BS at the last position).

        The attention is the mean over the blocks.
        """
        memory, (position_B, inputs) = state
        g_BTE = self.target_embedding(ids_BT, position_B)
        x_BTD, new_inputs, attention = self.decoder_in(g_BTE), [], []
        for block, past_BPD in zip(self.decoder, inputs, strict=True):
            x_BTD, past_BPD, weights_BTS = block(x_BTD, g_BTE, memory, past_BPD)
            new_inputs.append(past_BPD)
            attention.append(weights_BTS[:, -1])
        past = Past(position_B + ids_BT.shape[1], tuple(new_inputs))
        return self.dropout(self.decoder_out(x_BTD)), past, torch.stack(attention).mean(dim=0)

    def flops_encode(self, source_length: int) -> Flops:
        ends = (self.config.blocks[0][0] + self.config.blocks[-1][1]) * source_length
        return sum((block.flops(source_length) for block in self.encoder), matmul_flops(1, self.config.embedding, ends))

    def flops_step(self, source_length: int, position: int) -> Flops:
        blocks = sum((block.flops(1) + block.flops_attention(1, source_length) for block in self.decoder), NO_FLOPS)
        ends = self.decoder_in, self.decoder_out
        return sum((matmul_flops(1, layer.in_features, layer.out_features) for layer in ends), blocks)
