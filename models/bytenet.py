"""ByteNet. Kalchbrenner et al. 2016, "Neural Machine Translation in Linear Time", the translation model (Figure 1).

It translates characters to characters in time linear in their number. A stack of dilated convolutions reads the source.
A second stack, with causal convolutions, is placed on top of it, position by position. There is no attention and no
pooling: target position t reads the encoder's output at position t. The encoder's output therefore has its own length,
the unfolded length |t^| = a |s| + b with a = 1.20 and b = 0 (dynamic unfolding, equation 2); the source is filled with
the padding character up to this length. A hypothesis that becomes longer than |t^| reads zeros there and continues from
its own past. Lengths include the end of sentence.

The dilation doubles from 1 to 16 and then starts at 1 again: five blocks of kernel 3 see 1 + 2 (1 + 2 + 4 + 8 + 16) =
63 positions. The padding of a batch, beyond |t^|, is set to zero before every convolution. The paper fills sentences up
to multiples of 50 characters before unfolding, for batches of equal lengths; here sentences are not filled
(DECISIONS.md, 2026-11-26).

From memory, not checked against the paper: that the decoder adds the encoder's output to the embedding of the previous
character. A likely deviation: the last block is followed by layer norm, ReLU and the softmax here; in implementations
by others that quote the paper, by a convolution of kernel 1, ReLU, a second such convolution and the softmax.
Initial weights are PyTorch's defaults (ours).

Letters: B batch  S source length  U unfolded length  T target length  D width of a block (d); the stream has 2 D
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.parts.batch import PAD, Tokens
from models.parts.convolution import prepend_past, windows
from models.parts.dropout import Dropout
from models.parts.flops import NO_FLOPS, Flops, matmul_flops
from models.parts.stack import Stack
from models.parts.translator import State, Step, Translator


class Block(nn.Module):
    """x' = x + W_3 relu(LN(W_2 * relu(LN(W_1 relu(LN(x)))))), 2d -> d -> d -> 2d; Figure 3, left.

    W_2 * is the convolution of width k with dilation r, the others are 1 x 1. `context` is (k - 1) r.
    """

    def __init__(self, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.width, self.kernel, self.dilation, self.context = width, kernel, dilation, (kernel - 1) * dilation
        self.narrow = nn.Sequential(nn.LayerNorm(2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.norm = nn.LayerNorm(width)
        self.convolve = nn.Linear(kernel * width, width)
        self.widen = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 2 * width), Dropout(dropout))

    def inputs(self, x_BT2D: Tensor) -> Tensor:
        """Return the input of the convolution."""
        return functional.relu(self.norm(self.narrow(x_BT2D)))

    def convolved(self, inputs_BTD: Tensor, x_BT2D: Tensor) -> Tensor:
        """Return x', with one position for each window that fits into the inputs."""
        return x_BT2D + self.widen(self.convolve(windows(inputs_BTD, self.kernel, self.dilation)))

    def flops(self, positions: int) -> Flops:
        return matmul_flops(positions, self.width, (2 + self.kernel + 2) * self.width)


class EncoderBlock(Block):
    """A block with centred windows."""

    def forward(self, x_BU2D: Tensor, mask_BU1: Tensor) -> Tensor:
        left = self.context // 2
        inputs_BUD = functional.pad(self.inputs(x_BU2D) * mask_BU1, (0, 0, left, self.context - left))
        return self.convolved(inputs_BUD, x_BU2D)


