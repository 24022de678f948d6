"""Parts of recurrent architectures: fused layers, one step of an LSTM written out, reading in both directions.

Letters: B batch  S source length  D width of the state  E width of the input
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def fused(layers: Callable[[Tensor, Any], tuple[Tensor, Any]], x_BSE: Tensor, states: Any) -> tuple[Tensor, Any]:
    """layers(x, states); on a GPU in fp32 under autocast, too.

    There autocast to bf16 has cuDNN's recurrent layers compute in fp16 all the same (ATen/cudnn/AutocastRNN.cpp), whose
    smallest gradients are lost without a scaled loss.
    """
    if not torch.is_autocast_enabled("cuda") or x_BSE.device.type != "cuda":
        return layers(x_BSE, states)
    with torch.autocast("cuda", enabled=False):
        states = tuple(state.float() for state in states) if isinstance(states, tuple) else states.float()
        return layers(x_BSE.float(), states)


def reorder(x_BSD: Tensor, index_BS: Tensor) -> Tensor:
    """x[b, index[b, s]] for every b and s."""
    return x_BSD.gather(1, index_BS[..., None].expand_as(x_BSD))


def lstm(gates_B4D: Tensor, c_BD: Tensor) -> tuple[Tensor, Tensor]:
    """(h', c'): i, f, o = sigma(their gates), g = tanh(its gate); c' = f * c + i * g, h' = o * tanh(c')."""
    width = c_BD.shape[-1]
    i_BD, f_BD, o_BD = torch.sigmoid(gates_B4D[..., : 3 * width]).chunk(3, dim=-1)
    c_BD = f_BD * c_BD + i_BD * torch.tanh(gates_B4D[..., 3 * width :])
    return o_BD * torch.tanh(c_BD), c_BD


class Cell(nn.Module):
    """i, f, o = sigma(W x + U h) each, g = tanh(W_g x + U_g h); c' = f * c + i * g, h' = o * tanh(c').

    The products with x and h are one, with the matrices of all gates side by side.
    """

    def __init__(self, input_width: int, width: int) -> None:
        super().__init__()
        self.gates = nn.Linear(input_width + width, 4 * width, bias=False)

    def forward(self, x_BE: Tensor, h_BD: Tensor, c_BD: Tensor, more_B4D: Tensor | float) -> tuple[Tensor, Tensor]:
        """(h', c'); `more_B4D` is what other inputs add to the gates."""
        return lstm(self.gates(torch.cat((x_BE, h_BD), dim=1)) + more_B4D, c_BD)
