"""Batches at the same time: the results of a search in turn, in order, and nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from bench.decoding.concurrent_batches import map_batches

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_two_batches_are_searched_at_the_same_time_with_half_of_the_threads() -> None:
    both = threading.Barrier(2, timeout=10)

    def search(batch: int) -> tuple[int, int, bool]:
        both.wait()  # breaks unless another batch is searched, too
        return batch * batch, torch.get_num_threads(), torch.is_inference_mode_enabled()

    with torch.inference_mode():
        assert map_batches(search, [1, 2, 3, 4], CPU) == [(n * n, 2, True) for n in (1, 2, 3, 4)]
    assert torch.get_num_threads() == 4
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    found = list[int]()
    new.start()
    new.join()
    assert found == [4], "later threads have all of them again"


@pytest.mark.parametrize("case", ["one batch", "one thread", "another device", "autocast"])
def test_in_the_thread_of_the_caller(case: str) -> None:
    if case == "one thread":
        torch.set_num_threads(1)
    batches = [1] if case == "one batch" else [1, 2, 3]
    device = torch.device("meta") if case == "another device" else CPU
    with torch.autocast("cpu", enabled=case == "autocast"):
        found = map_batches(lambda batch: (batch, threading.current_thread()), batches, device)
    assert found == [(batch, threading.current_thread()) for batch in batches]


def test_an_error_ends_the_search() -> None:
    searched = list[int]()

    def search(batch: int) -> None:
        searched.append(batch)
        if batch == 1:
            raise ValueError("batch 1")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="batch 1"):
        map_batches(search, range(1000), CPU)
    assert len(searched) < 1000
    assert torch.get_num_threads() == 4
