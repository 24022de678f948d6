"""The forms of attention in this project, each with its equation.

Attention is the subject of the project, so its forms are in this one file, to be read and compared, including those
that only one architecture uses. Two are parts of their architectures and stand there: multi-step attention
(models/convs2s.py) and the window of local attention (models/luong.py).

Each form scores a query against every source position, a softmax over the real positions turns the scores into weights,
and the result is the weighted sum of the values. The weights pass through the module `AttentionWeights`, so that a
forward hook can record them for any layer and head.

Letters: B batch  H heads  T queries  S keys (source positions)  D width  C width of one head
"""

from __future__ import annotations

import abc
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.parts.flops import NO_FLOPS, Flops, matmul_flops


class AttentionWeights(nn.Identity):
    """Identity on the attention weights. Register a forward hook on this module to record them."""

    @property
    def is_hooked(self) -> bool:
        """True if a hook is registered: the weights must then be computed, which a fused kernel does not do."""
        return bool(self._forward_hooks)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax over the last dimension, with weight exactly 0 where `mask` is False.

    A row without any real position (padding of a batch) gets equal weights instead of NaN.
    """
    return torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), dim=-1)


def scaled_dot_product(query_BHTC: Tensor, key_BHSC: Tensor, mask: Tensor) -> Tensor:
    """Return weights_BHTS = softmax(Q K^T / sqrt(d_k)) over the positions where `mask` (broadcast to BHTS) is True.

    Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1, equation 1.
    """
    scores_BHTS = query_BHTC @ key_BHSC.transpose(-2, -1) / math.sqrt(query_BHTC.shape[-1])
    return masked_softmax(scores_BHTS, mask)


def fused_attention(query_BHTC: Tensor, key_BHSC: Tensor, value_BHSC: Tensor, **settings: Any) -> Tensor:
    """Return scaled dot-product attention by PyTorch's fused kernel, on a CPU in fp32 even under autocast to bf16.

    There the backward pass of the kernel takes ten times as long in bf16 as the forward pass (docs/latency.md).
    """
    if query_BHTC.device.type != "cpu" or query_BHTC.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(query_BHTC, key_BHSC, value_BHSC, **settings)
    with torch.autocast("cpu", enabled=False):
        return functional.scaled_dot_product_attention(
            query_BHTC.float(), key_BHSC.float(), value_BHSC.float(), **settings
        )


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V).

    Vaswani et al. 2017, section 3.2.2. The W_i of all heads are concatenated in one matrix; no biases, as in the
    paper's equation. `dropout` is applied to the weights, as in the authors' tensor2tensor.

    Keys and values are computed separately (`keys_values`), so that a decoder computes those of the source once and
    caches those of its own past.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"model.width: {width} is not divisible by model.heads ({heads}); expected a multiple. "
                "Change one of the two."
            )
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.weights = AttentionWeights()

    def split_heads(self, x_BTD: Tensor) -> Tensor:
        """Return x_BHTC."""
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Return (key_BHSC, value_BHSC) of every position."""
        key_BSD, value_BSD = self.key_value(memory_BSD).chunk(2, dim=-1)
        return self.split_heads(key_BSD), self.split_heads(value_BSD)

    def forward(
        self, x_BTD: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        """Return out_BTD.

        Args:
            x_BTD: Input of the queries.
            keys_values: Result of `keys_values`.
            mask: Broadcast to BHTS, True where a query may attend; None: everywhere.
            causal: Query t attends to keys 0..t only. Give no mask then: padding is on the right, where no real query
                attends anyway, and the fused kernel is faster without a mask.
        """
        query_BHTC, (key_BHSC, value_BHSC) = self.split_heads(self.query(x_BTD)), keys_values
        if self.weights.is_hooked:
            if causal:
                mask = x_BTD.new_ones(x_BTD.shape[1], key_BHSC.shape[2], dtype=torch.bool).tril()
            elif mask is None:
                mask = x_BTD.new_ones((), dtype=torch.bool)
            weights_BHTS = self.weights(scaled_dot_product(query_BHTC, key_BHSC, mask))
            out_BHTC = functional.dropout(weights_BHTS, self.dropout, self.training) @ value_BHSC
        else:
            out_BHTC = fused_attention(
                query_BHTC,
                key_BHSC,
                value_BHSC,
                attn_mask=mask,
                dropout_p=self.dropout if self.training else 0.0,
                is_causal=causal,
            )
        return self.out(out_BHTC.transpose(1, 2).flatten(2))

    def forward_with_weights(
        self, x_BD: Tensor, keys_values: tuple[Tensor, Tensor], mask_BS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (out_BD, weights_BS averaged over the heads) for one query per sentence, without a fused kernel."""
        key_BHSC, value_BHSC = keys_values
        query_BH1C = self.split_heads(self.query(x_BD)[:, None])
        weights_BH1S = self.weights(scaled_dot_product(query_BH1C, key_BHSC, mask_BS[:, None, None]))
        out_BD = self.out((weights_BH1S @ value_BHSC).flatten(1))
        return out_BD, weights_BH1S.mean(dim=(1, 2))


class Attention(nn.Module, abc.ABC):
    """Attention with one query per sentence: weights a_s = softmax_s(score(h_t, h_s)) over the real positions s.

    A subclass defines the score. `keys` computes, once for each sentence, the part of the score that does not depend on
    the query. Letter: A width of a key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = AttentionWeights()

    def keys(self, memory_BSD: Tensor) -> Tensor:
        """Return keys_BSA, the input of `scores`. Default: the memory itself."""
        return memory_BSD

    @abc.abstractmethod
    def scores(self, query_BD: Tensor, keys_BSA: Tensor) -> Tensor:
        """Return scores_BS of the query with every source position."""

    def flops_keys(self, source_length: int) -> Flops:
        """Return the FLOPs of `keys`."""
        return NO_FLOPS

    @abc.abstractmethod
    def flops_scores(self, source_length: int) -> Flops:
        """Return the FLOPs of `scores` for one query."""

    def forward(self, query_BD: Tensor, keys_BSA: Tensor, mask_BS: Tensor, factor_BS: Tensor | None = None) -> Tensor:
        """Return weights_BS, multiplied by `factor_BS` if it is given."""
        weights_BS = masked_softmax(self.scores(query_BD, keys_BSA), mask_BS)
        return self.weights(weights_BS if factor_BS is None else weights_BS * factor_BS)


class AdditiveAttention(Attention):
    """e_ij = v_a^T tanh(W_a s_{i-1} + U_a h_j).

    Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", appendix A.1.2.
    Initialized as there: v_a with zeros, so that all positions have the same weight at first; W_a and U_a with
    N(0, 0.001^2).
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
        return matmul_flops(source_length, self.U_a.in_features, self.U_a.out_features)

    def flops_scores(self, source_length: int) -> Flops:
        query_width, units = self.W_a.in_features, self.W_a.out_features
        return matmul_flops(1, query_width, units) + matmul_flops(source_length, units, 1)


class DotAttention(Attention):
    """score(h_t, h_s) = h_t^T h_s.

    Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", section 3.1,
    below equation 7, as the general and the concat score; the location score is equation 8.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def scores(self, query_BD: Tensor, keys_BSA: Tensor) -> Tensor:
        return torch.bmm(keys_BSA, query_BD[:, :, None]).squeeze(-1)

    def flops_scores(self, source_length: int) -> Flops:
        return matmul_flops(1, self.width, source_length)


class GeneralAttention(DotAttention):
    """score(h_t, h_s) = h_t^T W_a h_s."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.W_a = nn.Linear(width, width, bias=False)

    def keys(self, memory_BSD: Tensor) -> Tensor:
        return self.W_a(memory_BSD)

    def flops_keys(self, source_length: int) -> Flops:
        return matmul_flops(source_length, self.width, self.width)


class ConcatAttention(AdditiveAttention):
    """score(h_t, h_s) = v_a^T tanh(W_a [h_t; h_s]): the additive score; W_a and U_a are the halves of this W_a."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, width)


class LocationAttention(Attention):
    """a_t = softmax(W_a h_t): the score depends on the query only; W_a has one row for each source position.

    A short source uses the first rows. Positions beyond the last row get weight 0.
    """

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        self.W_a = nn.Linear(width, positions, bias=False)

    def scores(self, query_BD: Tensor, keys_BSA: Tensor) -> Tensor:
        missing = keys_BSA.shape[1] - self.W_a.out_features  # a negative number removes scores
        return functional.pad(self.W_a(query_BD), (0, missing), value=-torch.inf)

    def flops_scores(self, source_length: int) -> Flops:
        return matmul_flops(1, self.W_a.in_features, self.W_a.out_features)


class FactoredAttention(Attention):
    """A(x_i, y_j) = sum_d V_d tanh((x_i U)_d) tanh((y_j W)_d): the additive score, with a product instead of a sum.

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
        return matmul_flops(source_length, self.width, self.width)

    def flops_scores(self, source_length: int) -> Flops:
        return matmul_flops(1, self.width, self.width) + matmul_flops(1, self.width, source_length)


def weighted_sum(weights_BS: Tensor, values_BSD: Tensor) -> Tensor:
    """Return c_BD = sum_s a_s h_s."""
    return torch.bmm(weights_BS[:, None], values_BSD).squeeze(1)
