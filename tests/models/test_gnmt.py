"""GNMT compared with its equations, and with the numbers of the paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.decoding.beam_search import DecodingSettings, translate
from models.gnmt import Config, Model
from models.parts.batch import BOS, EOS, Tokens
from tests.helpers.reference_lstm import lstm_step, run_lstm

LENGTHS = (5, 2, 4)
SOURCE = Tokens(torch.tensor([[11, 12, 13, 14, EOS], [21, EOS, 0, 0, 0], [16, 17, 18, EOS, 0]]), LENGTHS)
PREFIX = Tokens(torch.tensor([[BOS, 21, 22, 23, 24, 25]] * 3), (6,) * 3)


def build(**settings: Any) -> Model:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"layers": 4, "width": 6}
    model = Model(Config(**(sizes | settings)), 30, 40).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def encode_sentence(model: Model, ids_S: Tensor) -> Tensor:
    """Return x_SD of one sentence without padding, by the equations."""
    e_SD = model.source_embedding(ids_S)
    x_SD = torch.cat((run_lstm(model.forwards, e_SD)[0], run_lstm(model.backwards, e_SD.flip(0))[0].flip(0)), dim=1)
    for number, layer in enumerate(model.encoder, start=2):
        m_SD, _ = run_lstm(layer, x_SD)
        x_SD = m_SD + x_SD if number >= 3 else m_SD
    return x_SD


@torch.no_grad()
def test_encoder_equals_figure_3_for_each_sentence_alone() -> None:
    model = build()
    x_BSD = model.encode(SOURCE).x_BSD
    for row, length in enumerate(LENGTHS):
        wanted_SD = encode_sentence(model, SOURCE.ids_BS[row, :length])
        torch.testing.assert_close(x_BSD[row, :length], wanted_SD, atol=1e-10, rtol=0)


@torch.no_grad()
def test_decoder_attends_with_the_lowest_layer_of_the_previous_step() -> None:
    """Attention, contexts in all layers and residual connections from the third layer up, one position at a time."""
    model = build()
    memory = model.encode(SOURCE)
    found_BTD = model.decode(memory, PREFIX)
    w_a, u_a, v_a = (model.get_parameter(f"attention.{name}.weight") for name in ("W_a", "U_a", "v_a"))
    attention = []
    state = model.start(memory)
    for previous_B in PREFIX.ids_BS.unbind(dim=1):
        _, state, attention_BS = model.step(previous_B, state)
        attention.append(attention_BS)
    for row, length in enumerate(LENGTHS):
        source_SD = encode_sentence(model, SOURCE.ids_BS[row, :length])
        d_D = c_D = torch.zeros(6, dtype=torch.float64)
        lowest, contexts = [], []
        for position, word in enumerate(PREFIX.ids_BS[row].tolist()):
            e_S = torch.stack([v_a[0] @ torch.tanh(w_a @ d_D + u_a @ x_D) for x_D in source_SD])
            p_S = e_S.exp() / e_S.exp().sum()
            a_D = (p_S[:, None] * source_SD).sum(dim=0)
            y_D = model.target_embedding.weight[word]
            gates_4D = model.W_y.weight @ y_D + model.lowest.gates.weight @ torch.cat((a_D, d_D))
            d_D, c_D = lstm_step(gates_4D, c_D, "ifog")
            lowest.append(d_D)
            contexts.append(a_D)
            attention_BS = attention[position]
            assert attention_BS is not None
            torch.testing.assert_close(attention_BS[row, :length], p_S, atol=1e-10, rtol=0)
        x_TD, a_TD = torch.stack(lowest), torch.stack(contexts)
        for number, layer in enumerate(model.decoder, start=2):
            m_TD, _ = run_lstm(layer, torch.cat((x_TD, a_TD), dim=1))
            x_TD = m_TD + x_TD if number >= 3 else m_TD
        torch.testing.assert_close(found_BTD[row], x_TD, atol=1e-10, rtol=0)


@torch.no_grad()
def test_encoder_equals_its_equations_in_fp32() -> None:
    """In fp32 on a CPU, PyTorch runs an LSTM on another kernel (oneDNN)."""
    model = build().float()
    x_BSD = model.encode(SOURCE).x_BSD
    torch.testing.assert_close(x_BSD[0], encode_sentence(model, SOURCE.ids_BS[0]), atol=1e-5, rtol=0)


def test_only_the_lowest_layer_is_unrolled() -> None:
    """The fused layers are called once for the whole target; only the lowest layer runs once per position."""
    model, calls = build(), []
    for layer in (model.forwards, model.backwards, *model.encoder, *model.decoder):
        layer.register_forward_hook(lambda _layer, inputs, _output: calls.append(inputs[0].shape[1]))
    model.decode(model.encode(SOURCE), PREFIX)
    assert calls == [5] * 5 + [6] * 3


def test_fewer_than_three_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.layers: 2; expected at least 3, because residual"):
        Config(layers=2)


def test_initial_weights_are_uniform() -> None:
    """U(-0.04, 0.04); section 8.3."""
    model = Model(Config(layers=3, width=64), 50, 50)
    for parameter in model.parameters():
        assert parameter.abs().max() <= 0.04
    assert model.lowest.gates.weight.std().item() == pytest.approx(0.04 / 3**0.5, rel=0.02)


def test_beam_search_uses_its_attention_for_the_coverage_penalty() -> None:
    """The score is log P / lp + cp, with cp from the sum of the attention weights of all steps."""
    model, source = build(), [11, 12, 13, 14, 15]
    search = DecodingSettings(beam=8, alpha=0.2, coverage=0.2, extra_length=0)
    best = translate(model, [source], search)[0][0]
    state = model.start(model.encode(Tokens(torch.tensor([[*source, EOS]]), (6,))))
    attention_S = torch.zeros(6, dtype=torch.float64)
    for previous in [BOS, *best.ids]:
        _, state, attention_BS = model.step(torch.tensor([previous]), state)
        assert attention_BS is not None
        attention_S += attention_BS[0].detach()
    cp = 0.2 * attention_S.clamp(max=1.0).log().sum().item()
    assert cp < -0.01
    lp = ((5 + len(best.ids) + 1) / 6) ** 0.2
    assert best.score == pytest.approx(best.log_probability / lp + cp, abs=1e-5)  # the search sums in single precision


def test_paper_size_equals_the_sum_of_its_matrices() -> None:
    """Published: 278M (by Shazeer et al. 2017). Here, with 32,000 pieces: 79.7 + 100.7 + 2.1 + 65.5 + 32.8 = 280.7M."""
    n, pieces = 1024, 32_000
    encoder = 2 * 4 * n * (n + n) + 4 * n * (2 * n + n) + 6 * 4 * n * (n + n)
    decoder = 8 * 4 * n * (n + n + n)
    attention = n * n + n * n + n
    assert [round(part / 1e6, 1) for part in (encoder, decoder, attention)] == [79.7, 100.7, 2.1]
    with torch.device("meta"):
        found = Model(Config(), pieces, pieces).parameter_counts()
    assert found == (encoder + decoder + attention + 3 * pieces * n, encoder + decoder + attention)
    assert found[0] == pytest.approx(278e6, rel=0.02)


def test_cost_per_timestep_at_paper_size() -> None:
    """214M multiply-adds, counted as in Shazeer et al. 2017: a source position, a target position and the softmax."""
    with torch.device("meta"):
        model = Model(Config(), 32_000, 32_000)
    cost = model.flops_encode(1) + model.flops_step(1, 0) + model.flops_project()
    assert cost.forward / 2 == pytest.approx(214e6, rel=0.02)


def test_closed_form_flops_equal_the_counted_flops() -> None:
    with torch.device("meta"):
        model = Model(Config(layers=5, width=6), 30, 40).eval()
        source, target = (Tokens(torch.ones(3, length, dtype=torch.long), (length,) * 3) for length in (5, 4))
    counter = FlopCounterMode(display=False)
    with counter:
        model.decode(model.encode(source), target).sum().backward()
    assert counter.get_total_flops() == 3 * (model.flops_encode(5) + model.flops_decode(5, 4)).training
