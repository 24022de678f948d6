"""RNNsearch. Bahdanau, Cho and Bengio 2015, "Neural Machine Translation by Jointly Learning to Align and Translate".

The architecture follows Figure 1 and appendix A. A bidirectional GRU computes an annotation h_j = [forward; backward]
of every source word. Before each target word the decoder scores all annotations against its state (additive attention).
Their weighted sum, the context c_i, enters all gates of the decoder's GRU. A maxout layer reads state, previous word
and context.

What does not depend on the recurrence is computed for all positions at once: U_a h_j and the products with the words
before the loop, the maxout layer after it. The encoder has no attention inside its loop, so it runs on fused kernels,
which apply the reset gate after the recurrent product (the paper has U (r * h)); the decoder has the paper's form.

The readout reads s_i as in equation 4; appendix A.2.2 prints s_{i-1} (from memory).

Biases: appendix A.2.1 leaves them out of its equations "to increase readability", and B.1 initializes all of them with
zeros. Here every gate, s_0, the maxout layer and the softmax have one. Ours: the alignment model has none, as A.1.2
prints it, and the fused encoder has two for each gate (torch's b_ih and b_hh; b_hh of the candidate state is inside the
reset gate).

Letters: B batch  S source length  T target length  E embedding  D state  A alignment units  M maxout units
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.parts.attention import AdditiveAttention, weighted_sum
from models.parts.batch import Tokens
from models.parts.dropout import Dropout
from models.parts.flops import Flops, matmul_flops
from models.parts.recurrent import both_directions, run_fused
from models.parts.translator import State, Step, Translator


class Annotator(nn.Module):
    """h_j = [forward h_j; backward h_j]; section 3.2."""

    def __init__(self, embedding: int, width: int) -> None:
        super().__init__()
        self.forwards = nn.GRU(embedding, width, batch_first=True)
        self.backwards = nn.GRU(embedding, width, batch_first=True)

    def forward(self, x_BSE: Tensor, reversal_BS: Tensor, zeros_1BD: Tensor) -> Tensor:
        """Return h_BS2D."""
        forwards, backwards = (functools.partial(run_fused, layer) for layer in (self.forwards, self.backwards))
        return torch.cat(both_directions(forwards, backwards, x_BSE, reversal_BS, zeros_1BD), dim=-1)


class Decoder(nn.Module):
    """s_i = (1 - z_i) * s_{i-1} + z_i * s~_i; appendix A.2.2, with y for E y_{i-1}, s for s_{i-1} and c for c_i:

    s~_i = tanh(W y + U (r_i * s) + C c)
    z_i = sigma(W_z y + U_z s + C_z c)
    r_i = sigma(W_r y + U_r s + C_r c)

    Each argument of tanh and sigma has a bias besides. The matrices of the gates are concatenated: `W` holds W_z, W_r,
    W and the biases; `C` holds C_z, C_r, C; `U_gates` holds U_z, U_r.
    """

    def __init__(self, embedding: int, width: int, units: int) -> None:
        super().__init__()
        self.W = nn.Linear(embedding, 3 * width)
        self.C = nn.Linear(2 * width, 3 * width, bias=False)
        self.U_gates = nn.Linear(width, 2 * width, bias=False)
        self.U = nn.Linear(width, width, bias=False)
        self.attention = AdditiveAttention(width, 2 * width, units)

    def forward(
        self, from_y_B3D: Tensor, s_BD: Tensor, h_BS2D: Tensor, keys_BSA: Tensor, mask_BS: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (next s_BD, context_B2D, weights_BS); `from_y_B3D` is `W` applied to y."""
        weights_BS = self.attention(s_BD, keys_BSA, mask_BS)
        context_B2D = weighted_sum(weights_BS, h_BS2D)
        width = s_BD.shape[1]
        from_both_B3D = from_y_B3D + self.C(context_B2D)
        gates_B2D = torch.sigmoid(from_both_B3D[:, : 2 * width] + self.U_gates(s_BD))
        z_BD, r_BD = gates_B2D.chunk(2, dim=1)
        candidate_BD = torch.tanh(from_both_B3D[:, 2 * width :] + self.U(r_BD * s_BD))
        # Under autocast the gates are in bf16, but the state is not, as in a fused recurrent layer.
        return torch.lerp(s_BD, candidate_BD.to(s_BD), z_BD.to(s_BD)), context_B2D, weights_BS


@dataclass
class Config:
    """Sizes of an RNNsearch; the defaults are the paper's.

    Attributes:
        embedding: Width of a word (m).
        width: Width of the recurrent states (n), in each direction of the encoder and in the decoder.
        alignment: Units of the alignment model (n').
        maxout: Units of the maxout layer (l).
        dropout: Rate on embeddings and before the softmax (none in the paper).
        initial: Standard deviation of the initial weights, except recurrence and attention; narrow nets need more.
    """

    embedding: int = 620
    width: int = 1000
    alignment: int = 1000
    maxout: int = 500
    dropout: float = 0.0
    initial: float = 0.01


