"""Luong, Pham and Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation".

The architecture follows Figures 2 to 4. Stacked LSTMs read the source from its end and write the target, beginning with
the encoder's last states. The top state h_t is the query of attention over the encoder's top states. The context c_t
and h_t give an attentional state, which is the input of the softmax and, with "input feeding", is read with the next
word:

h~_t = tanh(W_c [c_t; h_t]),  p(y_t) = softmax(W_s h~_t)

The row has global attention with the general score. Local attention (section 3.2) is over the words within D of p_t,
2 D + 1 words for local-m and 2 D for local-p, whose p_t is not rounded:

local-m  p_t = t
local-p  p_t = S sigma(v_p^T tanh(W_p h_t)), and each weight is multiplied by exp(-(s - p_t)^2 / (2 (D / 2)^2))

The encoder's states are put back into the order of the sentence, so that p_t = t counts words from its beginning; p_t
does not move past the last word. No biases, so that padding before the reversed source leaves the state of the fused
kernel at zero. Weights outside the window are computed and discarded, so their FLOPs are counted.

Ours, where the released code differs or the paper is silent: the h~ that is fed back has no dropout (the released code
drops the whole input of the lowest layer, word and h~); local-p does not round p_t down to a word, neither for the
window nor for the Gaussian factor; the reversed source includes EOS, which is therefore read first.

Letters: B batch  S source length  T target length  L layers  D width  (the window's D is `window`)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.parts.attention import ConcatAttention, DotAttention, GeneralAttention, LocationAttention, weighted_sum
from models.parts.batch import PAD, Tokens
from models.parts.dropout import Dropout
from models.parts.flops import NO_FLOPS, Flops, matmul_flops
from models.parts.recurrent import LSTMCell, run_fused
from models.parts.stack import Stack
from models.parts.translator import State, Step, Translator


class Window(nn.Module):
    """The window of local attention around p_t, and for local-p the Gaussian factor of the weights."""

    def __init__(self, width: int, words: int, predictive: bool) -> None:
        super().__init__()
        self.words, self.predictive = words, predictive
        if predictive:
            self.W_p = nn.Linear(width, width, bias=False)
            self.v_p = nn.Linear(width, 1, bias=False)

    def forward(self, h_BD: Tensor, position_B: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (mask_BS of the window, factor_BS or None). Positions are counted from 1, as in the paper."""
        length_B1 = mask_BS.sum(dim=1, keepdim=True)
        position_S = torch.arange(1, mask_BS.shape[1] + 1, device=mask_BS.device)
        if not self.predictive:
            distance_BS = position_S - torch.minimum(position_B[:, None] + 1, length_B1)
            return mask_BS & (distance_BS.abs() <= self.words), None
        centre_B1 = length_B1 * torch.sigmoid(self.v_p(torch.tanh(self.W_p(h_BD))))
        distance_BS = position_S - centre_B1
        factor_BS = torch.exp(-(distance_BS**2) / (2 * (self.words / 2) ** 2))
        return mask_BS & (distance_BS.abs() <= self.words), factor_BS

    def flops(self) -> Flops:
        """Return the FLOPs of one query."""
        if not self.predictive:
            return NO_FLOPS
        return matmul_flops(1, self.W_p.in_features, self.W_p.out_features) + matmul_flops(1, self.v_p.in_features, 1)


@dataclass
class Config:
    """Sizes of Luong's model; the defaults are the paper's.

    Attributes:
        layers: Layers of the encoder, and of the decoder.
        width: Width of embeddings and states.
        score: dot, general, concat or location.
        reach: global: all words; local-m, local-p: a window around a monotonic or a predicted position.
        window: Words on either side of the position (D), for local attention.
        places: Source positions that the location score covers; positions beyond get weight 0.
        dropout: Rate on embeddings, between layers and before the softmax (Zaremba et al. 2014).
        initial: Initial weights are uniform in (-initial, initial); narrow nets need more than the paper's 0.1.
    """

    layers: int = 4
    width: int = 1000
    score: Literal["dot", "general", "concat", "location"] = "general"
    reach: Literal["global", "local-m", "local-p"] = "global"
    window: int = 10
    places: int = 50
    dropout: float = 0.2
    initial: float = 0.1


class Memory(NamedTuple):
    h_BSD: Tensor
    keys_BSD: Tensor
    mask_BS: Tensor


class Past(NamedTuple):
    h_BLD: Tensor
    c_BLD: Tensor
    attentional_BD: Tensor  # h~_{t-1}
    position_B: Tensor


