"""Recorded functions, where "recording" is calling a function again: everything but the CUDA graph itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bench.system.cuda_graphs import RecordedFunction
from tests.helpers.repeated_calls import repeated


class Pair(NamedTuple):
    first: Tensor
    rest: tuple[Tensor, ...]


def added(x: Tensor, state: Pair) -> tuple[Pair, Tensor | None]:
    """The first part of the state is returned as it is, as decoders return what they know of the source."""
    return Pair(state.first, (state.rest[0] + x,)), None


def test_results_are_those_of_the_function() -> None:
    recorded = RecordedFunction(added, 9, repeated)
    for number in range(5):
        x, state = torch.full((3,), float(number)), Pair(torch.ones(2), (torch.full((3,), 10.0),))
        found, nothing = recorded(x, state)
        assert isinstance(found, Pair)
        assert nothing is None
        assert torch.equal(found.rest[0], torch.full((3,), 10.0 + number))
        assert torch.equal(found.first, torch.ones(2))
    assert recorded.launches == 4


def test_results_belong_to_the_caller() -> None:
    """The next call overwrites the buffers, not what earlier calls returned."""
    recorded = RecordedFunction(lambda x: 2 * x, 9, repeated)
    results = [recorded(torch.full((2,), float(number))) for number in range(4)]
    for result in results:
        result += 100
    assert torch.equal(recorded(torch.full((2,), 4.0)), torch.full((2,), 8.0))
    assert [result[0].item() for result in results] == [100, 102, 104, 106]


def test_an_input_that_is_returned_is_the_callers() -> None:
    recorded = RecordedFunction(added, 9, repeated)
    for _ in range(3):
        state = Pair(torch.ones(2), (torch.zeros(3),))
        found, _ = recorded(torch.zeros(3), state)
        assert found.first is state.first


def test_a_shape_is_recorded_when_it_comes_back() -> None:
    calls = list[int]()

    def count(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x + 1

    recorded = RecordedFunction(count, 2, repeated)
    for length in (1, 2, 3, 1, 2, 3, 3):
        assert torch.equal(recorded(torch.zeros(length)), torch.ones(length))
    assert calls == [1, 2, 3, 1, 2, 3, 3]
    assert recorded.launches == 2, "there are graphs for two shapes only"
    recorded(torch.zeros(1, dtype=torch.float64))
    assert recorded.launches == 2, "another precision is another shape"


def test_all_graphs_write_results_of_one_shape_to_one_tensor() -> None:
    """So gradients need the memory of one model, however many shapes of batches are recorded."""
    recorded = RecordedFunction(lambda x: x.sum(), 9, repeated)
    for length in (1, 2, 3) * 2:
        assert recorded(torch.ones(length)).item() == length
    assert sum(role == "output" for role, *_ in recorded.buffers) == 1
