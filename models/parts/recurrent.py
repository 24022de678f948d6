"""Parts of recurrent architectures: fused layers, both directions, and one update of an LSTM written out.

`LSTMCell` is used by two architectures only (gnmt, luong). It is here because it is the same equation as
`lstm_update`, which deep_att and moe use without the cell.

Letters: B batch  S source length  D width of the state  E width of the input
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def run_fused(layers: Callable[[Tensor, Any], tuple[Tensor, Any]], x_BSE: Tensor, states: Any) -> tuple[Tensor, Any]:
    """Return layers(x, states), computed in fp32 under autocast on a GPU.

    Under autocast to bf16, cuDNN's recurrent layers compute in fp16 nevertheless (ATen/cudnn/AutocastRNN.cpp), and
    without a scaled loss the smallest gradients then underflow.
    """
    if not torch.is_autocast_enabled("cuda") or x_BSE.device.type != "cuda":
        return layers(x_BSE, states)
    with torch.autocast("cuda", enabled=False):
        states = tuple(state.float() for state in states) if isinstance(states, tuple) else states.float()
        return layers(x_BSE.float(), states)


class FusedLSTM(nn.LSTM):
    """One layer, one direction, fused, without biases.

    i, f, o = sigma(W x + U h) each, g = tanh(W_g x + U_g h), c' = f * c + i * g, h' = o * tanh(c'); with `projected`,
    the width of a projection P, h' = P (o * tanh(c')).
    """

    def __init__(self, input_width: int, width: int, projected: int = 0) -> None:
        super().__init__(input_width, width, bias=False, batch_first=True, proj_size=projected)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch uses other argument names
        self, x_BTD: Tensor, states: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        with warnings.catch_warnings():  # on a CPU in fp32 torch warns that oneDNN has no projections
            warnings.filterwarnings("ignore", "LSTM with projections")
            return run_fused(super().forward, x_BTD, states)


def both_directions(
    forwards: Callable[[Tensor, Any], tuple[Tensor, Any]],
    backwards: Callable[[Tensor, Any], tuple[Tensor, Any]],
    x_BSE: Tensor,
    reversal_BS: Tensor,
    states: Any,
) -> tuple[Tensor, Tensor]:
    """Return (forward_BSD, backward_BSD): the outputs of two layers, one of which reads the sentences from their ends.

    Each sentence is reversed within its own length. Padding comes after the words in both directions, where it does not
    change the output at any word.
    """
    forward_BSD, _ = forwards(x_BSE, states)
    backward_BSD, _ = backwards(reorder_positions(x_BSE, reversal_BS), states)
    return forward_BSD, reorder_positions(backward_BSD, reversal_BS)


def reorder_positions(x_BSD: Tensor, index_BS: Tensor) -> Tensor:
    """Return x[b, index[b, s]] for every b and s."""
    return x_BSD.gather(1, index_BS[..., None].expand_as(x_BSD))


def lstm_update(gates_B4D: Tensor, c_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Return (h', c') from the inputs of the gates, in the order i, f, o, g.

    i, f, o = sigma(their inputs), g = tanh(its input); c' = f * c + i * g, h' = o * tanh(c').
    """
    width = c_BD.shape[-1]
    i_BD, f_BD, o_BD = torch.sigmoid(gates_B4D[..., : 3 * width]).chunk(3, dim=-1)
    c_BD = f_BD * c_BD + i_BD * torch.tanh(gates_B4D[..., 3 * width :])
    return o_BD * torch.tanh(c_BD), c_BD


class LSTMCell(nn.Module):
    """i, f, o = sigma(W x + U h) each, g = tanh(W_g x + U_g h); c' = f * c + i * g, h' = o * tanh(c').

    The products with x and h are one product; the matrices of all gates are concatenated.
    """

    def __init__(self, input_width: int, width: int) -> None:
        super().__init__()
        self.gates = nn.Linear(input_width + width, 4 * width, bias=False)

    def forward(self, x_BE: Tensor, h_BD: Tensor, c_BD: Tensor, added_B4D: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return (h', c'); `added_B4D` is added to the inputs of the gates, for further inputs of the cell."""
        return lstm_update(self.gates(torch.cat((x_BE, h_BD), dim=1)) + added_B4D, c_BD)