class DecoderBlock(Block):
    """A causal block: no window contains a later position. `past_BPD` holds the (k - 1) r inputs before the first."""

    def forward(self, x_BT2D: Tensor, past_BPD: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x', the next past_BPD)."""
        inputs_BTD, past_BPD = prepend_past(past_BPD, self.inputs(x_BT2D))
        return self.convolved(inputs_BTD, x_BT2D), past_BPD


@dataclass
class Config:
    """Sizes of a ByteNet; the defaults are the paper's.

    Attributes:
        blocks: Residual blocks of the encoder, and of the decoder.
        width: Width inside a block (d); the stream between blocks has 2 d.
        kernel: Width of the convolutions (k).
        dilations: Dilations of the blocks (r), repeated in this order.
        unfold: Unfolded length divided by source length (a).
        dropout: Rate on embeddings and on the residual branch of a block (none in the paper).
    """

    blocks: int = 30
    width: int = 800
    kernel: int = 3
    dilations: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    unfold: float = 1.2
    dropout: float = 0.0


class Past(NamedTuple):
    position_B: Tensor
    inputs: tuple[Tensor, ...]  # past_BPD of each block


class Model(Translator):
    """ByteNet. The memory is the encoder's output, with zeros beyond the unfolded length of a sentence."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        width, dilations = config.width, [config.dilations[i % len(config.dilations)] for i in range(config.blocks)]
        self.source_embedding = nn.Embedding(source_vocabulary, 2 * width)
        self.target_embedding = nn.Embedding(target_vocabulary, 2 * width)
        self.dropout = Dropout(config.dropout)
        self.encoder = Stack[EncoderBlock](
            EncoderBlock(width, config.kernel, dilation, config.dropout) for dilation in dilations
        )
        self.decoder = Stack[DecoderBlock](
            DecoderBlock(width, config.kernel, dilation, config.dropout) for dilation in dilations
        )
        self.norm = nn.LayerNorm(2 * width)
        self.output = nn.Linear(2 * width, target_vocabulary)

    def unfolded(self, length: int) -> int:
        """Return |t^| for a source of this length, rounded up.

        The margin of 1e-6 keeps 1.2 x 5 at 6: in binary floating point the product is slightly larger.
        """
        return max(length, math.ceil(self.config.unfold * length - 1e-6))

    def encode(self, source: Tokens) -> Tensor:
        longest, length_B = source.ids_BS.shape[1], source.length_B
        unfolded_B = torch.maximum(length_B, (self.config.unfold * length_B.double() - 1e-6).ceil())  # as `unfolded`
        ids_BU = functional.pad(source.ids_BS, (0, self.unfolded(longest) - longest), value=PAD)
        mask_BU1 = (torch.arange(ids_BU.shape[1], device=ids_BU.device) < unfolded_B[:, None])[..., None]
        x_BU2D = self.dropout(self.source_embedding(ids_BU))
        for block in self.encoder:
            x_BU2D = block(x_BU2D, mask_BU1)
        return x_BU2D * mask_BU1

    def decode(self, memory: Tensor, target: Tokens) -> Tensor:
        return self.advance(target.ids_BS, self.start(memory))[0]

    def start(self, memory: Tensor) -> State:
        """Return the first state: zeros before every convolution.

        The memory gets one more position of zeros, which all target positions past its end read.
        """
        position_B = torch.zeros(len(memory), dtype=torch.long, device=memory.device)
        inputs = tuple(memory.new_zeros(len(memory), block.context, block.width) for block in self.decoder)
        return State(functional.pad(memory, (0, 0, 0, 1)), Past(position_B, inputs))

    def step(self, previous_B: Tensor, state: State) -> Step:
        hidden_B12D, past = self.advance(previous_B[:, None], state)
        return Step(hidden_B12D[:, 0], State(state.source, past), None)

    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, Past]:
        """Return (the input of the softmax at each position, the past after the last position)."""
        memory_BU2D, (position_B, inputs) = state
        position_BT = position_B[:, None] + torch.arange(ids_BT.shape[1], device=ids_BT.device)
        _, length, width = memory_BU2D.shape
        source_BT2D = memory_BU2D.gather(1, position_BT.clamp(max=length - 1)[..., None].expand(-1, -1, width))
        x_BT2D, new_inputs = self.dropout(self.target_embedding(ids_BT)) + source_BT2D, []
        for block, past_BPD in zip(self.decoder, inputs, strict=True):
            x_BT2D, past_BPD = block(x_BT2D, past_BPD)
            new_inputs.append(past_BPD)
        past = Past(position_B + ids_BT.shape[1], tuple(new_inputs))
        return functional.relu(self.norm(x_BT2D)), past

    def flops_encode(self, source_length: int) -> Flops:
        """Return the FLOPs of the encoder at every unfolded position."""
        return sum((block.flops(self.unfolded(source_length)) for block in self.encoder), NO_FLOPS)

    def flops_step(self, source_length: int, position: int) -> Flops:
        return sum((block.flops(1) for block in self.decoder), NO_FLOPS)
