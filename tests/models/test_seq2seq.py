"""Encoder-decoders without attention: fused cells compared with their equations, padding, details of each paper."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from models.parts.batch import BOS, EOS, Tokens
from models.seq2seq import Config, Model, Recurrence
from tests.helpers.reference_lstm import PYTORCH_ORDER, lstm_step

CellType = Literal["elman", "gru", "lstm"]
CELLS: tuple[CellType, ...] = ("elman", "gru", "lstm")


def sentence(*ids: int) -> Tokens:
    return Tokens(torch.tensor([ids]), (len(ids),))


def build(cell: CellType, **settings: int | bool) -> Model:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"layers": 2, "embedding": 5, "hidden": 6, "maxout": 4} | settings
    model = Model(Config(cell=cell, **sizes), 30, 40).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def run_layer(
    cell: str, x_TE: Tensor, weights: list[Tensor], biases: list[Tensor], h_D: Tensor, c_D: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (h of every position, the last c) of one layer, by the equations in the docstring of Recurrence.

    `weights` and `biases` are those of the input and those of the state.
    """
    h_TD = []
    for x_E in x_TE:
        from_x, from_h = weights[0] @ x_E, weights[1] @ h_D
        if biases:
            from_x, from_h = from_x + biases[0], from_h + biases[1]
        if cell == "elman":
            h_D = torch.tanh(from_x + from_h)
        elif cell == "gru":
            (xr, xz, xn), (hr, hz, hn) = from_x.chunk(3), from_h.chunk(3)
            r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
            h_D = (1 - z) * torch.tanh(xn + r * hn) + z * h_D
        else:
            h_D, c_D = lstm_step(from_x + from_h, c_D, PYTORCH_ORDER)
        h_TD.append(h_D)
    return torch.stack(h_TD), c_D


