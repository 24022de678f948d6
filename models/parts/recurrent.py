"""Parts of recurrent architectures: one step of an LSTM written out, and reading a sentence in both directions.

Letters: B batch  S source length  D width of the state  E width of the input
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
