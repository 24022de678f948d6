"""The forms of attention, each with its equation.

Every form scores one query against each source position, turns scores into weights with a softmax over the real
positions, and returns the weighted sum of the values. The weights pass through `AttentionWeights`, a named identity, so
that a forward hook can take the picture of any layer and head.

Letters: B batch  H heads  T queries  S keys (source positions)  D width  C width of one head
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.parts.flops import NO_FLOPS, Flops, product


class AttentionWeights(nn.Identity):
    """Attention weights on their way to the weighted sum. Hook this module to see them."""

    @property
    def watched(self) -> bool:
        """Whether somebody hooked this module, so that the weights have to be made and no fused kernel may be used."""
        return bool(self._forward_hooks)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension, with weight exactly 0 where `mask` is False.

    A row with no real position at all (padding of a batch) gets equal weights instead of NaN.
    """
    return torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), dim=-1)


def scaled_dot_product(query_BHTC: Tensor, key_BHSC: Tensor, mask: Tensor) -> Tensor:
    """weights_BHTS = softmax(Q K^T / sqrt(d_k)) over the positions where `mask` (broadcast to BHTS) is True.

    Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1, equation 1.
    """
    scores_BHTS = query_BHTC @ key_BHSC.transpose(-2, -1) / math.sqrt(query_BHTC.shape[-1])
    return masked_softmax(scores_BHTS, mask)


