"""The cross entropy in blocks against that of PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bench.measures.flops import count
from models.parts import cross_entropy as module
from models.parts.cross_entropy import cross_entropy

SHAPES = {
    "blocks": (40, 24),
    "a last block that is smaller": (37, 24),
    "one block": (3, 24),
    "one row a block": (5, 500),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 200)
    monkeypatch.setattr(module, "MANY", 1)


def example(tokens: int, vocabulary: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels, and the gradient of each loss."""
    torch.manual_seed(1)
    logits_NV = (3 * torch.randn(tokens, vocabulary)).to(dtype).requires_grad_()
    return logits_NV, torch.randint(vocabulary, (tokens,)), torch.rand(tokens)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_losses_and_gradients_are_those_of_pytorch(shape: tuple[int, int], label_smoothing: float) -> None:
    logits_NV, labels_N, weights_N = example(*shape)
    losses_N = cross_entropy(logits_NV, labels_N, label_smoothing)
    (gradient_NV,) = torch.autograd.grad(losses_N @ weights_N.double(), logits_NV)
    expected_N = functional.cross_entropy(logits_NV, labels_N, label_smoothing=label_smoothing, reduction="none")
    (expected_NV,) = torch.autograd.grad(expected_N @ weights_N.double(), logits_NV)
    assert "InBlocks" in type(losses_N.grad_fn).__name__
    assert "InBlocks" not in type(expected_N.grad_fn).__name__
    torch.testing.assert_close(losses_N, expected_N, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradient_NV, expected_NV, rtol=1e-12, atol=1e-15)


def test_logits_in_bf16_have_a_loss_in_fp32() -> None:
    logits_NV, labels_N, weights_N = example(40, 24, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        losses_N = cross_entropy(logits_NV, labels_N, 0.1)
    expected_N = functional.cross_entropy(logits_NV.float(), labels_N, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(losses_N, expected_N)
    (gradient_NV,) = torch.autograd.grad(losses_N @ weights_N, logits_NV)
    (expected_NV,) = torch.autograd.grad(expected_N @ weights_N, logits_NV)
    torch.testing.assert_close(gradient_NV, expected_NV)


def test_an_impossible_token_costs_nothing_without_smoothing() -> None:
    logits_NV, labels_N, _ = example(40, 24)
    with torch.no_grad():
        logits_NV[:, 0] = -torch.inf
    assert cross_entropy(logits_NV, labels_N.clamp(min=1)).isfinite().all()


def test_few_logits_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_NV, labels_N, _ = example(40, 24)
    monkeypatch.setattr(module, "MANY", logits_NV.numel() + 1)
    found_N = cross_entropy(logits_NV, labels_N, 0.1)
    assert torch.equal(found_N, functional.cross_entropy(logits_NV, labels_N, label_smoothing=0.1, reduction="none"))


def test_no_flops_are_counted_for_a_loss() -> None:
    logits_NV, labels_N, weights_N = example(40, 24)
    assert count(lambda: (cross_entropy(logits_NV, labels_N, 0.1) * weights_N).sum().backward()) == 0
