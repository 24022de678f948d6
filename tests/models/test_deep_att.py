"""Deep-Att compared with its equations, and with the numbers of the paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.deep_att import Block, Config, Model
from models.parts.batch import BOS, EOS, Batch, Tokens
from tests.helpers.reference_lstm import lstm_step

LENGTHS = (5, 2, 4)
SOURCE = Tokens(torch.tensor([[11, 12, 13, 14, EOS], [21, EOS, 0, 0, 0], [16, 17, 18, EOS, 0]]), LENGTHS)
PREFIX = Tokens(torch.tensor([[BOS, 21, 22, 23, 24, 25]] * 3), (6,) * 3)
D = 4


def build(**settings: Any) -> Model:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"encoder_layers": 3, "decoder_layers": 3, "embedding": 5, "width": D, "annotation": 6}
    model = Model(Config(**(sizes | settings)), 30, 40).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def run_layer(x_SX: Tensor, w_X4D: Tensor, u_D4D: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
    """Return (f, h) of one layer of one column for a whole sentence."""
    f_S4D = x_SX @ w_X4D
    h_D = s_D = torch.zeros(D, dtype=x_SX.dtype)
    states = [h_D] * len(x_SX)
    for position in reversed(range(len(x_SX))) if backwards else range(len(x_SX)):
        h_D, s_D = lstm_step(f_S4D[position] + h_D @ u_D4D, s_D, "ifog")
        states[position] = h_D
    return f_S4D, torch.stack(states)


def annotate(model: Model, ids_S: Tensor) -> Tensor:
    """Return e'_t of one sentence: in the first column the odd layers read forwards, in the second the even layers."""
    tops = []
    for column in (0, 1):
        x_SX = top = model.source_embedding(ids_S)
        for number, block in enumerate(model.encoder, start=1):
            backwards = (number + column) % 2 == 0
            f_S4D, h_SD = run_layer(x_SX, block.W[column], block.U[column], backwards)
            x_SX = torch.cat((f_S4D[:, : 2 * D], h_SD), dim=1)
            top = torch.cat((h_SD, f_S4D), dim=1)
        tops.append(top)
    e_SX = torch.cat(tops, dim=1)
    assert e_SX.shape[1] == 10 * D
    return e_SX @ model.W_p.weight.T


@torch.no_grad()
@pytest.mark.parametrize("layers", [2, 3])
def test_encoder_is_interleaved_in_two_columns(layers: int) -> None:
    model = build(encoder_layers=layers)
    e_BSA = model.encode(SOURCE).e_BSA
    for row, length in enumerate(LENGTHS):
        wanted_SA = annotate(model, SOURCE.ids_BS[row, :length])
        torch.testing.assert_close(e_BSA[row, :length], wanted_SA, atol=1e-10, rtol=0)


@torch.no_grad()
def test_decoder_equals_its_equations() -> None:
    model = build()
    memory = model.encode(SOURCE)
    found_BTX = model.decode(memory, PREFIX)
    w_a, u_a, v_a = (model.get_parameter(f"attention.{name}.weight") for name in ("W_a", "U_a", "v_a"))
    for row, length in enumerate(LENGTHS):
        e_SA = annotate(model, SOURCE.ids_BS[row, :length])
        h_D = s_D = torch.zeros(D, dtype=torch.float64)
        fs, hs = [], []
        for word in PREFIX.ids_BS[row].tolist():
            scores_S = torch.stack([v_a[0] @ torch.tanh(w_a @ h_D + u_a @ e_A) for e_A in e_SA])
            c_A = (torch.softmax(scores_S, dim=0)[:, None] * e_SA).sum(dim=0)
            f_4D = model.W_y.weight @ model.target_embedding.weight[word] + model.W_c.weight @ c_A
            h_D, s_D = lstm_step(f_4D + model.U.weight @ h_D, s_D, "ifog")
            fs.append(f_4D)
            hs.append(h_D)
        f_T4D, h_TD = torch.stack(fs), torch.stack(hs)
        for block in model.decoder:
            x_TX = torch.cat((f_T4D[:, : 2 * D], h_TD), dim=1)
            f_T4D, h_TD = run_layer(x_TX, block.W[0], block.U[0], backwards=False)
        wanted_TX = torch.cat((f_T4D[:, : 2 * D], h_TD), dim=1)
        torch.testing.assert_close(found_BTX[row], wanted_TX, atol=1e-10, rtol=0)


@torch.no_grad()
def test_fast_forward_connections_are_linear() -> None:
    """If the next layers do not read h, e' is a linear function of each word alone, through all layers."""
    model = build()
    for block in list(model.encoder)[1:]:
        block.W[:, 2 * D :] = 0
    model.W_p.weight[:, [*range(D), *range(5 * D, 6 * D)]] = 0
    before_BSA = model.encode(SOURCE).e_BSA
    assert before_BSA.std() > 0.1
    model.source_embedding.weight *= 2
    torch.testing.assert_close(model.encode(SOURCE).e_BSA, 2 * before_BSA)
    model.source_embedding.weight[12] += 1
    changed_BSA = model.encode(SOURCE).e_BSA != 2 * before_BSA
    assert changed_BSA[0].any(dim=1).tolist() == [False, True, False, False, False]


def test_dropout_is_on_h_only() -> None:
    model = build(dropout=0.5).train()
    f, h = torch.ones(3, 4 * D), torch.ones(3, D)
    x = model.fast_forward(f, h)
    assert (x[:, : 2 * D] == 1).all()
    assert set(x[:, 2 * D :].flatten().tolist()) == {0.0, 2.0}


def test_recurrence_has_one_product_per_position_for_both_columns() -> None:
    """What does not depend on the recurrence is computed before it: each layer has S products with U and one with W."""
    with torch.device("meta"):
        block = Block(2, 12, D)
        f_PBS4D = block.feed(torch.ones(2, 3, 7, 12))
    assert f_PBS4D.shape == (2, 3, 7, 4 * D)
    counter = FlopCounterMode(display=False)
    with counter:
        block.recur(f_PBS4D, *[torch.zeros(2, 3, D, device="meta")] * 2)
    assert counter.get_flop_counts()["Global"] == {torch.ops.aten.baddbmm: 7 * 2 * 2 * 3 * D * 4 * D}


def test_fewer_than_two_layers_are_refused() -> None:
    for name in ("encoder_layers", "decoder_layers"):
        with pytest.raises(ValueError, match=rf"model\.{name}: 1; expected at least 2, because fast-forward"):
            Config(**{name: 1})


def test_every_weight_gets_a_gradient() -> None:
    model = build().train()
    model.training_step(Batch(SOURCE, Tokens(PREFIX.ids_BS[:, 1:], (5,) * 3)), 0).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_annotation_widths_are_the_published_ones() -> None:
    """The annotation e has width 2 x (512 + 2048) = 5120 and is projected to 1280."""
    with torch.device("meta"):
        model = Model(Config(), 50, 50)
    assert (model.W_p.in_features, model.W_p.out_features) == (2 * (512 + 2048), 1280) == (5120, 1280)
