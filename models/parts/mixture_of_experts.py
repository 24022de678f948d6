"""The sparsely-gated mixture-of-experts layer. Shazeer et al. 2017, "Outrageously Large Neural Networks".

y = sum_i G(x)_i E_i(x), and only experts with G(x)_i > 0 are computed. The translator around it is models/moe.py. The
layer has its own file because it is a topic of its own (gates, balancing losses, routing). Only one architecture uses
it; it is in parts/ because every file directly in models/ is an architecture, found by its name.

From the authors' tensor2tensor, where the paper has none: the smallest spread of the noise. Ours, where the paper is
silent: strictly balanced gates have an importance loss, too; the loss of their thresholds is a mean, has weight 1, and
changes the thresholds only.

Letters: B batch  T length  D width  N real tokens  X all positions, real and padded  E experts (or groups)
K experts of a token (K1: and the next one)  M tokens of an expert  R pairs of token and expert  F inner width
"""

from __future__ import annotations

import threading
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.parts.dropout import Dropout
from models.parts.flops import Flops, matmul_flops
from models.parts.stack import Stack
from models.parts.translator import Routing

COUNTING = threading.Lock()
"""Held while tokens are counted, because several batches may be decoded at the same time."""


class Assignment(NamedTuple):
    """Which tokens each expert computes, as R pairs of token and expert, sorted by expert.

    Attributes:
        token_R: Index of the token of each pair.
        gate_R: Gate value G(x)_i of each pair.
        tokens_per_expert: Number of pairs of each expert, on the host.
        load_E: Load of each expert, which the load loss balances.
        gate_loss: The gate's own loss: that of the thresholds in `BalancedGate`, otherwise 0.
    """

    token_R: Tensor
    gate_R: Tensor
    tokens_per_expert: list[int]
    load_E: Tensor
    gate_loss: Tensor


