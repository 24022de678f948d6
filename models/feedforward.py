"""Multi-layer perceptron as a translator: trained embeddings, hidden layers, back-propagation.

Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors" (row mlp: sigmoid units);
Krizhevsky et al. 2012 (row mlp-relu: rectified units with dropout; but dropout is a setting that the equal search
tries, so with its recipes both rows have it and differ in the units). The input is as in Bengio et al. 2003, "A neural
probabilistic language model": the concatenated embeddings of a fixed window of words.

At target position t the network sees the same as the perceptron: the source words at t-2 ... t+2 (PAD outside the
sentence), the mean of the source, and the last two target words.

Ours: embeddings drawn from N(0, 1), Xavier's uniform weights with the gain of the units, biases that begin at zero.
Krizhevsky et al. draw weights from N(0, 0.01^2) and begin with biases of 1, for images.

Letters: B batch  S source length  T target length  W window slots  P padded source  D embedding  V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.parts.batch import PAD, Tokens
from models.parts.dropout import Dropout
from models.parts.flops import NO_FLOPS, Flops, matmul_flops
from models.parts.translator import State, Step, Translator
from models.parts.window import BEFORE, RECENT, SLOTS, first_past, padded_source, source_index

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}


@dataclass
class Config:
    """Sizes of a multi-layer perceptron.

    Attributes:
        embedding: Width of one word.
        hidden: Width of each hidden layer.
        layers: Hidden layers.
        activation: sigma(x) = 1 / (1 + e^-x), or max(0, x).
        dropout: Rate after each hidden layer (0.5 in Krizhevsky et al.; none in the paper of 1986).
    """

    embedding: int = 256
    hidden: int = 1024
    layers: int = 2
    activation: Literal["sigmoid", "relu"] = "sigmoid"
    dropout: float = 0.0


class Memory(NamedTuple):
    words_BPD: Tensor  # embeddings of the padded source
    mean_BD: Tensor


class Model(Translator):
    """x = [E x_{t-2}; ...; E x_{t+2}; mean_s E x_s; F y_{t-2}; F y_{t-1}], h_1 = phi(W_1 x + b_1).

    Further layers: h_l = phi(W_l h_{l-1} + b_l); the softmax reads the last one. E and F are the embeddings.
    """

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.source_embedding = nn.Embedding(source_vocabulary, config.embedding)
        self.target_embedding = nn.Embedding(target_vocabulary, config.embedding)
        self.widths = [(SLOTS + 1 + RECENT) * config.embedding, *[config.hidden] * config.layers]
        self.hidden = nn.Sequential(
            *(
                module
                for inner, outer in zip(self.widths, self.widths[1:], strict=False)
                for module in (nn.Linear(inner, outer), ACTIVATIONS[config.activation](), Dropout(config.dropout))
            )
        )
        self.output = nn.Linear(config.hidden, target_vocabulary)
        for parameter in self.hidden.parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter, gain=nn.init.calculate_gain(config.activation))

    def encode(self, source: Tokens) -> Memory:
        words_BPD = self.source_embedding(padded_source(source.ids_BS))
        sum_BD = (words_BPD[:, BEFORE:-1] * source.mask_BS[..., None]).sum(dim=1)
        return Memory(words_BPD, sum_BD / source.length_B[:, None])

    def decode(self, memory: Memory, target: Tokens) -> Tensor:
        length = target.ids_BS.shape[1]
        position_T = torch.arange(length, device=target.ids_BS.device)
        window_BTX = memory.words_BPD[:, source_index(position_T, memory.words_BPD.shape[1])].flatten(2)
        recent_BTD = self.target_embedding(functional.pad(target.ids_BS, (RECENT - 1, 0), value=PAD))
        recent = [recent_BTD[:, slot : slot + length] for slot in range(RECENT)]
        mean_BTD = memory.mean_BD[:, None].expand_as(recent[0])
        return self.hidden(torch.cat((window_BTX, mean_BTD, *recent), dim=-1))

    def start(self, memory: Memory) -> State:
        return State(memory, first_past(memory.mean_BD))

    def step(self, previous_B: Tensor, state: State) -> Step:
        (words_BPD, mean_BD), (position_B, before_B) = state.source, state.past
        index_BW = source_index(position_B, words_BPD.shape[1])
        slots_BWD = words_BPD.gather(1, index_BW[..., None].expand(-1, -1, words_BPD.shape[2]))
        recent_BWD = self.target_embedding(torch.stack((before_B, previous_B), dim=1))
        x_BD = torch.cat((slots_BWD, mean_BD[:, None], recent_BWD), dim=1).flatten(1)
        return Step(self.hidden(x_BD), State(state.source, (position_B + 1, previous_B)), None)

    # FLOPs: the hidden layers at each target position. Embeddings and means cost none.

    def flops_encode(self, source_length: int) -> Flops:
        return NO_FLOPS

    def flops_step(self, source_length: int, position: int) -> Flops:
        layers = (matmul_flops(1, inner, outer) for inner, outer in zip(self.widths, self.widths[1:], strict=False))
        return sum(layers, NO_FLOPS)
