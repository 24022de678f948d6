"""A reference LSTM: its equations written out one position at a time, for comparison with the fused layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PYTORCH_ORDER = "ifgo"
"""The order of the gates in the matrices of nn.LSTM: input, forget, candidate, output."""


def lstm_step(gates_4D: Tensor, c_D: Tensor, order: str) -> tuple[Tensor, Tensor]:
    """Return the next (h, c) from the inputs of the four gates; `order` names the gates as the matrices have them."""
    gate = dict(zip(order, gates_4D.chunk(4), strict=True))
    c_D = torch.sigmoid(gate["f"]) * c_D + torch.sigmoid(gate["i"]) * torch.tanh(gate["g"])
    return torch.sigmoid(gate["o"]) * torch.tanh(c_D), c_D


def run_lstm(layers: nn.LSTM, x_TE: Tensor, number: int = 0) -> tuple[Tensor, Tensor]:
    """Return (h_TD of every position, the last cell) of one layer of `layers`, from zeros; projections included."""
    w_x, w_h = (layers.get_parameter(f"weight_{name}_l{number}") for name in ("ih", "hh"))
    w_p = layers.get_parameter(f"weight_hr_l{number}") if layers.proj_size else None
    h_D, c_C, states = x_TE.new_zeros(w_h.shape[1]), x_TE.new_zeros(len(w_h) // 4), []
    for x_E in x_TE:
        h_D, c_C = lstm_step(w_x @ x_E + w_h @ h_D, c_C, PYTORCH_ORDER)
        h_D = h_D if w_p is None else w_p @ h_D
        states.append(h_D)
    return torch.stack(states), c_C