def run_reference(
    recurrence: Recurrence, cell: str, x_TE: Tensor, states: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (h_TD of the top layer, last h_LD, last c_LD); `states` are h_LD and c_LD before the first position."""
    last_h, last_c = [], []
    of_layers = dict(recurrence.layers.named_parameters())
    assert any("bias" in name for name in of_layers) == (cell == "gru")
    for layer in range(2):
        weights, biases = (
            [of_layers[name] for part in ("ih", "hh") if (name := f"{kind}_{part}_l{layer}") in of_layers]
            for kind in ("weight", "bias")
        )
        x_TE, c_D = run_layer(cell, x_TE, weights, biases, states[0][layer], states[-1][layer])
        last_h.append(x_TE[-1])
        last_c.append(c_D)
    return x_TE, torch.stack(last_h), torch.stack(last_c)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_fused_cells_equal_their_equations(cell: CellType, dtype: torch.dtype, tolerance: float) -> None:
    recurrence = build(cell).encoder.to(dtype)
    x_BTE = torch.randn(3, 7, 5, dtype=dtype)
    states = tuple(torch.randn(3, 2, 6, dtype=dtype) for _ in range(2 if cell == "lstm" else 1))
    h_BTD, last = recurrence(x_BTE, states)
    for row in range(3):
        top_TD, h_LD, c_LD = run_reference(recurrence, cell, x_BTE[row], [state[row] for state in states])
        torch.testing.assert_close(h_BTD[row], top_TD, atol=tolerance, rtol=0)
        for found, wanted in zip(last, (h_LD, c_LD), strict=False):
            torch.testing.assert_close(found[row], wanted, atol=tolerance, rtol=0)
    assert len(last) == len(states)


@pytest.mark.parametrize("cell", ["elman", "lstm"])
@pytest.mark.parametrize("reverse", [False, True])
def test_memory_has_the_exact_last_states_for_any_padding(cell: CellType, reverse: bool) -> None:
    """The states of every layer, with an LSTM's cells, equal those of each sentence alone by the equations."""
    model = build(cell, reverse=reverse)
    lengths = (6, 2, 4)
    ids_BS = torch.tensor([[11, 12, 13, 14, 15, EOS], [21, EOS, 0, 0, 0, 0], [16, 17, 18, EOS, 0, 0]])
    memory = model.encode(Tokens(ids_BS, lengths))
    assert len(memory) == (2 if cell == "lstm" else 1)
    for row, length in enumerate(lengths):
        ids_S = ids_BS[row, :length].flip(0) if reverse else ids_BS[row, :length]
        zeros = [torch.zeros(2, 6, dtype=torch.float64)] * 2
        _, *states = run_reference(model.encoder, cell, model.source_embedding(ids_S), zeros)
        for found, wanted in zip(memory, states, strict=False):
            torch.testing.assert_close(found[row], wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("reverse", [False, True])
def test_summary_of_the_gru_is_that_of_its_top_layer_for_any_padding(reverse: bool) -> None:
    """The summary c = tanh(V h_S + b_V) is that of each sentence alone: the biases do not act on padding."""
    model = build("gru", reverse=reverse)
    lengths = (6, 2, 4)
    ids_BS = torch.tensor([[11, 12, 13, 14, 15, EOS], [21, EOS, 0, 0, 0, 0], [16, 17, 18, EOS, 0, 0]])
    summary_BD, _ = model.encode(Tokens(ids_BS, lengths))
    v, b_v = model.bridge.get_parameter("V.weight"), model.bridge.get_parameter("V.bias")
    for row, length in enumerate(lengths):
        ids_S = ids_BS[row, :length].flip(0) if reverse else ids_BS[row, :length]
        zeros = [torch.zeros(2, 6, dtype=torch.float64)] * 2
        h_SD, _, _ = run_reference(model.encoder, "gru", model.source_embedding(ids_S), zeros)
        torch.testing.assert_close(summary_BD[row], torch.tanh(v @ h_SD[-1] + b_v), atol=1e-10, rtol=0)


def test_lstm_decoder_starts_from_the_encoder_states() -> None:
    model = build("lstm")
    memory = model.encode(sentence(11, 12, EOS))
    found_TD = model.decode(memory, sentence(BOS, 21, 22))[0]
    words_TE = model.target_embedding(torch.tensor([BOS, 21, 22]))
    wanted_TD, _, _ = run_reference(model.decoder, "lstm", words_TE, [state[0] for state in memory])
    torch.testing.assert_close(found_TD, wanted_TD, atol=1e-10, rtol=0)


def test_gru_decoder_and_readout_read_the_summary_at_every_step() -> None:
    model = build("gru", layers=2, reverse=False)
    source, prefix = sentence(11, 12, EOS), torch.tensor([BOS, 21, 22])
    bridge = model.bridge
    v, v_prime, o_h, o_y, o_c, g_r = (
        bridge.get_parameter(f"{name}.weight") for name in ("V", "V_prime", "O_h", "O_y", "O_c", "G_r")
    )
    b_v, b_v_prime, b_o = (bridge.get_parameter(f"{name}.bias") for name in ("V", "V_prime", "O_h"))
    zeros = [torch.zeros(2, 6, dtype=torch.float64)] * 2
    h_SD, _, _ = run_reference(model.encoder, "gru", model.source_embedding(source.ids_BS[0]), zeros)
    c_D = torch.tanh(v @ h_SD[-1] + b_v)
    first_LD = torch.tanh(v_prime @ c_D + b_v_prime).view(2, 6)
    words_TE = model.target_embedding(prefix)
    inputs_TE = torch.cat((words_TE, c_D.expand(3, 6)), dim=1)
    h_TD, _, _ = run_reference(model.decoder, "gru", inputs_TE, [first_LD])
    pairs_TM = h_TD @ o_h.T + words_TE @ o_y.T + c_D @ o_c.T + b_o
    maxout_TM = torch.maximum(pairs_TM[:, 0::2], pairs_TM[:, 1::2])
    found_TE = model.decode(model.encode(source), Tokens(prefix[None], (3,)))[0]
    torch.testing.assert_close(found_TE, maxout_TM @ g_r.T, atol=1e-10, rtol=0)
    logits_TV = maxout_TM @ g_r.T @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model.project(found_TE), logits_TV, atol=1e-10, rtol=0)


def test_initial_weights_of_lstm_are_uniform() -> None:
    """U(-0.08, 0.08) at the paper's width of 1000, and no biases."""
    torch.manual_seed(1)
    model = Model(Config(cell="lstm", layers=1), 50, 50)
    assert not [name for name, _ in model.named_parameters() if "bias" in name]
    for parameter in model.parameters():
        assert parameter.abs().max() <= 0.08
        assert parameter.std().item() == pytest.approx(0.08 / 3**0.5, rel=0.02)


def test_initial_recurrent_matrices_of_gru_are_orthogonal_and_its_biases_zero() -> None:
    model = Model(Config(cell="gru", layers=1, embedding=20, hidden=1000, initial=0.01), 50, 50)
    for name, parameter in model.named_parameters():
        if name.endswith("weight_hh_l0"):
            for gate_DD in parameter.chunk(3):
                torch.testing.assert_close(gate_DD @ gate_DD.T, torch.eye(1000), atol=1e-4, rtol=0)
        elif "bias" in name:
            assert parameter.count_nonzero() == 0
        else:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.1)
