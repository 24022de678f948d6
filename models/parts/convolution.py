"""Convolutions over a sentence as one dense product each: every output position reads the window of inputs before it.

torch's counter charges every tap of a convolution, those on zeros at the borders too; so does the product of a window
with the kernel's matrix, which is the same number of multiplications, and one code path for whole sentences and steps.

Letters: B batch  T length  D width  K width of the kernel
"""

from __future__ import annotations

import torch
from torch import Tensor


def windows(x_BTD: Tensor, kernel: int, dilation: int = 1) -> Tensor:
    """[x_t; x_{t+r}; ...; x_{t+(K-1)r}], r the dilation, of every t whose window fits: (B, T - (K-1) r, K D)."""
    length = x_BTD.shape[1] - (kernel - 1) * dilation
    return torch.cat([x_BTD[:, tap * dilation : tap * dilation + length] for tap in range(kernel)], dim=-1)


def after(before_BPD: Tensor, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """(the inputs x with the P inputs before them, the last P of all): what a causal convolution reads and caches."""
    inputs_BTD = torch.cat((before_BPD, x_BTD), dim=1)
    return inputs_BTD, inputs_BTD[:, x_BTD.shape[1] :]
