"""The forms of attention compared with their equations and with the examples of the slides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.parts.attention import (
    AdditiveAttention,
    MultiHeadAttention,
    masked_softmax,
    scaled_dot_product,
    weighted_sum,
)


def test_scaled_dot_product_of_the_slides() -> None:
    """Here q1.k1 = 112 and q1.k2 = 96; divided by sqrt(64) = 8: 14 and 12; softmax: 0.88 and 0.12."""
    query_11T64 = torch.ones(1, 1, 1, 64)
    key_11S64 = torch.stack((torch.full((64,), 112 / 64), torch.full((64,), 96 / 64)))[None, None]
    products = (query_11T64 @ key_11S64.transpose(-2, -1)).flatten()
    assert products.tolist() == [112, 96]
    assert (products / 8).tolist() == [14, 12]
    weights = scaled_dot_product(query_11T64, key_11S64, torch.ones(2, dtype=torch.bool)).flatten()
    assert [round(weight, 2) for weight in weights.tolist()] == [0.88, 0.12]


def test_weighted_sum_of_the_slides() -> None:
    """Word vectors with weights 0.1, 0.055, 0.8, 0.045, which sum to 1."""
    weights_BS = torch.tensor([[0.1, 0.055, 0.8, 0.045]], dtype=torch.float64)
    assert weights_BS.sum().item() == pytest.approx(1)
    values_BSD = torch.tensor([[[1, 2], [-4, 0], [10, 0.5], [0, 100]]], dtype=torch.float64)
    assert weighted_sum(weights_BS, values_BSD).tolist() == [
        [pytest.approx(0.1 - 0.22 + 8), pytest.approx(0.2 + 0.4 + 4.5)]
    ]


def test_masked_position_has_zero_weight_and_zero_gradient() -> None:
    scores = torch.tensor([[1.0, 2.0, 50.0]], requires_grad=True)
    weights = masked_softmax(scores, torch.tensor([True, True, False]))
    assert weights[0, 2] == 0
    torch.testing.assert_close(weights[0, :2], torch.softmax(torch.tensor([1.0, 2.0]), dim=0))
    weights[0, 0].backward()
    assert scores.grad is not None
    assert scores.grad[0, 2] == 0


def test_row_of_padding_only_has_equal_weights() -> None:
    assert masked_softmax(torch.randn(1, 4), torch.zeros(4, dtype=torch.bool)).tolist() == [[0.25] * 4]


def build_multi_head() -> tuple[MultiHeadAttention, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x_BTD, memory_BSD = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    mask_BS = torch.tensor([[True] * 5, [True, True, True, False, False]])
    return MultiHeadAttention(8, heads=2, dropout=0.0).double(), x_BTD, memory_BSD, mask_BS


def test_multi_head_attention_is_the_concatenation_of_its_heads() -> None:
    """Section 3.2.2, head by head: rows of the stacked matrices are W_i^Q, W_i^K, W_i^V."""
    attention, x_BTD, memory_BSD, mask_BS = build_multi_head()
    w_k, w_v = attention.key_value.weight.chunk(2)
    heads = []
    for head in range(2):
        rows = slice(4 * head, 4 * head + 4)
        query_BTC, key_BSC = x_BTD @ attention.query.weight[rows].T, memory_BSD @ w_k[rows].T
        scores_BTS = query_BTC @ key_BSC.transpose(1, 2) / 4**0.5
        weights_BTS = torch.softmax(scores_BTS.masked_fill(~mask_BS[:, None], -torch.inf), dim=-1)
        heads.append(weights_BTS @ (memory_BSD @ w_v[rows].T))
    wanted_BTD = torch.cat(heads, dim=-1) @ attention.out.weight.T
    found_BTD = attention(x_BTD, attention.keys_values(memory_BSD), mask_BS[:, None, None])
    torch.testing.assert_close(found_BTD, wanted_BTD, atol=1e-12, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
def test_result_with_a_hook_equals_that_of_the_fused_kernel(causal: bool) -> None:
    attention, x_BTD, memory_BSD, mask_BS = build_multi_head()
    memory_BSD, mask = (x_BTD, None) if causal else (memory_BSD, mask_BS[:, None, None])
    fused_BTD = attention(x_BTD, attention.keys_values(memory_BSD), mask, causal=causal)
    recorded: list[Tensor] = []

    def record(_module: Any, _inputs: Any, weights: Tensor) -> None:
        recorded.append(weights)

    attention.weights.register_forward_hook(record)
    hooked_BTD = attention(x_BTD, attention.keys_values(memory_BSD), mask, causal=causal)
    torch.testing.assert_close(hooked_BTD, fused_BTD, atol=1e-12, rtol=0)
    (weights_BHTS,) = recorded
    torch.testing.assert_close(weights_BHTS.sum(dim=-1), torch.ones(2, 2, 3, dtype=torch.float64))
    if causal:
        assert (weights_BHTS.triu(diagonal=1) == 0).all()
    else:
        assert (weights_BHTS[1, :, :, 3:] == 0).all()


class KernelInputs(TorchDispatchMode):
    """Records the precision of the inputs of fused attention, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = list[torch.dtype]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "scaled_dot_product" in str(func):
            self.seen.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_fused_attention_is_in_fp32_under_bf16_on_a_cpu() -> None:
    """In bf16 the backward pass of the kernel takes ten times as long as the forward pass."""
    attention, x_BTD, memory_BSD, mask_BS = build_multi_head()
    attention.float()
    with KernelInputs() as kernels, torch.autocast("cpu", torch.bfloat16):
        found_BTD = attention(x_BTD.float(), attention.keys_values(memory_BSD.float()), mask_BS[:, None, None])
        found_BTD.float().sum().backward()
    assert len(kernels.seen) == 2
    assert set(kernels.seen) == {torch.float32}
    assert found_BTD.dtype == torch.bfloat16


