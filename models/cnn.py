"""CNN. Kalchbrenner and Blunsom 2013, "Recurrent Continuous Translation Models": the first of its two models, RCTM I.

A convolutional sentence model encodes the source as one vector, and a recurrent language model writes the target; it
reads that vector at every position. Equations of the paper (from memory, not checked against it), with f_i the words of
the target, e the source, sigma the nonlinearity and csm(e) the vector of the source:

s = S csm(e)
h_1 = sigma(I v(f_1) + s), h_{i+1} = sigma(R h_i + I v(f_{i+1}) + s)
o_{i+1} = O h_i, p(f_{i+1} | f_1, ..., f_i, e) = softmax(o_{i+1})

As in the paper, the sentence model has no pooling between layers, kernels that grow by one from layer to layer (2, 3,
4, ...) and a nonlinearity after each layer. Simplified:
- in the paper a kernel convolves each dimension of the words separately; here it mixes all dimensions;
- in the paper every layer shortens the sentence, and kernels of fitting sizes reduce the rest to one column; here every
  layer keeps the length, with zeros after the end, and the sentence's vector is the maximum over positions;
- sigma is tanh; the softmax is over all words, not over word classes first.
RCTM II, which predicts the target's length and computes as many columns from the source's n-grams, is not implemented.

The recurrence is one fused kernel that reads [v(f_i); csm(e)], so S is multiplied at every position, and counted there:
5 % of the FLOPs of a pair in preset demo. Initial weights are PyTorch's defaults (ours).

Letters: B batch  S source length  T target length  E embedding  C width of the sentence's vector  D recurrent state
X input of the recurrence, E + C
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.parts.batch import Tokens
from models.parts.convolution import windows
from models.parts.dropout import Dropout
from models.parts.flops import NO_FLOPS, Flops, matmul_flops
from models.parts.recurrent import run_fused
from models.parts.stack import Stack
from models.parts.translator import State, Step, Translator


class Convolution(nn.Module):
    """y_j = tanh(K [x_j; ...; x_{j+k-1}] + b). Positions of padding and after the end of the batch are zeros."""

    def __init__(self, inputs: int, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel, self.K = kernel, nn.Linear(kernel * inputs, width)

    def forward(self, x_BSC: Tensor, mask_BS1: Tensor) -> Tensor:
        return torch.tanh(self.K(windows(functional.pad(x_BSC * mask_BS1, (0, 0, 0, self.kernel - 1)), self.kernel)))


@dataclass
class Config:
    """Sizes of an RCTM I; the defaults are the paper's (from memory).

    Attributes:
        embedding: Width of a word.
        layers: Layers of the sentence model; the first has a kernel of 2, and each further kernel is wider by 1.
        channels: Width of the sentence model's layers.
        hidden: Width of the recurrent state.
        dropout: Rate on embeddings, on the sentence's vector and before the softmax (none in the paper).
    """

    embedding: int = 256
    layers: int = 4
    channels: int = 256
    hidden: int = 256
    dropout: float = 0.0


class Model(Translator):
    """RCTM I. The memory is csm(e)."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.source_embedding = nn.Embedding(source_vocabulary, config.embedding)
        self.target_embedding = nn.Embedding(target_vocabulary, config.embedding)
        widths = [config.embedding] + [config.channels] * config.layers
        self.csm = Stack[Convolution](
            Convolution(widths[layer], widths[layer + 1], layer + 2) for layer in range(config.layers)
        )
        # Its two matrices are [I S] and R.
        self.recurrence = nn.RNN(config.embedding + config.channels, config.hidden, bias=False, batch_first=True)
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(config.hidden, target_vocabulary, bias=False)

    def encode(self, source: Tokens) -> Tensor:
        mask_BS1 = source.mask_BS[..., None]
        x_BSC = self.dropout(self.source_embedding(source.ids_BS))
        for layer in self.csm:
            x_BSC = layer(x_BSC, mask_BS1)
        return self.dropout(x_BSC.masked_fill(~mask_BS1, -torch.inf).amax(dim=1))

    def decode(self, memory: Tensor, target: Tokens) -> Tensor:
        return self.advance(target.ids_BS, self.start(memory))[0]

    def start(self, memory: Tensor) -> State:
        """Return a zero state, so that h_1 has no term R h_0."""
        return State(memory, self.initial_state(len(memory), 1, self.config.hidden, like=memory))

    def step(self, previous_B: Tensor, state: State) -> Step:
        hidden_B1D, past_B1D = self.advance(previous_B[:, None], state)
        return Step(hidden_B1D[:, 0], State(state.source, past_B1D), None)

    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Return (h of each position, h of the last position)."""
        csm_BC, past_B1D = state
        v_BTE = self.dropout(self.target_embedding(ids_BT))
        inputs_BTX = torch.cat((v_BTE, csm_BC[:, None].expand(-1, ids_BT.shape[1], -1)), dim=-1)
        h_BTD, last_1BD = run_fused(self.recurrence, inputs_BTX, past_B1D.transpose(0, 1).contiguous())
        return self.dropout(h_BTD), last_1BD.transpose(0, 1)

    def flops_encode(self, source_length: int) -> Flops:
        return sum(
            (matmul_flops(source_length, layer.K.in_features, layer.K.out_features) for layer in self.csm), NO_FLOPS
        )

    def flops_step(self, source_length: int, position: int) -> Flops:
        return matmul_flops(1, self.recurrence.input_size + self.config.hidden, self.config.hidden)
