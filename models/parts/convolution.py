"""Convolutions over a sentence, each computed as one dense product: every output position reads a window of inputs.

The matrix of the kernel multiplies a window, where nn.Conv1d could be called, so that whole sentences and single
decoding steps use the same code. The FLOPs are those that PyTorch counts for the convolution, zeros at the borders
included. Three architectures use `windows`. Only two (bytenet, convs2s) use `prepend_past`;
it is here because it is needed wherever `windows` is used in a causal convolution.

Letters: B batch  T length  P past positions  D width  K width of the kernel
"""

from __future__ import annotations

import torch
from torch import Tensor


def windows(x_BTD: Tensor, kernel: int, dilation: int = 1) -> Tensor:
    """Return [x_t; x_{t+r}; ...; x_{t+(K-1)r}] for every t whose window fits, r the dilation: (B, T - (K-1) r, K D)."""
    length = x_BTD.shape[1] - (kernel - 1) * dilation
    return torch.cat([x_BTD[:, tap * dilation : tap * dilation + length] for tap in range(kernel)], dim=-1)


def prepend_past(past_BPD: Tensor, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """Return (the P past inputs followed by x, the last P of these), which a causal convolution reads and caches."""
    inputs_BTD = torch.cat((past_BPD, x_BTD), dim=1)
    return inputs_BTD, inputs_BTD[:, x_BTD.shape[1] :]
