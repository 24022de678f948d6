"""MoE. Shazeer et al. 2017, "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer".

Follow appendix E: a GNMT cut to 3 + 2 LSTM layers with projections, all of one output width; a mixture layer between
layers 2 and 3 of the encoder and layers 1 and 2 of the decoder; around every LSTM and mixture layer a residual
connection; on every mixture layer a sigmoid. y = sum_i G(x)_i E_i(x), and only experts with G(x)_i > 0 are computed.

GNMT's 9 encoder layers, of which 3 remain, are 9 if its lowest, bidirectional one counts as two: so here layer 1 reads
the words forwards and layer 2 backwards, and their outputs are added to the words. The context is read by the lowest
decoder layer alone: with it an encoder and a decoder step have the published 85M multiply-adds.

Ours, where the paper is silent: no biases; 64 groups, one for each device as in its language models; strictly balanced
gates have an importance loss, too; the loss of their thresholds is a mean, of weight 1, and moves thresholds only.

Letters: B batch  S source length  T target length  D width  C cells of an LSTM  A units of the attention
N tokens  E experts (or groups)  K experts of a token  M tokens of an expert  R pairs of token and expert  F inner width
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.parts.attention import Factored, weighted_sum
from models.parts.batch import Tokens
from models.parts.flops import Flops, product
from models.parts.recurrent import fused, lstm, reorder
from models.parts.stack import Stack
from models.parts.translator import State, Step, Translator


class Routes(NamedTuple):
    """Which tokens each expert gets: R pairs, those of the first expert first; `counts` of them, known on the host."""

    token_R: Tensor
    gate_R: Tensor
    counts: list[int]
    load_E: Tensor  # what the load loss balances
    loss: Tensor  # what the gate itself has to learn beside


def evenly(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def counts_of(expert_R: Tensor, experts: int) -> list[int]:
    """How many pairs each expert has. On the meta device nobody knows: evenly many, for the same cost in FLOPs."""
    if expert_R.is_meta:
        return evenly(len(expert_R), experts)
    return torch.bincount(expert_R, minlength=experts).tolist()


def squared_variation(x: Tensor) -> Tensor:
    """CV(x)^2 = Var(x) / Mean(x)^2."""
    return x.var(correction=0) / (x.mean() ** 2 + 1e-10)


class NoisyTopK(nn.Module):
    """G(x) = Softmax(KeepTopK(H(x), k)), H(x)_i = (x W_g)_i + StandardNormal() * Softplus((x W_noise)_i); eq. 3 to 5.

    Load(X)_i = sum_x P(x, i), P(x, i) = Phi(((x W_g)_i - kth_excluding(H(x), k, i)) / Softplus((x W_noise)_i)), the
    probability that i is chosen if noise is drawn anew; appendix A. W_g, W_noise begin at zero. Evaluation has none.
    """

    def __init__(self, width: int, experts: int, k: int) -> None:
        super().__init__()
        self.experts, self.k = experts, k
        self.W = nn.Linear(width, 2 * experts, bias=False)

    def initialise(self, _initial: float) -> None:
        nn.init.zeros_(self.W.weight)

    def forward(self, x_ND: Tensor) -> Routes:
        clean_NE, spread_NE = self.W(x_ND).to(self.W.weight.dtype).chunk(2, dim=1)
        spread_NE = functional.softplus(spread_NE)
        h_NE = clean_NE + torch.randn_like(clean_NE) * spread_NE if self.training else clean_NE
        best_NX, expert_NX = h_NE.topk(self.k + 1)
        kth_N1, next_N1 = best_NX[:, self.k - 1 : self.k], best_NX[:, self.k :]
        excluding_NE = torch.where(h_NE >= kth_N1, next_N1, kth_N1)
        load_E = torch.special.ndtr((clean_NE - excluding_NE) / spread_NE).sum(dim=0)
        gate_R = torch.softmax(best_NX[:, : self.k], dim=1).flatten()
        expert_R = expert_NX[:, : self.k].flatten()
        order_R = expert_R.argsort(stable=True)
        counts = counts_of(expert_R, self.experts)
        token_R = order_R.div(self.k, rounding_mode="floor")
        return Routes(token_R, gate_R.index_select(0, order_R), counts, load_E, load_E.new_zeros(()))

    def flops(self) -> Flops:
        return product(1, self.W.in_features, self.W.out_features)


class Balanced(nn.Module):
    """G(x)_i = G_s(x)_i M_i / sum_j G_s(x)_j M_j, G_s(x) = Softmax(x W_g); appendix F.

    In training M keeps, for each expert, the m = k |X| / n tokens of the batch with its largest gates: every expert has
    the same work, but which expert a token gets depends on the batch, later words included. In evaluation mode
    M(x)_i = 1 if G_s(x)_i > T_i, with thresholds T learnt by a loss that is least where both masks agree (eq. 20):

    sum_x sum_i (M_threshold(x)_i - M_batchwise(x)_i) (G_s(x)_i - T_i)

    A token may have more or fewer than k experts; one that has none gets y = 0.
    """

    def __init__(self, width: int, experts: int, k: int) -> None:
        super().__init__()
        self.experts, self.k = experts, k
        self.W_g = nn.Linear(width, experts, bias=False)
        self.T = nn.Parameter(torch.empty(experts))

    def initialise(self, initial: float) -> None:
        nn.init.uniform_(self.W_g.weight, -initial, initial)
        nn.init.constant_(self.T, 1 / self.experts)

    def forward(self, x_ND: Tensor) -> Routes:
        share_EN = torch.softmax(self.W_g(x_ND), dim=1).T
        passes_EN = share_EN > self.T[:, None]
        if self.training or x_ND.is_meta:
            counts = evenly(self.k * len(x_ND), self.experts)
            best_EM = share_EN.topk(max(counts)).indices
            tokens = [best_M[:count] for best_M, count in zip(best_EM, counts, strict=True)]
        else:
            counts = passes_EN.sum(dim=1).tolist()
            tokens = list(passes_EN.nonzero()[:, 1].split(counts))
        chosen = [share_N.index_select(0, token_M) for share_N, token_M in zip(share_EN, tokens, strict=True)]
        token_R, share_R = torch.cat(tokens), torch.cat(chosen)
        total_N = share_R.new_zeros(len(x_ND)).index_add(0, token_R, share_R)
        gate_R = share_R / total_N.index_select(0, token_R)
        loss = self.disagreement(share_EN, passes_EN, tokens)
        return Routes(token_R, gate_R, counts, share_R.new_tensor(counts), loss)

    def disagreement(self, share_EN: Tensor, passes_EN: Tensor, tokens: list[Tensor]) -> Tensor:
        gap_EN = share_EN.detach() - self.T[:, None]
        chosen = [gap_N.index_select(0, token_M).sum() for gap_N, token_M in zip(gap_EN, tokens, strict=True)]
        return ((gap_EN * passes_EN).sum() - torch.stack(chosen).sum()) / max(1, share_EN.shape[1])

    def flops(self) -> Flops:
        return product(1, self.W_g.in_features, self.experts)


GATES = {"noisy": NoisyTopK, "balanced": Balanced}


class Hierarchy(nn.Module):
    """A mixture of mixtures: a primary gate chooses groups, the gate of each chosen group its experts; appendix B.

    G(x)_ij = G_primary(x)_i G_i(x)_j,  Load_H(X)_ij = Load_primary(X)_i Load_i(X^(i))_j / |X^(i)|
    """

    def __init__(self, gating: str, width: int, groups: int, experts: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.primary = GATES[gating](width, groups, k)
        self.groups = Stack[NoisyTopK | Balanced](GATES[gating](width, experts // groups, k) for _ in range(groups))

    def initialise(self, initial: float) -> None:
        for gate in (self.primary, *self.groups):
            gate.initialise(initial)

    def forward(self, x_ND: Tensor) -> Routes:
        outer, inner = self.primary(x_ND), []
        parts = zip(outer.token_R.split(outer.counts), outer.gate_R.split(outer.counts), strict=True)
        for gate, load, (token_M, gate_M) in zip(self.groups, outer.load_E, parts, strict=True):
            routes: Routes = gate(x_ND.index_select(0, token_M))
            token_R = token_M.index_select(0, routes.token_R)
            gate_R = gate_M.index_select(0, routes.token_R) * routes.gate_R
            load_E = load * routes.load_E / max(1, len(token_M))
            inner.append(Routes(token_R, gate_R, routes.counts, load_E, routes.loss))
        tokens, gates, counts, loads, losses = zip(*inner, strict=True)
        every, loss = [count for group in counts for count in group], outer.loss + torch.stack(losses).sum()
        return Routes(torch.cat(tokens), torch.cat(gates), every, torch.cat(loads), loss)

    def flops(self) -> Flops:
        return self.primary.flops() + next(iter(self.groups)).flops() * self.k


class Experts(nn.Module):
    """E_i(x) = max(0, x W_1i) W_2i, of the tokens that are routed to i only."""

    def __init__(self, width: int, inner: int, experts: int) -> None:
        super().__init__()
        self.W_1 = nn.Parameter(torch.empty(experts, width, inner))
        self.W_2 = nn.Parameter(torch.empty(experts, inner, width))

    def forward(self, x_ND: Tensor, routes: Routes) -> Tensor:
        x_RD, y_ND = x_ND.index_select(0, routes.token_R), torch.zeros_like(x_ND)
        parts = zip(x_RD.split(routes.counts), self.W_1.unbind(), self.W_2.unbind(), strict=True)
        written = [torch.relu(x_MD @ W_1) @ W_2 for x_MD, W_1, W_2 in parts if len(x_MD)]
        if not written:
            return y_ND
        y_RD = torch.cat(written) * routes.gate_R[:, None]
        return y_ND.to(y_RD.dtype).index_add(0, routes.token_R, y_RD)


class Mixture(nn.Module):
    """x + Dr(sigma(sum_i G(x)_i E_i(x))); in training, `loss` is left behind for `Model.extra_loss`.

    L = w_importance CV(Importance)^2 + w_load CV(Load)^2, Importance_i = sum_x G(x)_i; eq. 6, 7 and appendix A.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, experts, k = config.width, config.experts, config.k
        self.config, gating, groups = config, config.gating, config.groups
        self.gate = Hierarchy(gating, width, groups, experts, k) if groups else GATES[gating](width, experts, k)
        self.computed = Experts(width, config.inner, experts)
        self.dropout = nn.Dropout(config.dropout)
        self.loss: Tensor | None = None
        self.tokens = self.sent = 0  # in evaluation mode: tokens read, and to how many experts they went together

    def forward(self, x_BTD: Tensor, real_N: Tensor) -> Tensor:
        """Padding is left out: it goes to no expert, and no gate counts it."""
        x_XD = x_BTD.flatten(0, 1)
        x_ND = x_XD.index_select(0, real_N)
        routes: Routes = self.gate(x_ND)
        y_ND = x_ND + self.dropout(torch.sigmoid(self.computed(x_ND, routes)))
        if self.training:
            self.loss = self.imbalance(routes)
        else:
            self.tokens, self.sent = self.tokens + len(x_ND), self.sent + len(routes.token_R)
        return x_XD.to(y_ND.dtype).index_copy(0, real_N, y_ND).view_as(x_BTD)

    def imbalance(self, routes: Routes) -> Tensor:
        importance_E = torch.stack([gate_M.sum() for gate_M in routes.gate_R.split(routes.counts)])
        importance, load = squared_variation(importance_E), squared_variation(routes.load_E)
        return self.config.importance_weight * importance + self.config.load_weight * load + routes.loss

    def flops(self) -> Flops:
        """Of one token: the gates that it passes, and its own experts."""
        chosen = self.config.k ** (2 if self.config.groups else 1)
        return self.gate.flops() + product(chosen, self.config.width, self.config.inner) * 2