class MultiHead(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V).

    Vaswani et al. 2017, section 3.2.2. The W_i of all heads stand side by side in one matrix; no biases, as in the
    paper's equation. `dropout` acts on the weights, as in the authors' tensor2tensor.

    Keys and values are made apart (`keys_values`), so that a decoder makes those of the source once and caches those
    of its own past.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"model.width: {width} does not divide into {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.weights = AttentionWeights()

    def split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """(key_BHSC, value_BHSC) of every position."""
        key_BSD, value_BSD = self.key_value(memory_BSD).chunk(2, dim=-1)
        return self.split(key_BSD), self.split(value_BSD)

    def forward(
        self, x_BTD: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        """out_BTD. `mask` broadcasts to BHTS and is True where a query may look; None: everywhere.

        `causal` lets query t look at keys 0..t only; it excludes a mask, because padding lies to the right, where no
        real query looks anyway, and the fused kernel is faster without one.
        """
        query_BHTC, (key_BHSC, value_BHSC) = self.split(self.query(x_BTD)), keys_values
        if self.weights.watched:
            if causal:
                mask = x_BTD.new_ones(x_BTD.shape[1], key_BHSC.shape[2], dtype=torch.bool).tril()
            elif mask is None:
                mask = x_BTD.new_ones((), dtype=torch.bool)
            weights_BHTS = self.weights(scaled_dot_product(query_BHTC, key_BHSC, mask))
            out_BHTC = functional.dropout(weights_BHTS, self.dropout, self.training) @ value_BHSC
        else:
            out_BHTC = functional.scaled_dot_product_attention(
                query_BHTC,
                key_BHSC,
                value_BHSC,
                attn_mask=mask,
                dropout_p=self.dropout if self.training else 0.0,
                is_causal=causal,
            )
        return self.out(out_BHTC.transpose(1, 2).flatten(2))

    def look(self, x_BD: Tensor, keys_values: tuple[Tensor, Tensor], mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """One query a sentence, written out: (out_BD, weights_BS averaged over the heads)."""
        key_BHSC, value_BHSC = keys_values
        query_BH1C = self.split(self.query(x_BD)[:, None])
        weights_BH1S = self.weights(scaled_dot_product(query_BH1C, key_BHSC, mask_BS[:, None, None]))
        out_BD = self.out((weights_BH1S @ value_BHSC).flatten(1))
        return out_BD, weights_BH1S.mean(dim=(1, 2))


class Form(nn.Module, abc.ABC):
    """One query looks at a source: weights a_s = softmax_s(score(h_t, h_s)) over the real positions s.

    A subclass says what the score is. What it needs of the source without knowing the query is made once for a sentence
    by `keys`. Both say what they cost. A letter: A width of a key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = AttentionWeights()

    def keys(self, memory_BSD: Tensor) -> Tensor:
        return memory_BSD

    @abc.abstractmethod
    def scores(self, query_BD: Tensor, keys_BSA: Tensor) -> Tensor:
        """scores_BS of the query with every position of the source."""

    def flops_keys(self, source_length: int) -> Flops:
        return NO_FLOPS

    @abc.abstractmethod
    def flops_scores(self, source_length: int) -> Flops:
        """Cost of `scores` for one query."""

    def forward(self, query_BD: Tensor, keys_BSA: Tensor, mask_BS: Tensor, focus_BS: Tensor | None = None) -> Tensor:
        """weights_BS; `focus_BS` multiplies them."""
        weights_BS = masked_softmax(self.scores(query_BD, keys_BSA), mask_BS)
        return self.weights(weights_BS if focus_BS is None else weights_BS * focus_BS)


class Additive(Form):
    """e_ij = v_a^T tanh(W_a s_{i-1} + U_a h_j).

    Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", appendix A.1.2. As
    there, v_a begins at zero, so every position begins with the same weight; W_a and U_a begin at N(0, 0.001^2).
    """

    def __init__(self, query_width: int, memory_width: int, units: int) -> None:
        super().__init__()
        self.W_a = nn.Linear(query_width, units, bias=False)
        self.U_a = nn.Linear(memory_width, units, bias=False)
        self.v_a = nn.Linear(units, 1, bias=False)
        nn.init.normal_(self.W_a.weight, std=0.001)
        nn.init.normal_(self.U_a.weight, std=0.001)
        nn.init.zeros_(self.v_a.weight)

    def keys(self, memory_BSD: Tensor) -> Tensor:
        return self.U_a(memory_BSD)

    def scores(self, query_BD: Tensor, keys_BSA: Tensor) -> Tensor:
        return self.v_a(torch.tanh(self.W_a(query_BD)[:, None] + keys_BSA)).squeeze(-1)

    def flops_keys(self, source_length: int) -> Flops:
        return product(source_length, self.U_a.in_features, self.U_a.out_features)

    def flops_scores(self, source_length: int) -> Flops:
        query_width, units = self.W_a.in_features, self.W_a.out_features
        return product(1, query_width, units) + product(source_length, units, 1)


class Dot(Form):
    """score(h_t, h_s) = h_t^T h_s.

    Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", equation 8; so are General,
    Concat and, equation 9, Location.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def scores(self, query_BD: Tensor, keys_BSA: Tensor) -> Tensor:
        return torch.bmm(keys_BSA, query_BD[:, :, None]).squeeze(-1)

    def flops_scores(self, source_length: int) -> Flops:
        return product(1, self.width, source_length)


class General(Dot):
    """score(h_t, h_s) = h_t^T W_a h_s."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.W_a = nn.Linear(width, width, bias=False)

    def keys(self, memory_BSD: Tensor) -> Tensor:
        return self.W_a(memory_BSD)

    def flops_keys(self, source_length: int) -> Flops:
        return product(source_length, self.width, self.width)


class Concat(Additive):
    """score(h_t, h_s) = v_a^T tanh(W_a [h_t; h_s]): the additive form, whose W_a and U_a are the two halves of W_a."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, width)


class Location(Form):
    """a_t = softmax(W_a h_t): from the query alone, one row of W_a for each place in a source.

    A short source uses the first rows; what lies beyond the last row is not looked at.
    """

    def __init__(self, width: int, places: int) -> None:
        super().__init__()
        self.W_a = nn.Linear(width, places, bias=False)

    def scores(self, query_BD: Tensor, keys_BSA: Tensor) -> Tensor:
        beyond = keys_BSA.shape[1] - self.W_a.out_features
        return functional.pad(self.W_a(query_BD), (0, beyond), value=-torch.inf)

    def flops_scores(self, source_length: int) -> Flops:
        return product(1, self.W_a.in_features, self.W_a.out_features)


class Factored(Form):
    """A(x_i, y_j) = sum_d V_d tanh((x_i U)_d) tanh((y_j W)_d): like the additive form, but a product.

    Shazeer et al. 2017, "Outrageously Large Neural Networks", appendix G, equation 22.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.U = nn.Linear(width, width, bias=False)
        self.W = nn.Linear(width, width, bias=False)
        self.V = nn.Parameter(torch.ones(width))

    def keys(self, memory_BSD: Tensor) -> Tensor:
        return torch.tanh(self.U(memory_BSD))

    def scores(self, query_BD: Tensor, keys_BSA: Tensor) -> Tensor:
        return torch.bmm(keys_BSA, (self.V * torch.tanh(self.W(query_BD)))[:, :, None]).squeeze(-1)

    def flops_keys(self, source_length: int) -> Flops:
        return product(source_length, self.width, self.width)

    def flops_scores(self, source_length: int) -> Flops:
        return product(1, self.width, self.width) + product(1, self.width, source_length)


def weighted_sum(weights_BS: Tensor, values_BSD: Tensor) -> Tensor:
    """c_BD = sum_s a_s h_s."""
    return torch.bmm(weights_BS[:, None], values_BSD).squeeze(1)
