"""FLOP counts compared with manual sums, the counter of a run, and the guard against uncounted operations."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from bench.measures.flops import FlopCheck, FlopCounter, UncountedOperation, count, decoding_flops, verify
from models import seq2seq, transformer
from models.parts.batch import Batch, Tokens
from models.parts.translator import Translator

DEVICES = ["cpu", "meta"]


def tiny() -> Translator:
    return transformer.Model(transformer.Config(layers=2, width=16, inner=32, heads=2), 11, 11)


def batch(pairs: list[tuple[int, int]], padding: int = 0) -> Batch:
    def side(lengths: tuple[int, ...]) -> Tokens:
        return Tokens(torch.zeros(len(lengths), max(lengths) + padding, dtype=torch.long), lengths)

    sources, targets = zip(*pairs, strict=True)
    return Batch(side(sources), side(targets))


def both(module: nn.Module, run: Callable[[], Tensor]) -> tuple[int, int]:
    """Returns the counted FLOPs of the forward pass, and those of forward and backward together."""
    with torch.no_grad():
        forward = count(run)
    return forward, count(lambda: run().sum().backward())


# --- counts done by hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_a_multi_layer_perceptron(device: str) -> None:
    """5 rows through 4 -> 8 -> 3: 2 * 5 * (4 * 8 + 8 * 3) = 560. Backward: twice that, with the input's gradient."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(device)
    x = torch.zeros(5, 4, device=device, requires_grad=True)
    assert both(net, lambda: net(x)) == (560, 3 * 560)
    frozen = x.detach()  # without the gradient of the input: 2 * 5 * 4 * 8 = 320 less
    assert both(net, lambda: net(frozen)) == (560, 3 * 560 - 320)


@pytest.mark.parametrize("device", DEVICES)
def test_an_lstm(device: str) -> None:
    """7 steps of 2 sentences, 4 gates, input 3, state 5: 2 * 7 * 2 * 4 * 5 * (3 + 5) = 4480; fused or unrolled."""
    lstm = nn.LSTM(3, 5, batch_first=True).to(device)
    x, h, c = (torch.zeros(*s, device=device, requires_grad=True) for s in ((2, 7, 3), (1, 2, 5), (1, 2, 5)))
    assert both(lstm, lambda: lstm(x, (h, c))[0]) == (4480, 3 * 4480)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("masked", [False, True])
def test_an_attention_layer(device: str, masked: bool) -> None:
    """2 sentences, 3 heads, 4 queries, 6 keys, width 5 each: 2 * 2 * 3 * 4 * 6 * 5 for Q K^T and again for A V."""
    shapes = ((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 5))
    q, k, v = (torch.zeros(s, device=device, requires_grad=True) for s in shapes)
    mask = torch.ones(2, 1, 1, 6, dtype=torch.bool, device=device) if masked else None

    def run() -> torch.Tensor:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    assert both(nn.Identity(), run) == (2880, 3 * 2880)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("groups", "cost"), [(1, 2 * 2 * 7 * 8 * 4 * 3), (4, 2 * 2 * 7 * 8 * 1 * 3)])
def test_a_convolution(device: str, groups: int, cost: int) -> None:
    """2 sentences, 7 positions, 4 -> 8 channels, width 3; in 4 groups every output reads a single channel."""
    layer = nn.Conv1d(4, 8, 3, padding=1, groups=groups).to(device)
    x = torch.zeros(2, 4, 7, device=device, requires_grad=True)
    assert both(layer, lambda: layer(x)) == (cost, 3 * cost)


def test_products_without_a_formula_in_pytorch() -> None:
    matrix, vector, three = torch.zeros(3, 4), torch.zeros(4), torch.zeros(2, 3, 4)
    assert count(lambda: matrix @ vector) == 2 * 3 * 4
    assert count(lambda: vector @ vector) == 2 * 4
    assert count(lambda: torch.addbmm(torch.zeros(3, 3), three, three.mT)) == 2 * 2 * 3 * 4 * 3