def test_single_query_with_weights_equals_many_queries() -> None:
    attention, x_BTD, memory_BSD, mask_BS = build_multi_head()
    many_BTD = attention(x_BTD, attention.keys_values(memory_BSD), mask_BS[:, None, None])
    one_BD, weights_BS = attention.forward_with_weights(x_BTD[:, 1], attention.keys_values(memory_BSD), mask_BS)
    torch.testing.assert_close(one_BD, many_BTD[:, 1], atol=1e-12, rtol=0)
    torch.testing.assert_close(weights_BS.sum(dim=1), torch.ones(2, dtype=torch.float64))
    assert (weights_BS[1, 3:] == 0).all()


def test_width_that_is_not_divisible_by_heads_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.width: 8 is not divisible by model\.heads \(3\)"):
        MultiHeadAttention(8, heads=3, dropout=0.0)


def build_additive() -> tuple[AdditiveAttention, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    query_BD, memory_BSD = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)
    mask_BS = torch.tensor([[True] * 4, [True, True, False, False]])
    return AdditiveAttention(3, 6, units=5).double(), query_BD, memory_BSD, mask_BS


def test_additive_attention_equals_its_equation() -> None:
    """e_ij = v_a^T tanh(W_a s_{i-1} + U_a h_j), one number at a time."""
    attention, query_BD, memory_BSD, mask_BS = build_additive()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    w_a, u_a, v_a = attention.W_a.weight, attention.U_a.weight, attention.v_a.weight[0]
    found_BS = attention(query_BD, attention.keys(memory_BSD), mask_BS)
    for sentence, length in enumerate((4, 2)):
        e_S = torch.stack(
            [
                (v_a * torch.tanh(w_a @ query_BD[sentence] + u_a @ memory_BSD[sentence, position])).sum()
                for position in range(length)
            ]
        )
        torch.testing.assert_close(found_BS[sentence, :length], e_S.exp() / e_S.exp().sum(), atol=1e-12, rtol=0)
    assert (found_BS[1, 2:] == 0).all()
    assert found_BS.std() > 0.01


def test_initial_additive_attention_is_uniform() -> None:
    attention, query_BD, memory_BSD, mask_BS = build_additive()
    found_BS = attention(query_BD, attention.keys(memory_BSD), mask_BS)
    assert found_BS.tolist() == [[0.25] * 4, [0.5, 0.5, 0, 0]]
    assert attention.W_a.weight.abs().max() > 0  # so that v_a gets a gradient