def split_evenly(total: int, parts: int) -> list[int]:
    """Return `parts` numbers that differ by at most one and sum to `total`."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def count_tokens(expert_R: Tensor, experts: int) -> list[int]:
    """Return the number of pairs of each expert.

    On the meta device, where values are unknown, an even split: it has the same cost in FLOPs.
    """
    if expert_R.is_meta:
        return split_evenly(len(expert_R), experts)
    return torch.bincount(expert_R, minlength=experts).tolist()


def squared_variation(x: Tensor) -> Tensor:
    """Return CV(x)^2 = Var(x) / Mean(x)^2, the squared coefficient of variation."""
    return x.var(correction=0) / (x.mean() ** 2 + 1e-10)


SMALLEST_SPREAD = 0.01
"""Added to the softplus of the noise. Without it, a spread of 0 makes the gradient of the load 0 times infinity."""


class NoisyTopKGate(nn.Module):
    """G(x) = Softmax(KeepTopK(H(x), k)), H(x)_i = (x W_g)_i + StandardNormal() * Softplus((x W_noise)_i); eq. 3 to 5.

    Load(X)_i = sum_x P(x, i), P(x, i) = Phi(((x W_g)_i - kth_excluding(H(x), k, i)) / Softplus((x W_noise)_i)), the
    probability that expert i is among the top k if its noise is drawn again; appendix A. SMALLEST_SPREAD is added to
    each Softplus. W_g and W_noise are initialized with zeros and are concatenated in `W`. In evaluation mode there is
    no noise.
    """

    def __init__(self, width: int, experts: int, k: int) -> None:
        super().__init__()
        self.experts, self.k = experts, k
        self.W = nn.Linear(width, 2 * experts, bias=False)

    def initialize(self, _initial: float) -> None:
        nn.init.zeros_(self.W.weight)

    def forward(self, x_ND: Tensor) -> Assignment:
        clean_NE, spread_NE = self.W(x_ND).to(self.W.weight.dtype).chunk(2, dim=1)
        spread_NE = functional.softplus(spread_NE) + SMALLEST_SPREAD
        h_NE = clean_NE + torch.randn_like(clean_NE) * spread_NE if self.training else clean_NE
        top_h_NK1, top_expert_NK1 = h_NE.topk(self.k + 1)
        kth_N1, next_N1 = top_h_NK1[:, self.k - 1 : self.k], top_h_NK1[:, self.k :]
        kth_excluding_NE = torch.where(h_NE >= kth_N1, next_N1, kth_N1)
        load_E = torch.special.ndtr((clean_NE - kth_excluding_NE) / spread_NE).sum(dim=0)
        gate_R = torch.softmax(top_h_NK1[:, : self.k], dim=1).flatten()
        expert_R = top_expert_NK1[:, : self.k].flatten()
        order_R = expert_R.argsort(stable=True)
        token_R = order_R.div(self.k, rounding_mode="floor")
        tokens_per_expert = count_tokens(expert_R, self.experts)
        gate_loss = load_E.new_zeros(())
        return Assignment(token_R, gate_R.index_select(0, order_R), tokens_per_expert, load_E, gate_loss)

    def flops(self) -> Flops:
        """Return the FLOPs of one token."""
        return matmul_flops(1, self.W.in_features, self.W.out_features)


class BalancedGate(nn.Module):
    """G(x)_i = G_s(x)_i M_i / sum_j G_s(x)_j M_j, G_s(x) = Softmax(x W_g); appendix F.

    In training, the mask M keeps for each expert the m = k |X| / n tokens of the batch with the largest gate values.
    Every expert then has the same work, but the experts of a token depend on the whole batch, including later words. In
    evaluation mode M(x)_i = 1 if G_s(x)_i > T_i. The thresholds T are trained by a loss that is smallest where the two
    masks are equal (eq. 20):

    sum_x sum_i (M_threshold(x)_i - M_batchwise(x)_i) (G_s(x)_i - T_i)

    With thresholds, a token may have more or fewer than k experts; a token without experts gets y = 0. With
    `routing` "uniform" the mask of training is used in evaluation mode, too.
    """

    def __init__(self, width: int, experts: int, k: int) -> None:
        super().__init__()
        self.experts, self.k = experts, k
        self.routing: Routing = "learned"
        self.W_g = nn.Linear(width, experts, bias=False)
        self.T = nn.Parameter(torch.empty(experts))

    def initialize(self, initial: float) -> None:
        nn.init.uniform_(self.W_g.weight, -initial, initial)
        nn.init.constant_(self.T, 1 / self.experts)

    def forward(self, x_ND: Tensor) -> Assignment:
        gate_EN = torch.softmax(self.W_g(x_ND), dim=1).T
        above_threshold_EN = gate_EN > self.T[:, None]
        if self.training or self.routing == "uniform" or x_ND.is_meta:
            tokens_per_expert = split_evenly(self.k * len(x_ND), self.experts)
            ranked_EM = gate_EN.topk(max(tokens_per_expert)).indices
            tokens = [ranked_M[:count] for ranked_M, count in zip(ranked_EM, tokens_per_expert, strict=True)]
        else:
            tokens_per_expert = above_threshold_EN.sum(dim=1).tolist()
            tokens = list(above_threshold_EN.nonzero()[:, 1].split(tokens_per_expert))
        gates = [gate_N.index_select(0, token_M) for gate_N, token_M in zip(gate_EN, tokens, strict=True)]
        token_R, unscaled_R = torch.cat(tokens), torch.cat(gates)
        sum_N = unscaled_R.new_zeros(len(x_ND)).index_add(0, token_R, unscaled_R)
        gate_R = unscaled_R / sum_N.index_select(0, token_R)
        gate_loss = self.threshold_loss(gate_EN, above_threshold_EN, tokens)
        return Assignment(token_R, gate_R, tokens_per_expert, unscaled_R.new_tensor(tokens_per_expert), gate_loss)

    def threshold_loss(self, gate_EN: Tensor, above_threshold_EN: Tensor, tokens: list[Tensor]) -> Tensor:
        """Return equation 20 as a mean over tokens; `tokens` are those of each expert by the batchwise mask."""
        gap_EN = gate_EN.detach() - self.T[:, None]
        batchwise = [gap_N.index_select(0, token_M).sum() for gap_N, token_M in zip(gap_EN, tokens, strict=True)]
        difference = (gap_EN * above_threshold_EN).sum() - torch.stack(batchwise).sum()
        return difference / max(1, gate_EN.shape[1])

    def flops(self) -> Flops:
        """Return the FLOPs of one token."""
        return matmul_flops(1, self.W_g.in_features, self.experts)


GATES = {"noisy": NoisyTopKGate, "balanced": BalancedGate}


class HierarchicalGate(nn.Module):
    """Two levels of gates: a primary gate selects groups, and the gate of each selected group its experts; appendix B.

    G(x)_ij = G_primary(x)_i G_i(x)_j,  Load_H(X)_ij = Load_primary(X)_i Load_i(X^(i))_j / |X^(i)|
    """

    def __init__(self, gating: Literal["noisy", "balanced"], width: int, groups: int, experts: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.primary = GATES[gating](width, groups, k)
        self.groups = Stack[NoisyTopKGate | BalancedGate](
            GATES[gating](width, experts // groups, k) for _ in range(groups)
        )

    def initialize(self, initial: float) -> None:
        for gate in (self.primary, *self.groups):
            gate.initialize(initial)

    def forward(self, x_ND: Tensor) -> Assignment:
        primary, secondary = self.primary(x_ND), []
        tokens_of_groups = primary.token_R.split(primary.tokens_per_expert)
        gates_of_groups = primary.gate_R.split(primary.tokens_per_expert)
        for gate, load, token_M, gate_M in zip(
            self.groups, primary.load_E, tokens_of_groups, gates_of_groups, strict=True
        ):
            inside: Assignment = gate(x_ND.index_select(0, token_M))
            token_R = token_M.index_select(0, inside.token_R)
            gate_R = gate_M.index_select(0, inside.token_R) * inside.gate_R
            load_E = load * inside.load_E / max(1, len(token_M))
            secondary.append(Assignment(token_R, gate_R, inside.tokens_per_expert, load_E, inside.gate_loss))
        tokens, gates, counts, loads, losses = zip(*secondary, strict=True)
        tokens_per_expert = [count for counts_of_group in counts for count in counts_of_group]
        gate_loss = primary.gate_loss + torch.stack(losses).sum()
        return Assignment(torch.cat(tokens), torch.cat(gates), tokens_per_expert, torch.cat(loads), gate_loss)

    def flops(self) -> Flops:
        """Return the FLOPs of one token: the primary gate and the gates of k groups."""
        return self.primary.flops() + next(iter(self.groups)).flops() * self.k


class Experts(nn.Module):
    """E_i(x) = max(0, x W_1i) W_2i, computed for the tokens that are assigned to expert i only."""

    def __init__(self, width: int, inner: int, experts: int) -> None:
        super().__init__()
        self.W_1 = nn.Parameter(torch.empty(experts, width, inner))
        self.W_2 = nn.Parameter(torch.empty(experts, inner, width))

    def forward(self, x_ND: Tensor, assignment: Assignment) -> Tensor:
        """Return sum_i G(x)_i E_i(x) of every token, as y_ND."""
        x_RD, y_ND = x_ND.index_select(0, assignment.token_R), torch.zeros_like(x_ND)
        inputs = zip(x_RD.split(assignment.tokens_per_expert), self.W_1.unbind(), self.W_2.unbind(), strict=True)
        outputs = [torch.relu(x_MD @ W_1) @ W_2 for x_MD, W_1, W_2 in inputs if len(x_MD)]
        if not outputs:
            return y_ND
        y_RD = torch.cat(outputs) * assignment.gate_R[:, None]
        return y_ND.to(y_RD.dtype).index_add(0, assignment.token_R, y_RD)


class MixtureOfExperts(nn.Module):
    """x + Dropout(sigma(sum_i G(x)_i E_i(x))), the residual connection and the sigmoid as in appendix E.

    L = w_importance CV(Importance)^2 + w_load CV(Load)^2, Importance_i = sum_x G(x)_i; eq. 6, 7 and appendix A. In
    training, `loss` holds L plus the gate's own loss for the last batch. With balanced gates the load is a constant, so
    the second term is 0 and has no gradient.
    """

    def __init__(
        self,
        *,
        width: int,
        inner: int,
        experts: int,
        groups: int,
        k: int,
        gating: Literal["noisy", "balanced"],
        importance_weight: float,
        load_weight: float,
        dropout: float,
    ) -> None:
        """Create the layer; groups = 0 gives one flat gate, and every argument is explained at models.moe.Config."""
        super().__init__()
        self.width, self.inner, self.experts_per_token = width, inner, k**2 if groups else k
        self.importance_weight, self.load_weight = importance_weight, load_weight
        self.gate = HierarchicalGate(gating, width, groups, experts, k) if groups else GATES[gating](width, experts, k)
        self.experts = Experts(width, inner, experts)
        self.dropout = Dropout(dropout)
        self.loss: Tensor | None = None
        self.evaluated_tokens = self.evaluated_pairs = 0  # in evaluation mode: tokens, and pairs of token and expert

    def forward(self, x_BTD: Tensor, real_index_N: Tensor) -> Tensor:
        """Return the layer's output at real positions and x at padding, which no expert and no gate sees."""
        x_XD = x_BTD.flatten(0, 1)
        x_ND = x_XD.index_select(0, real_index_N)
        assignment: Assignment = self.gate(x_ND)
        y_ND = x_ND + self.dropout(torch.sigmoid(self.experts(x_ND, assignment)))
        if self.training:
            self.loss = self.balance_loss(assignment)
        else:
            with COUNTING:
                self.evaluated_tokens += len(x_ND)
                self.evaluated_pairs += len(assignment.token_R)
        return x_XD.to(y_ND.dtype).index_copy(0, real_index_N, y_ND).view_as(x_BTD)

    def balance_loss(self, assignment: Assignment) -> Tensor:
        """Return the loss of uneven importance and load, plus the gate's own loss."""
        gates_of_experts = assignment.gate_R.split(assignment.tokens_per_expert)
        importance_E = torch.stack([gate_M.sum() for gate_M in gates_of_experts])
        importance, load = squared_variation(importance_E), squared_variation(assignment.load_E)
        return self.importance_weight * importance + self.load_weight * load + assignment.gate_loss

    def set_routing(self, routing: Routing) -> None:
        """Set the routing mode of every gate that has one; see `Translator.set_routing`."""
        for module in self.modules():
            if isinstance(module, BalancedGate):
                module.routing = routing

    def flops(self) -> Flops:
        """Return the FLOPs of one token: the gates that it passes, and the experts that it is assigned to."""
        return self.gate.flops() + matmul_flops(self.experts_per_token, self.width, self.inner) * 2
