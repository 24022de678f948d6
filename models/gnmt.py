"""GNMT. Wu et al. 2016, "Google's Neural Machine Translation System: Bridging the Gap between Human and Machine
Translation".

The architecture follows Figures 1 to 3: an encoder of LSTM layers, the lowest of which reads in both directions; a
decoder with as many LSTM layers; residual connections from the third layer up in both. With m^l_t for the output of
layer l at step t:

x^l_t = m^l_t for the first two layers,  x^l_t = m^l_t + x^{l-1}_t from the third (equation 6)

Every decoder layer reads the context a_t together with x^{l-1}_t. The query of the attention is the output of the
lowest decoder layer at the previous step, d_{t-1}, so that only this layer has the attention inside its recurrence
(equation 4):

e_t,s = v_a^T tanh(W_a d_{t-1} + U_a x_s),  p_t = softmax(e_t),  a_t = sum_s p_t,s x_s

So the lowest layer is unrolled. All other layers are plain recurrences over the layer below and a_t, and run on fused
kernels.

Ours, because the paper does not say: encoder and decoder begin with zeros (the decoder not with the encoder's states);
forget gates begin without an offset (many LSTMs add 1); no biases, because the equations print none. The paper does not
give the width of the attention's hidden layer either; here it is the width of the states, as in the released
re-implementations (in these, however, the query is from the same step: "gnmt_v2", another architecture). From memory:
1024 units.

Not implemented: quantization clipping. Length penalty, coverage penalty and beam pruning belong to the search.

Letters: B batch  S source length  T target length  L layers above the lowest  D width
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.parts.attention import AdditiveAttention, weighted_sum
from models.parts.batch import Tokens
from models.parts.dropout import Dropout
from models.parts.flops import Flops, matmul_flops
from models.parts.recurrent import FusedLSTM, LSTMCell, both_directions
from models.parts.stack import Stack
from models.parts.translator import State, Step, Translator


@dataclass
class Config:
    """Sizes of a GNMT; the defaults are the paper's.

    Attributes:
        layers: Layers of the encoder, and of the decoder; residual connections begin at the third.
        width: Width of embeddings, states and the attention's hidden layer.
        dropout: Rate on the input of each layer and of the softmax (section 8.3: 0.2, or 0.3 for small data).
        initial: Initial weights are uniform between minus and plus this; narrow nets need a larger one.
    """

    layers: int = 8
    width: int = 1024
    dropout: float = 0.2
    initial: float = 0.04

    def __post_init__(self) -> None:
        if self.layers < 3:
            raise ValueError(
                f"model.layers: {self.layers}; expected at least 3, because residual connections begin at "
                "the third layer. Use a larger number."
            )


class Memory(NamedTuple):
    x_BSD: Tensor
    keys_BSD: Tensor  # U_a x_s
    mask_BS: Tensor


class Past(NamedTuple):
    d_BD: Tensor  # d_{t-1}, the state of the lowest layer, and its cell
    c_BD: Tensor
    h_BLD: Tensor  # states and cells of the layers above
    c_BLD: Tensor


class Model(Translator):
    """GNMT: a bidirectional lowest layer, residual LSTM layers, and attention from the lowest decoder layer."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.source_embedding = nn.Embedding(source_vocabulary, width)
        self.target_embedding = nn.Embedding(target_vocabulary, width)
        self.forwards, self.backwards = FusedLSTM(width, width), FusedLSTM(width, width)
        self.encoder = Stack[FusedLSTM](
            FusedLSTM(width if number else 2 * width, width) for number in range(config.layers - 1)
        )
        self.W_y = nn.Linear(width, 4 * width, bias=False)
        self.lowest = LSTMCell(width, width)
        self.attention = AdditiveAttention(width, width, width)
        self.decoder = Stack[FusedLSTM](FusedLSTM(2 * width, width) for _ in range(config.layers - 1))
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(width, target_vocabulary, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -config.initial, config.initial)

    def encode(self, source: Tokens) -> Memory:
        e_BSD = self.dropout(self.source_embedding(source.ids_BS))
        zeros_1BD = self.initial_state(1, len(e_BSD), self.config.width, like=e_BSD)
        states = (zeros_1BD, zeros_1BD)
        x_BSD = torch.cat(both_directions(self.forwards, self.backwards, e_BSD, source.reversal_BS, states), dim=-1)
        for number, layer in enumerate(self.encoder):
            m_BSD, _ = layer(self.dropout(x_BSD), states)
            x_BSD = m_BSD + x_BSD if number else m_BSD
        return Memory(x_BSD, self.attention.keys(x_BSD), source.mask_BS)

    def initial_past(self, memory: Memory) -> Past:
        sentences, width = len(memory.x_BSD), self.config.width
        zeros_BD = self.initial_state(sentences, width, like=memory.x_BSD)
        zeros_BLD = self.initial_state(sentences, self.config.layers - 1, width, like=memory.x_BSD)
        return Past(zeros_BD, zeros_BD, zeros_BLD, zeros_BLD)

    def decode(self, memory: Memory, target: Tokens) -> Tensor:
        return self.advance(self.dropout(self.target_embedding(target.ids_BS)), memory, self.initial_past(memory))[0]

    def start(self, memory: Memory) -> State:
        return State(memory, self.initial_past(memory))

    def step(self, previous_B: Tensor, state: State) -> Step:
        y_B1D = self.dropout(self.target_embedding(previous_B[:, None]))
        x_B1D, past, weights_BS = self.advance(y_B1D, state.source, state.past)
        return Step(x_B1D[:, 0], State(state.source, past), weights_BS)

    def advance(self, y_BTD: Tensor, memory: Memory, past: Past) -> tuple[Tensor, Past, Tensor]:
        """Return (x_BTD of the top layer, past after the last position, weights_BS at the last position)."""
        d_BD, c_BD, lowest, contexts, attention = past.d_BD, past.c_BD, [], [], []
        for from_y_B4D in self.W_y(y_BTD).unbind(dim=1):
            attention.append(self.attention(d_BD, memory.keys_BSD, memory.mask_BS))
            a_BD = weighted_sum(attention[-1], memory.x_BSD)
            d_BD, c_BD = self.lowest(self.dropout(a_BD), d_BD, c_BD, from_y_B4D)
            lowest.append(d_BD)
            contexts.append(a_BD)
        x_BTD, a_BTD, states = torch.stack(lowest, dim=1), torch.stack(contexts, dim=1), []
        for number, layer in enumerate(self.decoder):
            old_states = (past.h_BLD[:, number][None].contiguous(), past.c_BLD[:, number][None].contiguous())
            m_BTD, new_states = layer(self.dropout(torch.cat((x_BTD, a_BTD), dim=-1)), old_states)
            x_BTD = m_BTD + x_BTD if number else m_BTD
            states.append(new_states)
        h_BLD, c_BLD = (torch.cat(state, dim=0).transpose(0, 1) for state in zip(*states, strict=True))
        return self.dropout(x_BTD), Past(d_BD, c_BD, h_BLD, c_BLD), attention[-1]

    # FLOPs of an LSTM layer at one position: input and state are multiplied by the matrices of four gates.

    def flops_encode(self, source_length: int) -> Flops:
        """Return the FLOPs of all layers and of U_a x_s.

        The lowest layer has two directions, and the input of the second layer has double width.
        """
        width, further = self.config.width, self.config.layers - 2
        inputs = 2 * (width + width) + (2 * width + width) + further * (width + width)
        return matmul_flops(source_length, inputs, 4 * width) + self.attention.flops_keys(source_length)

    def flops_step(self, source_length: int, position: int) -> Flops:
        """Return the FLOPs of attention and all layers; each layer reads the layer below, the context and its state."""
        width = self.config.width
        attention = self.attention.flops_scores(source_length) + matmul_flops(1, source_length, width)
        return attention + matmul_flops(1, 3 * width, 4 * width) * self.config.layers
