"""Batches at the same time: the results of a search in turn, in order, and nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from bench.decoding.beam_search import DecodingSettings, translate
from bench.decoding.concurrent_batches import LEAST_FLOPS, batches_at_once, map_batches
from models import transformer


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def random_model(device: str = "cpu") -> transformer.Model:
    torch.manual_seed(1)
    return transformer.Model(transformer.Config(layers=2, width=32, inner=48, heads=2), 50, 50).to(device).eval()


def test_two_batches_are_searched_at_the_same_time_with_half_of_the_threads() -> None:
    both = threading.Barrier(2, timeout=10)

    def search(batch: int) -> tuple[int, int, bool]:
        both.wait()  # breaks unless another batch is searched, too
        return batch * batch, torch.get_num_threads(), torch.is_inference_mode_enabled()

    with torch.inference_mode():
        assert map_batches(search, [1, 2, 3, 4], 2) == [(n * n, 2, True) for n in (1, 2, 3, 4)]
    assert torch.get_num_threads() == 4
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    found = list[int]()
    new.start()
    new.join()
    assert found == [4], "later threads have all of them again"


def test_one_at_a_time_is_searched_by_the_caller() -> None:
    found = map_batches(lambda batch: (batch, threading.current_thread()), [1, 2, 3], 1)
    assert found == [(batch, threading.current_thread()) for batch in (1, 2, 3)]


def test_only_large_steps_on_a_cpu_with_several_threads_are_computed_at_the_same_time() -> None:
    model = random_model()
    flops = (model.flops_step(7, 0) + model.flops_project()).forward
    enough = int(LEAST_FLOPS // flops) + 1
    assert [batches_at_once(model, hypotheses, 7) for hypotheses in (enough - 1, enough)] == [1, 2]
    assert batches_at_once(random_model("meta"), enough, 7) == 1
    with torch.autocast("cpu", torch.bfloat16):
        assert batches_at_once(model, enough, 7) == 1
    for threads in (1, 3):
        torch.set_num_threads(threads)
        assert batches_at_once(model, enough, 7) == 1


def test_all_hypotheses_of_a_batch_count(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[int, int]]()

    def recorded(_model: transformer.Model, hypotheses: int, source_length: int) -> int:
        asked.append((hypotheses, source_length))
        return 1

    monkeypatch.setattr("bench.decoding.beam_search.batches_at_once", recorded)
    settings = DecodingSettings(beam=3, extra_length=2, batch_sentences=2)
    translate(random_model(), [[5], [6, 7, 8], [9, 10]], settings)
    translate(random_model(), [[5], [6, 7, 8]], settings)  # one batch
    assert asked == [(6, 4)], "two sentences of three hypotheses; three words and EOS"


def test_an_error_ends_the_search() -> None:
    searched = list[int]()

    def search(batch: int) -> None:
        searched.append(batch)
        if batch == 1:
            raise ValueError("batch 1")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="batch 1"):
        map_batches(search, range(1000), 2)
    assert len(searched) < 1000
    assert torch.get_num_threads() == 4
