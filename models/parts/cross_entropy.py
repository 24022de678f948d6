"""Cross entropy with label smoothing; on a CPU that of many logits in blocks of rows that stay in its cache.

PyTorch's own writes and reads the whole matrix about ten times in an update. With large batches and a vocabulary of
10,000 subwords this traffic takes longer than the matrix products of a small model.

Letters: N tokens  V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

BLOCK = 2**18
"""Logits of a block, 1 MB in fp32."""

MANY = 2**24
"""Logits from which blocks are used, 64 MB in fp32; with fewer they gain little (docs/latency.md)."""


def cross_entropy(logits_NV: Tensor, labels_N: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return loss_N in nats: that of `torch.nn.functional.cross_entropy`, at least in fp32.

    With label smoothing s (Szegedy et al. 2016, section 7) it is

        loss = (s - 1) log p_label - s / V sum_v log p_v        p = softmax(z)
    """
    if logits_NV.device.type != "cpu" or logits_NV.numel() < MANY:
        return functional.cross_entropy(logits_NV, labels_N, label_smoothing=label_smoothing, reduction="none")
    return _InBlocks.apply(logits_NV, labels_N, label_smoothing)  # pyright: ignore[reportReturnType]  # of any class


class _InBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, labels_N: Tensor, smoothing: float) -> Tensor:
        losses_N = torch.empty(labels_N.shape, dtype=_precise(logits_NV))
        for rows in _blocks(*logits_NV.shape):
            log_RV = torch.log_softmax(logits_NV[rows], 1, dtype=losses_N.dtype)
            losses_N[rows] = (smoothing - 1) * log_RV.gather(1, labels_N[rows, None])[:, 0]
            if smoothing:  # else 0 x the mean of logarithms of which one may be minus infinity
                losses_N[rows] -= smoothing * log_RV.mean(1)
        ctx.save_for_backward(logits_NV, labels_N)
        ctx.smoothing = smoothing
        return losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient of z_v: p_v - s / V, and s - 1 more at the label."""
        logits_NV, labels_N = ctx.saved_tensors
        (gradient_N,), smoothing = gradients, ctx.smoothing
        gradient_NV = torch.empty_like(logits_NV)
        for rows in _blocks(*logits_NV.shape):
            block_RV = torch.softmax(logits_NV[rows], 1, dtype=gradient_N.dtype)
            if smoothing:
                block_RV -= smoothing / logits_NV.shape[1]
            at_label_R1 = torch.full_like(gradient_N[rows, None], smoothing - 1)
            block_RV.scatter_add_(1, labels_N[rows, None], at_label_R1)
            gradient_NV[rows] = block_RV.mul_(gradient_N[rows, None])
        return gradient_NV, None, None


def _precise(logits: Tensor) -> torch.dtype:
    """The precision of the loss: sums over a vocabulary need fp32."""
    return torch.promote_types(logits.dtype, torch.float32)


def _blocks(rows: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, BLOCK // vocabulary)
    for begin in range(0, rows, size):
        yield slice(begin, begin + size)