class Projected(nn.LSTM):
    """i, f, o = sigma(W x + U h) each, g = tanh(W_g x + U_g h); c' = f * c + i * g, h' = P (o * tanh(c'))."""

    def __init__(self, width: int, cells: int) -> None:
        super().__init__(width, cells, bias=False, batch_first=True, proj_size=width)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch's own names are not ours
        self, x_BTD: Tensor, before: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        with warnings.catch_warnings():  # on a CPU in fp32: that oneDNN has no projections
            warnings.filterwarnings("ignore", "LSTM with projections")
            return fused(super().forward, x_BTD, before)


@dataclass
class Config:
    """Sizes of an MoE translator; the defaults are the paper's largest (2048 experts).

    Attributes:
        width: Width of embeddings, of what every layer reads and writes, and of the attention.
        cells: Cells of an LSTM, projected to the width.
        inner: Inner width of an expert.
        experts: Experts of each of the two mixture layers.
        groups: Groups of experts, for hierarchical gating; 0: flat.
        k: Experts of a token; with groups, groups of a token and experts in each of them.
        gating: noisy (noisy top-k) or balanced (strictly balanced over a batch).
        importance_weight: Weight of the loss of uneven importance (w_importance).
        load_weight: Weight of the loss of uneven load (w_load).
        dropout: Rate on embeddings and on the output of each layer.
        initial: Weights begin uniform between minus and plus this (noisy gates at 0); narrow nets need a larger one.
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
            raise ValueError(f"model.experts: {self.experts} do not divide into {self.groups} groups")
        if not 0 < self.k < (min(self.groups, self.experts // self.groups) if self.groups else self.experts):
            raise ValueError(f"model.k: {self.k} leaves no choice; at least 1 and fewer than there are to choose from")


class Memory(NamedTuple):
    x_BSD: Tensor
    keys_BSD: Tensor
    mask_BS: Tensor


class Past(NamedTuple):
    lowest_h_BD: Tensor
    lowest_c_BC: Tensor
    upper_h_BD: Tensor
    upper_c_BC: Tensor


class Model(Translator):
    """The translator of appendix E on the contract."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        width, cells = config.width, config.cells
        self.source_embedding = nn.Embedding(source_vocabulary, width)
        self.target_embedding = nn.Embedding(target_vocabulary, width)
        self.encoder = Stack[Projected](Projected(width, cells) for _ in range(3))
        self.encoder_mixture = Mixture(config)
        self.W_y = nn.Linear(width, 4 * cells, bias=False)
        self.lowest = nn.Linear(2 * width, 4 * cells, bias=False)  # context and state
        self.P = nn.Linear(cells, width, bias=False)
        self.attention = Factored(width)
        self.decoder_mixture = Mixture(config)
        self.upper = Projected(width, cells)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(width, target_vocabulary, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -config.initial, config.initial)
        self.mixtures = (self.encoder_mixture, self.decoder_mixture)
        for mixture in self.mixtures:
            mixture.gate.initialise(config.initial)

    def extra_loss(self) -> Tensor | None:
        losses = [mixture.loss for mixture in self.mixtures if mixture.loss is not None]
        self.encoder_mixture.loss = self.decoder_mixture.loss = None
        return torch.stack(losses).sum() if losses else None

    def settle(self) -> None:
        for gate in (module for module in self.modules() if isinstance(module, Balanced)):
            gate.train()

    def observed(self) -> dict[str, float]:
        tokens, sent = sum(mixture.tokens for mixture in self.mixtures), sum(mixture.sent for mixture in self.mixtures)
        for mixture in self.mixtures:
            mixture.tokens = mixture.sent = 0
        return {"experts_per_token": sent / tokens} if tokens else {}

    def zeros(self, sentences: int, like: Tensor) -> tuple[Tensor, Tensor]:
        h_BD, c_BC = (self.initial_state(sentences, n, like=like) for n in (self.config.width, self.config.cells))
        return h_BD, c_BC

    def encode(self, source: Tokens) -> Memory:
        """The backward layer reads each sentence reversed within its own length; padding stays behind the words."""
        first, second, third = self.encoder
        x_BSD = self.dropout(self.source_embedding(source.ids_BS))
        h_BD, c_BC = self.zeros(len(x_BSD), x_BSD)
        before = (h_BD[None], c_BC[None])
        forward_BSD, _ = first(x_BSD, before)
        backward_BSD, _ = second(reorder(x_BSD, source.reversal_BS), before)
        x_BSD = x_BSD + self.dropout(forward_BSD) + self.dropout(reorder(backward_BSD, source.reversal_BS))
        x_BSD = self.encoder_mixture(x_BSD, source.real_N)
        x_BSD = x_BSD + self.dropout(third(x_BSD, before)[0])
        return Memory(x_BSD, self.attention.keys(x_BSD), source.mask_BS)

    def first(self, memory: Memory) -> Past:
        return Past(*self.zeros(len(memory.x_BSD), memory.x_BSD) * 2)

    def decode(self, memory: Memory, target: Tokens) -> Tensor:
        y_BTD = self.dropout(self.target_embedding(target.ids_BS))
        return self.advance(y_BTD, memory, self.first(memory), target.real_N)[0]

    def start(self, memory: Memory) -> State:
        return State(memory, self.first(memory))

    def step(self, previous_B: Tensor, state: State) -> Step:
        y_B1D = self.dropout(self.target_embedding(previous_B[:, None]))
        x_B1D, past, weights_BS = self.advance(y_B1D, *state, torch.arange(len(previous_B), device=previous_B.device))
        return Step(x_B1D[:, 0], State(state.source, past), weights_BS)

    def advance(self, y_BTD: Tensor, memory: Memory, past: Past, real_N: Tensor) -> tuple[Tensor, Past, Tensor]:
        """(x_BTD of the top layer, past after the last position, weights_BS at the last position)."""
        h_BD, c_BC, outputs, looked = past.lowest_h_BD, past.lowest_c_BC, [], []
        for from_y_B4C in self.W_y(y_BTD).unbind(dim=1):
            looked.append(self.attention(h_BD, memory.keys_BSD, memory.mask_BS))
            context_BD = weighted_sum(looked[-1], memory.x_BSD)
            o_BC, c_BC = lstm(from_y_B4C + self.lowest(torch.cat((context_BD, h_BD), dim=1)), c_BC)
            h_BD = self.P(o_BC)
            outputs.append(h_BD)
        x_BTD = self.decoder_mixture(y_BTD + self.dropout(torch.stack(outputs, dim=1)), real_N)
        upper_BTD, (h_1BD, c_1BC) = self.upper(x_BTD, (past.upper_h_BD[None], past.upper_c_BC[None]))
        return x_BTD + self.dropout(upper_BTD), Past(h_BD, c_BC, h_1BD[0], c_1BC[0]), looked[-1]

    def flops_layer(self, inputs: int) -> Flops:
        """One position: input and state go through the matrices of four gates, the cells through P."""
        width, cells = self.config.width, self.config.cells
        return product(1, inputs + width, 4 * cells) + product(1, cells, width)

    def flops_encode(self, source_length: int) -> Flops:
        position = self.flops_layer(self.config.width) * 3 + self.encoder_mixture.flops()
        return position * source_length + self.attention.flops_keys(source_length)

    def flops_spared(self) -> tuple[Flops, Flops]:
        return self.encoder_mixture.flops(), self.decoder_mixture.flops()

    def flops_step(self, source_length: int, position: int) -> Flops:
        """Attention; the lowest layer, which reads word and context; the mixture; the upper layer."""
        width = self.config.width
        attend = self.attention.flops_scores(source_length) + product(1, source_length, width)
        layers = self.flops_layer(2 * width) + self.flops_layer(width)
        return attend + layers + self.decoder_mixture.flops()
