"""Dropout, with masks that are drawn quickly on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BITS = 16
"""Random bits that decide about a number on a CPU."""


class Dropout(nn.Dropout):
    """y = x * m / (1 - p) in training, where each m is 0 with probability p, else 1; the identity in evaluation mode.

    Srivastava et al. (2014), with the scaling in training instead of evaluation. Shapes: any; y has that of x.

    On a CPU whose maker is not Intel, PyTorch draws masks one by one, for 5 to 8 % of an update of a Transformer. Here
    16 bits of its generator decide about a number, so p is rounded to a multiple of 2^-16, by at most 8e-6, also where
    it scales; that is less than half the time (docs/latency.md). float64, in which implementations are compared, and
    other devices use PyTorch's dropout.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        dropped = round(self.p * 2**BITS)  # of 2^16 equally likely numbers
        usual = input.device.type != "cpu" or input.dtype == torch.float64
        if usual or dropped in (0, 2**BITS):
            return super().forward(input)
        draws = torch.empty(-(-input.numel() * BITS // 64), dtype=torch.int64).random_(-(2**63), None)
        draws = draws.view(torch.int16)[: input.numel()].view(input.shape)  # from -2^15 to 2^15 - 1
        mask = (draws >= dropped - 2 ** (BITS - 1)).to(input.dtype)
        return input * mask.mul_(2**BITS / (2**BITS - dropped))
