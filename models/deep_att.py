"""Deep-Att. Zhou et al. 2016, "Deep Recurrent Models with Fast-Forward Connections for Neural Machine Translation".

An LSTM is split into a feed-forward block f and a recurrent block r. Fast-forward connections join the f blocks of
neighbouring layers by a path without nonlinearity and without recurrence:

f^1_t = W^1 x_t,  f^k_t = W^k [Half(f^{k-1}_t), Dr(h^{k-1}_t)],  h^k_t, s^k_t = r^k(f^k_t, h^k_{t'}, s^k_{t'})

f has the width of the four gates, Half(f) is half of it, Dr is dropout. The encoder is interleaved: t' is t - 1 in
the odd layers and t + 1 in the even layers; a second column of layers reads in the opposite directions. On top

e_t = [h^{n_e,1}_t, f^{n_e,1}_t, h^{n_e,2}_t, f^{n_e,2}_t],  2 x (512 + 2048) = 5120 wide, and e'_t = W_p e_t, 1280.

The decoder has n_d such layers and one direction: f^1_t = W^1 [y_{t-1}, c_t], with the context c_t = sum_s a_t,s e'_s.

From the paper's abstract and summary: fast-forward connections, interleaving, attention, n_e + n_d = 16. From a
secondary note, not checked: two columns, n_e = 9 and n_d = 7, 512 cells, words of width 256, f^k and Half(f) as above,
dropout 0.1, 5120 and 1280. Ours, where neither says: a_t is additive attention with the query h^1_{t-1}; the softmax
reads what a further layer would read, [Half(f), Dr(h)]; the decoder begins with zeros; no biases; the initial weights.

Two likely deviations, found by a comparison with an implementation by others (fyabc) after the runs of this row: there
the order of f is content, input, forget and output gate, so Half(f) carries the content and the input gate; here the
order is input, forget, output, content, and Half(f) carries the input and the forget gate. f is linear in its input, so
either half can learn to carry any part of it. And there peepholes are an option; here are none.

nn.LSTM does not return f, which the next layer needs, so using it would mean computing f twice. Here f is computed for
all positions at once; the loop over positions has only the product with U, for both columns together.

Letters: B batch  S source length  T target length  P columns  D cells  E words  A width of e'  X input of a layer
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
from models.parts.recurrent import lstm_update, reorder_positions
from models.parts.stack import Stack
from models.parts.translator import State, Step, Translator


class Block(nn.Module):
    """One layer: the feed-forward block f and the recurrent block r, for each of P columns.

    g = f^k_t + U^k h^k_{t'} has four parts, for the gates pi, phi and rho and for the new content:
    pi, phi, rho = sigma(g_pi), sigma(g_phi), sigma(g_rho);  s_t = phi * s_{t'} + pi * tanh(g_s);  h_t = rho * tanh(s_t)
    """

    def __init__(self, columns: int, input_width: int, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(columns, input_width, 4 * width))
        self.U = nn.Parameter(torch.empty(columns, width, 4 * width))

    def forward(self, x_PBTX: Tensor, zeros_PBD: Tensor) -> tuple[Tensor, Tensor]:
        """Return (f_PBT4D, h_PBTD) of every position, beginning with zeros."""
        f_PBT4D = self.feed(x_PBTX)
        return f_PBT4D, self.recur(f_PBT4D, zeros_PBD, zeros_PBD)[0]

    def feed(self, x_PBTX: Tensor) -> Tensor:
        """Return f_PBT4D of every position."""
        return torch.bmm(x_PBTX.flatten(1, 2), self.W).unflatten(1, x_PBTX.shape[1:3])

    def recur(self, f_PBT4D: Tensor, h_PBD: Tensor, s_PBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (h_PBTD, last h_PBD, last s_PBD)."""
        states = []
        for f_PB4D in f_PBT4D.unbind(dim=2):
            h_PBD, s_PBD = lstm_update(torch.baddbmm(f_PB4D, h_PBD, self.U), s_PBD)
            states.append(h_PBD)
        return torch.stack(states, dim=2), h_PBD, s_PBD

    def flops(self, positions: int) -> Flops:
        columns, inputs, gates = self.W.shape
        return matmul_flops(positions, inputs + self.U.shape[1], gates) * columns


@dataclass
class Config:
    """Sizes of a Deep-Att; the defaults are the paper's.

    Attributes:
        encoder_layers: Layers of each column of the encoder (n_e).
        decoder_layers: Layers of the decoder (n_d).
        embedding: Width of a word.
        width: Cells of a layer in one column.
        annotation: Width of e', to which e (10 times the cells) is projected; also the units of the attention.
        dropout: Rate on h between layers and before the softmax (Dr).
        initial: Initial weights are uniform between minus and plus this; narrow nets need a larger one.
    """

    encoder_layers: int = 9
    decoder_layers: int = 7
    embedding: int = 256
    width: int = 512
    annotation: int = 1280
    dropout: float = 0.1
    initial: float = 0.05

    def __post_init__(self) -> None:
        for name in ("encoder_layers", "decoder_layers"):
            if getattr(self, name) < 2:
                raise ValueError(
                    f"model.{name}: {getattr(self, name)}; expected at least 2, because fast-forward "
                    "connections join two layers. Use a larger number."
                )


class Memory(NamedTuple):
    e_BSA: Tensor  # e'
    keys_BSA: Tensor
    mask_BS: Tensor


class Past(NamedTuple):
    h_BLD: Tensor
    s_BLD: Tensor


class Model(Translator):
    """Deep-Att: an interleaved encoder of two columns, attention, and a decoder, with fast-forward connections."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        width, annotation = config.width, config.annotation
        inputs = (config.embedding, *[3 * width] * (max(config.encoder_layers, config.decoder_layers) - 1))
        self.source_embedding = nn.Embedding(source_vocabulary, config.embedding)
        self.target_embedding = nn.Embedding(target_vocabulary, config.embedding)
        self.encoder = Stack[Block](Block(2, inputs[layer], width) for layer in range(config.encoder_layers))
        self.W_p = nn.Linear(10 * width, annotation, bias=False)
        self.attention = AdditiveAttention(width, annotation, annotation)
        self.W_y = nn.Linear(config.embedding, 4 * width, bias=False)
        self.W_c = nn.Linear(annotation, 4 * width, bias=False)
        self.U = nn.Linear(width, 4 * width, bias=False)
        self.decoder = Stack[Block](Block(1, inputs[layer], width) for layer in range(1, config.decoder_layers))
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(3 * width, target_vocabulary, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -config.initial, config.initial)

    def fast_forward(self, f: Tensor, h: Tensor) -> Tensor:
        """Return [Half(f), Dr(h)], the input of the next layer."""
        return torch.cat((f[..., : f.shape[-1] // 2], self.dropout(h)), dim=-1)

    def encode(self, source: Tokens) -> Memory:
        """Return the memory.

        The positions of each column are stored in the order in which its layer reads them, so they are reversed from
        layer to layer. A sentence is reversed within its own length; padding stays after the words.
        """
        x_BSE, reversal_BS = self.source_embedding(source.ids_BS), source.reversal_BS
        x_PBSX = torch.stack((x_BSE, reorder_positions(x_BSE, reversal_BS)))
        zeros_PBD = self.initial_state(2, len(x_BSE), self.config.width, like=x_BSE)
        first, *above = self.encoder
        f_PBS4D, h_PBSD = first(x_PBSX, zeros_PBD)
        for block in above:
            columns = self.fast_forward(f_PBS4D, h_PBSD)
            x_PBSX = torch.stack([reorder_positions(x_BSX, reversal_BS) for x_BSX in columns])
            f_PBS4D, h_PBSD = block(x_PBSX, zeros_PBD)
        top_1_BSX, top_2_BSX = torch.cat((h_PBSD, f_PBS4D), dim=-1).unbind()
        if self.config.encoder_layers % 2 == 0:  # the top layer of the first column read backwards
            top_1_BSX = reorder_positions(top_1_BSX, reversal_BS)
        else:
            top_2_BSX = reorder_positions(top_2_BSX, reversal_BS)
        e_BSX = torch.cat((top_1_BSX, top_2_BSX), dim=-1)
        e_BSA = self.W_p(e_BSX)
        return Memory(e_BSA, self.attention.keys(e_BSA), source.mask_BS)

    def initial_past(self, memory: Memory) -> Past:
        shape = len(memory.e_BSA), self.config.decoder_layers, self.config.width
        zeros_BLD = self.initial_state(*shape, like=memory.e_BSA)
        return Past(zeros_BLD, zeros_BLD)

    def decode(self, memory: Memory, target: Tokens) -> Tensor:
        return self.advance(self.target_embedding(target.ids_BS), memory, self.initial_past(memory))[0]

    def start(self, memory: Memory) -> State:
        return State(memory, self.initial_past(memory))

    def step(self, previous_B: Tensor, state: State) -> Step:
        y_B1E = self.target_embedding(previous_B[:, None])
        hidden_B1X, past, weights_BS = self.advance(y_B1E, state.source, state.past)
        return Step(hidden_B1X[:, 0], State(state.source, past), weights_BS)

    def advance(self, y_BTE: Tensor, memory: Memory, past: Past) -> tuple[Tensor, Past, Tensor]:
        """Return ([Half(f), Dr(h)] of the top layer, past after the last position, weights_BS at the last position)."""
        h_BD, s_BD, fs, hs, attention = past.h_BLD[:, 0], past.s_BLD[:, 0], [], [], []
        for from_y_B4D in self.W_y(y_BTE).unbind(dim=1):
            attention.append(self.attention(h_BD, memory.keys_BSA, memory.mask_BS))
            f_B4D = from_y_B4D + self.W_c(weighted_sum(attention[-1], memory.e_BSA))
            h_BD, s_BD = lstm_update(f_B4D + self.U(h_BD), s_BD)
            fs.append(f_B4D)
            hs.append(h_BD)
        f_BT4D, h_BTD, last = torch.stack(fs, dim=1), torch.stack(hs, dim=1), [(h_BD, s_BD)]
        for number, block in enumerate(self.decoder, start=1):
            f_1BT4D = block.feed(self.fast_forward(f_BT4D, h_BTD)[None])
            h_1BTD, h_1BD, s_1BD = block.recur(f_1BT4D, past.h_BLD[None, :, number], past.s_BLD[None, :, number])
            f_BT4D, h_BTD = f_1BT4D[0], h_1BTD[0]
            last.append((h_1BD[0], s_1BD[0]))
        h_BLD, s_BLD = (torch.stack(state, dim=1) for state in zip(*last, strict=True))
        return self.fast_forward(f_BT4D, h_BTD), Past(h_BLD, s_BLD), attention[-1]

    def flops_encode(self, source_length: int) -> Flops:
        """Return the FLOPs of two columns of blocks, W_p and the keys of the attention."""
        width, annotation = self.config.width, self.config.annotation
        cost = matmul_flops(source_length, 10 * width, annotation) + self.attention.flops_keys(source_length)
        for block in self.encoder:
            cost += block.flops(source_length)
        return cost

    def flops_step(self, source_length: int, position: int) -> Flops:
        """Return the FLOPs of attention, lowest layer (reads word, context and state) and the blocks above."""
        width, annotation = self.config.width, self.config.annotation
        cost = self.attention.flops_scores(source_length) + matmul_flops(1, source_length, annotation)
        cost += matmul_flops(1, self.config.embedding + annotation + width, 4 * width)
        for block in self.decoder:
            cost += block.flops(1)
        return cost