class Model(Translator):
    """Stacked LSTMs with attention and input feeding."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        if config.score == "location" and config.reach != "global":
            raise ValueError(
                f"model.score: location has fixed positions and cannot be used with model.reach {config.reach}; "
                "expected model.reach global. Change one of the two."
            )
        self.config = config
        width = config.width
        between = config.dropout if config.layers > 1 else 0.0  # torch warns about dropout in a single layer
        scores = {
            "dot": DotAttention,
            "general": GeneralAttention,
            "concat": ConcatAttention,
            "location": lambda w: LocationAttention(w, config.places),
        }
        self.source_embedding = nn.Embedding(source_vocabulary, width)
        self.target_embedding = nn.Embedding(target_vocabulary, width)
        self.encoder = nn.LSTM(width, width, config.layers, bias=False, batch_first=True, dropout=between)
        self.W_y = nn.Linear(width, 4 * width, bias=False)
        self.decoder = Stack[LSTMCell](LSTMCell(width, width) for _ in range(config.layers))
        self.attention = scores[config.score](width)
        self.window = Window(width, config.window, config.reach == "local-p") if config.reach != "global" else None
        self.W_c = nn.Linear(2 * width, width, bias=False)
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(width, target_vocabulary, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -config.initial, config.initial)

    def encode(self, source: Tokens) -> tuple[Memory, Past]:
        ids_BS = source.ids_BS.flip(1)  # from the end of the sentence, and the padding comes first
        x_BSD = self.dropout(self.source_embedding(ids_BS)) * (ids_BS != PAD)[..., None]
        zeros_LBD = self.initial_state(self.config.layers, len(ids_BS), self.config.width, like=x_BSD)
        h_BSD, (h_LBD, c_LBD) = run_fused(self.encoder, x_BSD, (zeros_LBD, zeros_LBD))
        h_BSD = h_BSD.flip(1)
        attentional_BD = self.initial_state(len(ids_BS), self.config.width, like=x_BSD)
        past = Past(h_LBD.transpose(0, 1), c_LBD.transpose(0, 1), attentional_BD, torch.zeros_like(ids_BS[:, 0]))
        return Memory(h_BSD, self.attention.keys(h_BSD), source.mask_BS), past

    def decode(self, memory: tuple[Memory, Past], target: Tokens) -> Tensor:
        source, past = memory
        attentional = []
        for from_y_B4D in self.W_y(self.dropout(self.target_embedding(target.ids_BS))).unbind(dim=1):
            past, _ = self.advance(from_y_B4D, source, past)
            attentional.append(past.attentional_BD)
        return self.dropout(torch.stack(attentional, dim=1))

    def start(self, memory: tuple[Memory, Past]) -> State:
        return State(*memory)

    def step(self, previous_B: Tensor, state: State) -> Step:
        from_y_B4D = self.W_y(self.dropout(self.target_embedding(previous_B)))
        past, weights_BS = self.advance(from_y_B4D, state.source, state.past)
        return Step(self.dropout(past.attentional_BD), State(state.source, past), weights_BS)

    def advance(self, from_y_B4D: Tensor, source: Memory, past: Past) -> tuple[Past, Tensor]:
        """Return (past after one more position, weights_BS); `from_y_B4D` is W_y y, for the lowest layer."""
        x_BD, added_B4D, states = past.attentional_BD, from_y_B4D, []
        for layer, cell in enumerate(self.decoder):
            h_BD, c_BD = cell(x_BD, past.h_BLD[:, layer], past.c_BLD[:, layer], added_B4D)
            states.append((h_BD, c_BD))
            x_BD, added_B4D = self.dropout(h_BD), 0.0  # that of the top layer is not used: attention reads h
        h_BLD, c_BLD = (torch.stack(state, dim=1) for state in zip(*states, strict=True))
        h_BD, mask_BS, factor_BS = h_BLD[:, -1], source.mask_BS, None
        if self.window is not None:
            mask_BS, factor_BS = self.window(h_BD, past.position_B, mask_BS)
        weights_BS = self.attention(h_BD, source.keys_BSD, mask_BS, factor_BS)
        context_BD = weighted_sum(weights_BS, source.h_BSD)
        attentional_BD = torch.tanh(self.W_c(torch.cat((context_BD, h_BD), dim=1)))
        return Past(h_BLD, c_BLD, attentional_BD, past.position_B + 1), weights_BS

    # FLOPs of an LSTM layer at one position: input and state are multiplied by the matrices of four gates.

    def flops_encode(self, source_length: int) -> Flops:
        width = self.config.width
        layers = matmul_flops(source_length, 2 * width, 4 * width) * self.config.layers
        return layers + self.attention.flops_keys(source_length)

    def flops_step(self, source_length: int, position: int) -> Flops:
        """Return the FLOPs of the word, the layers (the lowest reads h~), scores, weighted sum and W_c."""
        width = self.config.width
        layers = matmul_flops(1, width, 4 * width) + matmul_flops(1, 2 * width, 4 * width) * self.config.layers
        attention = self.attention.flops_scores(source_length) + matmul_flops(1, source_length, width)
        local = self.window.flops() if self.window is not None else NO_FLOPS
        return layers + attention + local + matmul_flops(1, 2 * width, width)
