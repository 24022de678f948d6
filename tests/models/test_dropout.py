"""Dropout on a CPU: shares, scale and independence of masks, and what it leaves to PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.parts.dropout import Dropout

NUMBERS = 1_000_003  # no multiple of the four masks in a random number


def dropped(p: float, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return Dropout(p)(torch.ones(NUMBERS, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
def test_a_share_p_is_zero_and_the_rest_is_scaled(p: float, dtype: torch.dtype) -> None:
    y = dropped(p, dtype)
    assert y.dtype == dtype
    share = (y == 0).double().mean().item()
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / NUMBERS)
    scale = torch.tensor(1 / (1 - round(p * 2**16) / 2**16), dtype=torch.float32).to(dtype)
    assert y.unique().tolist() == [0, scale.item()]
    assert scale.item() == pytest.approx(1 / (1 - p), rel=1e-4 if dtype == torch.float32 else 0.01)


def test_masks_are_independent_of_their_neighbours() -> None:
    """Four masks come from one random number; those at distances up to eight are uncorrelated."""
    mask = (dropped(0.3) == 0).double() - 0.3
    for distance in range(1, 9):
        correlation = (mask[distance:] * mask[:-distance]).mean().item() / (0.3 * 0.7)
        assert abs(correlation) < 4 / math.sqrt(NUMBERS), distance


def test_the_gradient_is_zero_where_the_input_was_dropped() -> None:
    x = torch.randn(7, 11, requires_grad=True)
    torch.manual_seed(1)
    y = Dropout(0.4)(x)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    torch.testing.assert_close(y, x * x.grad)
    assert 0 < (x.grad == 0).sum() < x.numel()


@pytest.mark.parametrize(("p", "dtype"), [(0.3, torch.float64), (0.0, torch.float32), (1.0, torch.float32)])
def test_float64_and_certain_masks_are_those_of_pytorch(p: float, dtype: torch.dtype) -> None:
    x = torch.randn(50, dtype=dtype)
    results = []
    for module in (Dropout(p), nn.Dropout(p)):
        torch.manual_seed(1)
        results.append(module(x))
    assert torch.equal(*results)


def test_evaluation_mode_is_the_identity_and_draws_nothing() -> None:
    x, before = torch.randn(50), torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_repeats_the_masks_and_updates_draw_others() -> None:
    assert torch.equal(dropped(0.5), dropped(0.5))
    x, module = torch.ones(100), Dropout(0.5)
    assert not torch.equal(module(x), module(x))