class Memory(NamedTuple):
    h_BS2D: Tensor
    keys_BSA: Tensor  # U_a h_j
    mask_BS: Tensor


class Model(Translator):
    """RNNsearch, the model of Figure 1."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        embedding, width, maxout = config.embedding, config.width, config.maxout
        self.source_embedding = nn.Embedding(source_vocabulary, embedding)
        self.target_embedding = nn.Embedding(target_vocabulary, embedding)
        self.encoder = Annotator(embedding, width)
        self.W_s = nn.Linear(width, width)
        self.decoder = Decoder(embedding, width, config.alignment)
        self.U_o = nn.Linear(width, 2 * maxout)
        self.V_o = nn.Linear(embedding, 2 * maxout, bias=False)
        self.C_o = nn.Linear(2 * width, 2 * maxout, bias=False)
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(maxout, target_vocabulary)
        self.initialize()

    def initialize(self) -> None:
        """Appendix B.1: recurrent matrices orthogonal, biases 0, other matrices N(0, 0.01^2).

        `AdditiveAttention` initializes itself.
        """
        for name, parameter in self.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            elif "weight_hh" in name or name.startswith("decoder.U"):
                for square_DD in parameter.detach().split(self.config.width):
                    nn.init.orthogonal_(square_DD)
            elif "attention" not in name:
                nn.init.normal_(parameter, std=self.config.initial)

    def encode(self, source: Tokens) -> Memory:
        x_BSE = self.dropout(self.source_embedding(source.ids_BS))
        zeros_1BD = self.initial_state(1, len(x_BSE), self.config.width, like=x_BSE)
        h_BS2D = self.encoder(x_BSE, source.reversal_BS, zeros_1BD)
        return Memory(h_BS2D, self.decoder.attention.keys(h_BS2D), source.mask_BS)

    def first_state(self, memory: Memory) -> Tensor:
        """Return s_0 = tanh(W_s h_1 + b_s), h_1 of the backward direction, which ends at the first word."""
        s_BD = torch.tanh(self.W_s(memory.h_BS2D[:, 0, self.config.width :]))
        return s_BD.to(self.W_s.weight.dtype)

    def readout(self, s: Tensor, y: Tensor, context: Tensor) -> Tensor:
        """Return t_i,j = max(t~_i,2j-1, t~_i,2j), t~_i = U_o s_i + V_o E y_{i-1} + C_o c_i + b_o; W_o is `output`."""
        pairs = self.U_o(s) + self.V_o(y) + self.C_o(context)
        return self.dropout(pairs.unflatten(-1, (-1, 2)).amax(dim=-1))

    def decode(self, memory: Memory, target: Tokens) -> Tensor:
        y_BTE = self.dropout(self.target_embedding(target.ids_BS))
        s_BD, states, contexts = self.first_state(memory), [], []
        for from_y_B3D in self.decoder.W(y_BTE).unbind(dim=1):
            s_BD, context_B2D, _ = self.decoder(from_y_B3D, s_BD, *memory)
            states.append(s_BD)
            contexts.append(context_B2D)
        return self.readout(torch.stack(states, dim=1), y_BTE, torch.stack(contexts, dim=1))

    def start(self, memory: Memory) -> State:
        return State(memory, self.first_state(memory))

    def step(self, previous_B: Tensor, state: State) -> Step:
        y_BE = self.dropout(self.target_embedding(previous_B))
        s_BD, context_B2D, weights_BS = self.decoder(self.decoder.W(y_BE), state.past, *state.source)
        return Step(self.readout(s_BD, y_BE, context_B2D), State(state.source, s_BD), weights_BS)

    def flops_encode(self, source_length: int) -> Flops:
        """Return the FLOPs of two GRUs with three gates each, and of U_a h_j."""
        embedding, width = self.config.embedding, self.config.width
        annotations = matmul_flops(source_length, embedding + width, 3 * width) * 2
        return annotations + self.decoder.attention.flops_keys(source_length)

    def flops_start(self, source_length: int) -> Flops:
        return matmul_flops(1, self.config.width, self.config.width)

    def flops_step(self, source_length: int, position: int) -> Flops:
        """Return the FLOPs of attention, three gates and maxout layer; the last two read word, state and context."""
        width = self.config.width
        attention = self.decoder.attention.flops_scores(source_length) + matmul_flops(1, source_length, 2 * width)
        inputs = self.config.embedding + width + 2 * width
        return attention + matmul_flops(1, inputs, 3 * width) + matmul_flops(1, inputs, 2 * self.config.maxout)
