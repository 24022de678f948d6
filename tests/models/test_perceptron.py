"""Rosenblatt's perceptron: fixed random connections, units that fire at a threshold, one trained layer."""

from __future__ import annotations

from typing import Any

import torch

from models.parts.batch import BOS, EOS, PAD, Batch, Tokens
from models.perceptron import Config, Model


def build(**settings: Any) -> Model:
    return Model(Config(units=200, **settings), 30, 40)


def sentence(*ids: int) -> Tokens:
    return Tokens(torch.tensor([ids]), (len(ids),))


def test_random_connections_depend_on_their_own_seed_only() -> None:
    torch.manual_seed(1)
    one = build()
    torch.manual_seed(2)
    two, other = build(), build(connections_seed=3)
    assert torch.equal(one.association.source_WVA, two.association.source_WVA)
    assert not torch.equal(one.association.source_WVA, other.association.source_WVA)
    assert set(one.state_dict()) == {"output.weight", "output.bias"} == {name for name, _ in one.named_parameters()}


def test_units_fire_when_the_sum_reaches_the_threshold() -> None:
    """At target position 1 of the source w0 w1 w2 EOS, the window is PAD w0 w1 w2 EOS."""
    model = build(threshold=0.5)
    source, prefix = sentence(11, 12, 13, EOS), sentence(BOS, 21, 22)
    hidden_A = model.decode(model.encode(source), prefix)[0, 1]
    assert set(hidden_A.tolist()) == {0, 1}
    tables = model.association
    sum_A = tables.mean_VA[[11, 12, 13, EOS]].mean(dim=0)
    for slot, word in enumerate((PAD, 11, 12, 13, EOS)):
        sum_A = sum_A + tables.source_WVA[slot, word]
    for slot, word in enumerate((BOS, 21)):
        sum_A = sum_A + tables.target_WVA[slot, word]
    assert hidden_A.tolist() == (sum_A >= 0.5).float().tolist()


@torch.no_grad()
def test_window_has_two_words_on_both_sides() -> None:
    model = build()
    model.association.mean_VA.zero_()
    prefix = sentence(BOS, *range(20, 31))
    before_TA = model.decode(model.encode(sentence(*range(5, 15))), prefix)[0]
    for changed_word in range(10):
        ids = list(range(5, 15))
        ids[changed_word] = 29
        after_TA = model.decode(model.encode(sentence(*ids)), prefix)[0]
        changed = (after_TA != before_TA).any(dim=1).nonzero().flatten().tolist()
        assert changed == [position for position in range(12) if abs(position - changed_word) <= 2]


@torch.no_grad()
def test_only_the_last_two_target_words_are_seen() -> None:
    model, source = build(), sentence(5, 6, EOS)
    ids = [BOS, *range(20, 29)]
    before_TA = model.decode(model.encode(source), sentence(*ids))[0]
    after_TA = model.decode(model.encode(source), sentence(*ids[:4], 39, *ids[5:]))[0]
    assert (after_TA != before_TA).any(dim=1).nonzero().flatten().tolist() == [4, 5]


def test_training_costs_twice_the_forward_pass() -> None:
    """The features need no gradient, so there is one product forward and one for the gradient of the weights."""
    cost = build().flops(source_length=9, target_length=7)
    assert cost.forward == 7 * 2 * 200 * 40
    assert cost.training == 2 * cost.forward


def test_layer_is_trained_by_the_gradient_of_the_softmax() -> None:
    """dL/dW = (p - y) a^T, the multi-class form of error correction; with W = 0, p = 1/V."""
    model = build()
    pair = Batch(sentence(5, 6, EOS), sentence(EOS))
    model.training_step(pair, 0).backward()
    a_A = model.decode(model.encode(pair.source), pair.prefix)[0, 0]
    error_V = torch.full((40,), 1 / 40)
    error_V[EOS] -= 1
    assert model.output.weight.grad is not None
    torch.testing.assert_close(model.output.weight.grad, error_V[:, None] * a_A)
