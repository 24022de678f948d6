"""The multi-layer perceptron compared with its equations for one position."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from models.feedforward import Config, Model
from models.parts.batch import BOS, EOS, PAD, Tokens


def sentence(*ids: int) -> Tokens:
    return Tokens(torch.tensor([ids]), (len(ids),))


def phi(name: str, x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x)) if name == "sigmoid" else x.clamp(min=0)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize(
    ("position", "window", "recent"),
    [(0, (PAD, PAD, 11, 12, 13), (PAD, BOS)), (3, (12, 13, EOS, PAD, PAD), (22, 23)), (6, (PAD,) * 5, (25, 26))],
)
def test_hidden_layers_equal_the_equations(
    activation: Literal["sigmoid", "relu"], position: int, window: tuple[int, ...], recent: tuple[int, ...]
) -> None:
    """The source is 11 12 13 EOS, the prefix BOS 21 22 23 24 25 26; `recent` is y_{t-2}, y_{t-1}."""
    torch.manual_seed(1)
    model = Model(Config(embedding=6, hidden=9, layers=2, activation=activation, dropout=0.5), 30, 40).double().eval()
    prefix = sentence(BOS, 21, 22, 23, 24, 25, 26)
    found_H = model.decode(model.encode(sentence(11, 12, 13, EOS)), prefix)[0, position]
    source, target = model.source_embedding.weight, model.target_embedding.weight
    mean_D = source[[11, 12, 13, EOS]].mean(dim=0)
    h = torch.cat([*(source[word] for word in window), mean_D, *(target[word] for word in recent)])
    parameters = [parameter for name, parameter in model.named_parameters() if name.startswith("hidden")]
    assert [tuple(parameter.shape) for parameter in parameters] == [(9, 48), (9,), (9, 9), (9,)]
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        h = phi(activation, weight @ h + bias)
    torch.testing.assert_close(found_H, h, atol=1e-12, rtol=0)
    assert found_H.std() > 1e-3


def test_dropout_is_used_in_training_only() -> None:
    model = Model(Config(embedding=6, hidden=200, activation="relu", dropout=0.5), 30, 40)
    source, prefix = sentence(11, 12, EOS), sentence(BOS, 21)
    first, second = (model.train().decode(model.encode(source), prefix) for _ in range(2))
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model.decode(model.encode(source), prefix), model.decode(model.encode(source), prefix))
