"""Luong's model compared with its equations: scores, windows, input feeding, the reversed source."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.luong import Config, Memory, Model
from models.parts.batch import BOS, EOS, Batch, Tokens
from tests.helpers.reference_lstm import lstm_step, run_lstm

FORMS: list[dict[str, Any]] = [
    {"score": "dot"},
    {"score": "general"},
    {"score": "concat"},
    {"score": "location", "places": 3},
    {"score": "general", "reach": "local-m", "window": 1},
    {"score": "general", "reach": "local-p", "window": 2},
]
LENGTHS = (6, 2, 4)
SOURCE = Tokens(torch.tensor([[11, 12, 13, 14, 15, EOS], [21, EOS, 0, 0, 0, 0], [16, 17, 18, EOS, 0, 0]]), LENGTHS)
PREFIX = Tokens(torch.tensor([[BOS, 21, 22, 23, 24, 25, 26]] * 3), (7,) * 3)


def build(**settings: Any) -> Model:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"layers": 2, "width": 6}
    model = Model(Config(**(sizes | settings)), 30, 40).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def encode_sentence(model: Model, ids_S: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return (top states in the order of the sentence, last (h, c) of each layer); the source is read from its end."""
    x_SD, last = model.source_embedding(ids_S.flip(0)), []
    for layer in range(2):
        x_SD, c_D = run_lstm(model.encoder, x_SD, layer)
        last.append((x_SD[-1], c_D))
    return x_SD.flip(0), last


def attention_weights(model: Model, h_D: Tensor, source_SD: Tensor, position: int) -> Tensor:
    """Return a_t(s) by equations 7 to 10, one source position at a time; `position` is counted from 1."""
    config, size = model.config, len(source_SD)
    parameters = dict(model.attention.named_parameters())
    window = range(1, size + 1)
    factors = [1.0] * size
    if config.reach == "local-m":
        window = [s for s in window if abs(s - min(position, size)) <= config.window]
    if config.reach == "local-p":
        w_p, v_p = model.get_parameter("window.W_p.weight"), model.get_parameter("window.v_p.weight")[0]
        p_t = size / (1 + math.exp(-(v_p @ torch.tanh(w_p @ h_D)).item()))
        window = [s for s in window if abs(s - p_t) <= config.window]
        sigma = config.window / 2
        factors = [math.exp(-((s - p_t) ** 2) / (2 * sigma**2)) for s in range(1, size + 1)]
    if config.score == "location":
        window = range(1, min(size, config.places) + 1)
    exponentials = {}
    for s in window:
        state_D = source_SD[s - 1]
        if config.score == "dot":
            score = h_D @ state_D
        elif config.score == "general":
            score = h_D @ parameters["W_a.weight"] @ state_D
        elif config.score == "concat":
            both = torch.cat((parameters["W_a.weight"], parameters["U_a.weight"]), dim=1)
            score = parameters["v_a.weight"][0] @ torch.tanh(both @ torch.cat((h_D, state_D)))
        else:
            score = parameters["W_a.weight"][s - 1] @ h_D
        exponentials[s] = math.exp(score.item())
    total = sum(exponentials.values())
    weights = [factors[s - 1] * exponentials.get(s, 0.0) / total for s in range(1, size + 1)]
    return torch.tensor(weights, dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("settings", FORMS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_every_form_equals_its_equations(settings: dict[str, Any]) -> None:
    model = build(**settings)
    memory = model.encode(SOURCE)
    found_BTD = model.decode(memory, PREFIX)
    state, attention = model.start(memory), []
    for previous_B in PREFIX.ids_BS.unbind(dim=1):
        _, state, attention_BS = model.step(previous_B, state)
        attention.append(attention_BS)
    for row, length in enumerate(LENGTHS):
        source_SD, states = encode_sentence(model, SOURCE.ids_BS[row, :length])
        attentional_D = torch.zeros(6, dtype=torch.float64)
        for position, word in enumerate(PREFIX.ids_BS[row].tolist()):
            x_D, added = attentional_D, model.W_y.weight @ model.target_embedding.weight[word]
            for layer, cell in enumerate(model.decoder):
                h_D, c_D = states[layer]
                h_D, c_D = lstm_step(cell.gates.weight @ torch.cat((x_D, h_D)) + added, c_D, "ifog")
                states[layer] = h_D, c_D
                x_D, added = h_D, 0.0
            weights_S = attention_weights(model, x_D, source_SD, position + 1)
            context_D = (weights_S[:, None] * source_SD).sum(dim=0)
            attentional_D = torch.tanh(model.W_c.weight @ torch.cat((context_D, x_D)))
            torch.testing.assert_close(found_BTD[row, position], attentional_D, atol=1e-9, rtol=0)
            attention_BS = attention[position]
            assert attention_BS is not None
            torch.testing.assert_close(attention_BS[row, :length], weights_S, atol=1e-9, rtol=0)
            assert (attention_BS[row, length:] == 0).all()


@pytest.mark.parametrize("settings", FORMS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_every_form_trains_all_its_weights(settings: dict[str, Any]) -> None:
    model = build(**settings)
    model.training_step(Batch(SOURCE, Tokens(PREFIX.ids_BS[:, 1:], (6,) * 3)), 0).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("settings", FORMS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_closed_form_flops_of_every_form_equal_the_counted_flops(settings: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = Model(Config(layers=2, width=6, **settings), 30, 40).eval()
        source, target = (Tokens(torch.ones(3, length, dtype=torch.long), (length,) * 3) for length in (5, 4))
    counter = FlopCounterMode(display=False)
    with counter:
        model.training_step(Batch(source, target), 0).backward()
    assert counter.get_total_flops() == model.flops(5, 4).training * 3
    with torch.no_grad():
        state = model.start(model.encode(source))
        with counter:
            model.step(target.ids_BS[:, 0], state)
    assert counter.get_total_flops() == model.flops_step(5, 0).forward * 3


@torch.no_grad()
def test_window_follows_the_position_and_stops_at_the_last_word() -> None:
    model = build(reach="local-m", window=1)
    state, attended = model.start(model.encode(SOURCE)), []
    for previous_B in PREFIX.ids_BS.unbind(dim=1):
        _, state, attention_BS = model.step(previous_B, state)
        assert attention_BS is not None
        attended.append(attention_BS[0].nonzero().flatten().tolist())
    assert attended == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5], [4, 5]]


@torch.no_grad()
def test_input_feeding_changes_the_next_step() -> None:
    """With h~ set to zero, the next step gives another hidden state."""
    model = build()
    state = model.start(model.encode(SOURCE))
    first = model.step(PREFIX.ids_BS[:, 0], state)
    source, past = first.state
    assert isinstance(source, Memory)
    with_feeding_BD = model.step(PREFIX.ids_BS[:, 1], first.state).hidden_BD
    without_feeding = first.state._replace(past=past._replace(attentional_BD=torch.zeros_like(past.attentional_BD)))
    assert (model.step(PREFIX.ids_BS[:, 1], without_feeding).hidden_BD - with_feeding_BD).abs().max() > 1e-3


def test_location_score_with_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.score: location"):
        build(score="location", reach="local-m")


def test_initial_weights_are_uniform() -> None:
    """U(-0.1, 0.1) at the paper's width."""
    model = Model(Config(layers=1), 50, 50)
    for parameter in model.parameters():
        assert parameter.abs().max() <= 0.1
        assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.02)
