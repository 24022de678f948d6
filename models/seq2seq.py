"""Encoder-decoders without attention: a recurrent encoder reads the source, a decoder starts from its last state.

Row lstm: Sutskever et al. 2014, "Sequence to Sequence Learning with Neural Networks". 4 + 4 LSTM layers, the source
read from its end, no biases: 384M parameters at the paper's size, of which 64M recurrent.
Row gru: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation". Every step of the decoder and a maxout layer read a summary c of the source. The paper's equations show no
biases; Bahdanau et al. 2015, who use this network again, say that they omit them only for readability. So here every
gate, tanh, the maxout layer and the softmax have a bias, initialized with zeros.
Row rnn: Sutskever's scheme, the source read from its end, with the cell of Elman 1990, "Finding Structure in Time".

lstm and rnn: the source is reversed with its EOS, which is read first. Padding is placed before it, with embeddings of
zero. A cell without biases stays in its zero state as long as it reads zeros, so the last state of the fused kernel is
exact for every sentence, without packed sequences. That is why rnn, which is ours, has no biases.
gru: the biases would move the state on padding. So padding comes after the source, and the state of the top layer is
read at the last word.

From memory, not checked against the papers: Cho's equations of the readout and the low rank of G; the initial states
tanh(V h) and tanh(V' c).

Letters: B batch  S source length  T target length  L layers  E embedding  D width of the state  M maxout units
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.parts.batch import PAD, Tokens
from models.parts.dropout import Dropout
from models.parts.flops import NO_FLOPS, Flops, matmul_flops
from models.parts.recurrent import run_fused
from models.parts.translator import State, Step, Translator

States = tuple[Tensor, ...]  # (h_BLD,), or (h_BLD, c_BLD) of an LSTM
CELLS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
GATES = {"elman": 1, "gru": 3, "lstm": 4}


class Recurrence(nn.Module):
    """Fused recurrent layers of one type of cell; only the GRU has biases. With h = h_{t-1}, in each layer:

    elman  h_t = tanh(W x_t + U h)
    gru    r = sigma(W_r x_t + U_r h + b_r), z = sigma(W_z x_t + U_z h + b_z),
           n = tanh(W x_t + b + r * (U h + b')), h_t = (1-z) * n + z * h
    lstm   i, f, o = sigma(W x_t + U h) each, g = tanh(W_g x_t + U_g h), c_t = f * c_{t-1} + i * g, h_t = o * tanh(c_t)

    The fused GRU applies the reset gate after the product with U, as the first version of Cho et al. on arXiv did; the
    published one has U (r * h). torch has two biases for each gate, b_ih and b_hh. b_r and b_z are their sums; in the
    candidate state they stay separate: b outside the reset gate, b' inside it.
    """

    def __init__(self, config: Config, input_width: int) -> None:
        super().__init__()
        between, bias = config.dropout if config.layers > 1 else 0.0, config.cell == "gru"
        self.layers = CELLS[config.cell](
            input_width, config.hidden, config.layers, bias=bias, batch_first=True, dropout=between
        )

    def forward(self, x_BTE: Tensor, states: States) -> tuple[Tensor, States]:
        """Return (h_BTD of the top layer, states after the last position)."""
        first, *rest = (state_BLD.transpose(0, 1).contiguous() for state_BLD in states)
        h_BTD, last = run_fused(self.layers, x_BTE, (first, *rest) if rest else first)
        last = last if rest else (last,)
        return h_BTD, tuple(state_LBD.transpose(0, 1) for state_LBD in last)


class StateBridge(nn.Module):
    """Sutskever: the decoder starts from the encoder's states, layer by layer, and the softmax reads its top state."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.input_width, self.output_width = config, config.embedding, config.hidden

    def summarize(self, states: States) -> States:
        """Return what the decoder knows of the source, computed from the encoder's last states."""
        return states

    def initial_states(self, summary: States) -> States:
        """Return the decoder's states before the first step."""
        return summary

    def inputs(self, e_BTE: Tensor, summary: States) -> Tensor:
        """Return the input of the decoder's recurrence."""
        return e_BTE

    def readout(self, h_BTD: Tensor, e_BTE: Tensor, summary: States) -> Tensor:
        """Return the input of the softmax."""
        return h_BTD

    def flops_summarize(self) -> Flops:
        return NO_FLOPS

    flops_initial_states = flops_readout = flops_summarize


class SummaryBridge(StateBridge):
    """Cho: c = tanh(V h_S + b_V), h'_0 = tanh(V' c + b_V'). The decoder reads [e(y_{t-1}); c] and the softmax G s_t:

    s'_t = O_h h'_t + O_y e(y_{t-1}) + O_c c + b_O,  s_t,i = max(s'_t,2i-1, s'_t,2i),  G = G_l G_r of the rank of e.

    The summary is (c, O_c c). Here c enters the candidate state outside the reset gate, because c is an input of the
    fused kernel; in the paper it enters inside. For the same reason its products with the gates and the candidate are
    computed, and counted, at every position; the paper needs them once for each sentence. They are 14 % of the training
    FLOPs of a pair in preset demo.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        embedding, width = config.embedding, config.hidden
        self.input_width, self.output_width = embedding + width, embedding
        self.V = nn.Linear(width, width)
        self.V_prime = nn.Linear(width, config.layers * width)
        self.O_h = nn.Linear(width, 2 * config.maxout)
        self.O_y = nn.Linear(embedding, 2 * config.maxout, bias=False)
        self.O_c = nn.Linear(width, 2 * config.maxout, bias=False)
        self.G_r = nn.Linear(config.maxout, embedding, bias=False)

    def summarize(self, states: States) -> States:
        c_BD = torch.tanh(self.V(states[0][:, -1]))
        return c_BD, self.O_c(c_BD)

    def initial_states(self, summary: States) -> States:
        return (torch.tanh(self.V_prime(summary[0])).unflatten(-1, (self.config.layers, -1)),)

    def inputs(self, e_BTE: Tensor, summary: States) -> Tensor:
        return torch.cat((e_BTE, summary[0][:, None].expand(-1, e_BTE.shape[1], -1)), dim=-1)

    def readout(self, h_BTD: Tensor, e_BTE: Tensor, summary: States) -> Tensor:
        _, from_c_B2M = summary
        s_BT2M = self.O_h(h_BTD) + self.O_y(e_BTE) + from_c_B2M[:, None]
        return self.G_r(s_BT2M.unflatten(-1, (-1, 2)).amax(dim=-1))

    def flops_summarize(self) -> Flops:
        return matmul_flops(1, self.config.hidden, self.config.hidden + 2 * self.config.maxout)

    def flops_initial_states(self) -> Flops:
        return matmul_flops(1, self.config.hidden, self.config.layers * self.config.hidden)

    def flops_readout(self) -> Flops:
        maxout = self.config.maxout
        return matmul_flops(1, self.input_width, 2 * maxout) + matmul_flops(1, maxout, self.output_width)


@dataclass
class Config:
    """Sizes of an encoder-decoder; the defaults are Sutskever's.

    Attributes:
        cell: elman, lstm (Sutskever's decoder), or gru (Cho's decoder).
        layers: Layers of the encoder, and of the decoder.
        embedding: Width of a word (for gru also the rank of the softmax's weights).
        hidden: Width of a recurrent state.
        maxout: Units of the maxout layer (gru only).
        reverse: Read the source from its end.
        dropout: Rate on embeddings, between layers and on the top state, which the softmax or, for gru, the maxout
            layer reads (Zaremba et al. 2014; none in the papers).
        initial: Initial weights: uniform in (-initial, initial) for lstm, standard deviation for the others; narrow
            nets need more than the papers' 0.08 and 0.01.
    """

    cell: Literal["elman", "gru", "lstm"] = "lstm"
    layers: int = 4
    embedding: int = 1000
    hidden: int = 1000
    maxout: int = 500
    reverse: bool = True
    dropout: float = 0.0
    initial: float = 0.08


class Model(Translator):
    """p(y | x) = prod_t p(y_t | v, y_1, ..., y_{t-1}), where v, the memory, is the decoder's only knowledge of x."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.bridge = SummaryBridge(config) if config.cell == "gru" else StateBridge(config)
        self.source_embedding = nn.Embedding(source_vocabulary, config.embedding)
        self.target_embedding = nn.Embedding(target_vocabulary, config.embedding)
        self.encoder = Recurrence(config, config.embedding)
        self.decoder = Recurrence(config, self.bridge.input_width)
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(self.bridge.output_width, target_vocabulary, bias=config.cell == "gru")
        self.initialize()

    def initialize(self) -> None:
        """Sutskever: U(-a, a), a = 0.08. Cho, and the Elman net: N(0, a^2), a = 0.01, recurrent matrices orthogonal.

        Cho's biases are 0.
        """
        for name, parameter in self.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            elif self.config.cell == "lstm":
                nn.init.uniform_(parameter, -self.config.initial, self.config.initial)
            elif "weight_hh" in name:
                for gate_DD in parameter.detach().chunk(GATES[self.config.cell]):
                    nn.init.orthogonal_(gate_DD)
            else:
                nn.init.normal_(parameter, std=self.config.initial)

    def encode(self, source: Tokens) -> States:
        if self.config.cell == "gru":
            return self.bridge.summarize((self.top_state(source),))
        ids_BS = source.ids_BS
        if self.config.reverse:
            ids_BS = ids_BS.flip(1)  # which also moves the padding to the front
        else:
            position_S = torch.arange(ids_BS.shape[1], device=ids_BS.device)
            ids_BS = ids_BS.gather(1, (position_S + source.length_B[:, None]) % ids_BS.shape[1])
        e_BSE = self.dropout(self.source_embedding(ids_BS)) * (ids_BS != PAD)[..., None]
        zeros_BLD = self.initial_state(len(ids_BS), self.config.layers, self.config.hidden, like=e_BSE)
        _, states = self.encoder(e_BSE, (zeros_BLD,) * (2 if self.config.cell == "lstm" else 1))
        return self.bridge.summarize(states)

    def top_state(self, source: Tokens) -> Tensor:
        """Return the state h_B1D of the top layer after the last word that is read, with padding after the words."""
        ids_BS = source.ids_BS.gather(1, source.reversal_BS) if self.config.reverse else source.ids_BS
        e_BSE = self.dropout(self.source_embedding(ids_BS))
        zeros_BLD = self.initial_state(len(ids_BS), self.config.layers, self.config.hidden, like=e_BSE)
        h_BSD, _ = self.encoder(e_BSE, (zeros_BLD,))
        last_B11 = source.length_B[:, None, None] - 1
        return h_BSD.gather(1, last_B11.expand(-1, 1, h_BSD.shape[-1]))

    def decode(self, memory: States, target: Tokens) -> Tensor:
        return self.advance(target.ids_BS, memory, self.bridge.initial_states(memory))[0]

    def start(self, memory: States) -> State:
        return State(memory, self.bridge.initial_states(memory))

    def step(self, previous_B: Tensor, state: State) -> Step:
        hidden_B1D, states = self.advance(previous_B[:, None], state.source, state.past)
        return Step(hidden_B1D[:, 0], State(state.source, states), None)

    def advance(self, ids_BT: Tensor, summary: States, states: States) -> tuple[Tensor, States]:
        """Return (input of the softmax at each position, states after the last position)."""
        e_BTE = self.dropout(self.target_embedding(ids_BT))
        h_BTD, states = self.decoder(self.bridge.inputs(e_BTE, summary), states)
        return self.bridge.readout(self.dropout(h_BTD), e_BTE, summary), states

    # FLOPs of a layer at one position: input and state are multiplied by the matrices of all gates.

    def flops_layers(self, input_width: int) -> Flops:
        columns, width = GATES[self.config.cell] * self.config.hidden, self.config.hidden
        first, further = matmul_flops(1, input_width, columns), matmul_flops(1, width, columns)
        return first + further * (2 * self.config.layers - 1)

    def flops_encode(self, source_length: int) -> Flops:
        return self.flops_layers(self.config.embedding) * source_length + self.bridge.flops_summarize()

    def flops_start(self, source_length: int) -> Flops:
        return self.bridge.flops_initial_states()

    def flops_step(self, source_length: int, position: int) -> Flops:
        return self.flops_layers(self.bridge.input_width) + self.bridge.flops_readout()