def test_an_unknown_operation_fails_the_count() -> None:
    """PyTorch has no formula for either operation and would count both as 0."""
    a = torch.eye(3)
    with pytest.raises(UncountedOperation, match="linalg"):
        count(lambda: torch.linalg.inv(a))
    layer = nn.Bilinear(3, 3, 2)
    with pytest.raises(UncountedOperation, match="_trilinear"):
        count(lambda: layer(a, a))


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [transformer, seq2seq], ids=lambda module: module.__name__)
def test_three_ways_agree(module: object) -> None:
    model = tiny() if module is transformer else seq2seq.Model(seq2seq.Config("lstm", 2, 12, 16), 11, 11)
    checks = verify(model, 5, 4)
    assert [check.pass_name for check in checks] == ["forward", "training", "start", "step"]
    assert all(check.agrees and check.closed > 0 for check in checks), checks
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not FlopCheck("forward", 1, 1, 2).agrees


def test_a_wrong_closed_form_is_found() -> None:
    model = tiny()
    model.flops_project = lambda: tiny().flops_project() * 2
    assert not any(check.agrees for check in verify(model, 5, 4) if check.pass_name != "start")


def test_decoding_flops_equal_a_manual_sum() -> None:
    model = tiny()
    steps = [model.flops_step(5, position).forward + model.flops_project().forward for position in range(3)]
    once = model.flops_encode(5).forward + model.flops_start(5).forward
    assert decoding_flops(model, 5, 3, beam=1) == once + sum(steps)
    assert decoding_flops(model, 5, 3, beam=4) == once + steps[0] + 4 * (steps[1] + steps[2])


# --- the counter ------------------------------------------------------------------------------------------------------

PAIRS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=12)
MODEL = tiny()


def total(*batches: Batch) -> tuple[int, int]:
    flop_counter = FlopCounter(MODEL)
    for one in batches:
        flop_counter.add(one)
    return flop_counter.model_flops, flop_counter.executed_flops


@settings(deadline=None, max_examples=50)
@given(PAIRS, PAIRS, st.integers(0, 9), st.randoms(use_true_random=False))
def test_model_flops_are_additive_and_independent_of_order_and_padding(
    one: list[tuple[int, int]], two: list[tuple[int, int]], padding: int, rng: random.Random
) -> None:
    expected, _ = total(batch(one), batch(two))
    assert expected == sum(MODEL.flops(*pair).training for pair in one + two)
    shuffled = rng.sample(one + two, len(one + two))
    model, executed = total(batch(shuffled, padding))
    assert model == expected <= executed


def test_executed_flops_are_those_of_the_padded_batch() -> None:
    """Without padding they equal the model FLOPs; with it they equal the count of the operations that ran."""
    model, executed = total(batch([(5, 4)] * 3))
    assert model == executed
    uneven = batch([(5, 4), (2, 6), (3, 3)])
    assert total(uneven)[1] == count(lambda: tiny().token_losses(uneven).mean().backward())


def test_the_counter_is_exact_and_resumes() -> None:
    flop_counter = FlopCounter(MODEL)
    flop_counter.load_state_dict({"model_flops": 10**19 + 1, "executed_flops": 2 * 10**19 + 1})
    flop_counter.add(batch([(1, 1)]))
    cost = MODEL.flops(1, 1).training
    assert flop_counter.state_dict() == {"model_flops": 10**19 + 1 + cost, "executed_flops": 2 * 10**19 + 1 + cost}


def test_adding_a_batch_takes_less_than_half_a_millisecond() -> None:
    rng = random.Random(1)
    batches = [batch([(rng.randint(5, 40), rng.randint(5, 40)) for _ in range(128)]) for _ in range(50)]
    flop_counter = FlopCounter(MODEL)
    for one in batches:
        flop_counter.add(one)
    begin = time.process_time()
    for one in batches:
        flop_counter.add(one)
    assert (time.process_time() - begin) / len(batches) < 5e-4
