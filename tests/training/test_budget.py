"""Seconds and joules of updates on a GPU, which computes asynchronously. The GPU is simulated."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.training.budget import BudgetSettings, BudgetTracker, StreamClock


class Gpu:
    """A stream that computes one update after the other, and an energy counter: 1 J per millisecond, also when idle."""

    def __init__(self) -> None:
        self.host = self.free = 0.0  # milliseconds: the clock of the host; the time at which the stream becomes idle

    def launch(self, milliseconds: float) -> None:
        """Launch an update that takes so many milliseconds on the GPU. Launching takes the host 1 ms."""
        self.free = max(self.free, self.host) + milliseconds
        self.host += 1

    def synchronize(self, _device: Any = None) -> None:
        self.host = max(self.host, self.free)

    def event(self, **_: Any) -> Any:
        gpu = self

        class Event:
            at = 0.0

            def record(self) -> None:
                self.at = max(gpu.free, gpu.host)

            def elapsed_time(self, end: Event) -> float:
                return end.at - self.at

        return Event()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    simulated = Gpu()
    monkeypatch.setattr(torch.cuda, "Event", simulated.event)
    monkeypatch.setattr(torch.cuda, "synchronize", simulated.synchronize)
    monkeypatch.setattr("bench.training.budget.time", SimpleNamespace(perf_counter=lambda: simulated.host / 1e3))
    return simulated


def tracker(gpu: Gpu, limits: BudgetSettings) -> tuple[BudgetTracker, Any, Any]:
    """Return the tracker of a training that has started, a function that does one update, and the trainer."""
    flop_counter: Any = SimpleNamespace(add=lambda _: None, model_flops=0, state_dict=dict)
    budget = BudgetTracker(limits, flop_counter)
    budget.clock = StreamClock(torch.device("cuda"))
    budget.energy.source = "simulated"
    counter: Any = SimpleNamespace(joules=lambda before, after: after[0] - before[0], counters=lambda: [gpu.host])
    budget.energy.counter = counter
    budget.energy.last, budget.energy.read_at = [0], 0.0
    trainer: Any = SimpleNamespace(should_stop=False)
    batch: Any = SimpleNamespace(shapes=())

    def update(milliseconds: float) -> None:
        budget.on_train_batch_start(trainer, trainer, batch, 0)
        gpu.launch(milliseconds)
        budget.on_train_batch_end(trainer, trainer, None, batch, 0)

    return budget, update, trainer


def test_seconds_of_an_update_are_those_of_the_gpu(gpu: Gpu) -> None:
    """Three updates of 10 ms, launched within 3 ms and with 2 ms of work of the host between them, take 30 ms."""
    budget, update, _ = tracker(gpu, BudgetSettings(max_updates=100))
    for _ in range(3):
        update(10)
        gpu.host += 2
    assert budget.seconds == 0
    budget.synchronize()
    assert budget.seconds == pytest.approx(0.030)
    assert budget.energy.total == pytest.approx(30)
    budget.synchronize()
    assert budget.seconds == pytest.approx(0.030)


def test_time_between_a_synchronization_and_the_next_update_is_not_counted(gpu: Gpu) -> None:
    budget, update, _ = tracker(gpu, BudgetSettings(max_updates=100))
    update(10)
    budget.synchronize()
    gpu.host = gpu.free = gpu.host + 500  # a validation
    update(10)
    budget.synchronize()
    assert budget.seconds == pytest.approx(0.020)
    assert budget.energy.total == pytest.approx(20)


def test_a_checkpoint_contains_the_seconds_of_all_updates(gpu: Gpu) -> None:
    budget, update, _ = tracker(gpu, BudgetSettings(max_updates=100))
    update(10)
    update(10)
    assert budget.state_dict()["seconds"] == pytest.approx(0.020)


def test_a_budget_in_seconds_is_checked_at_every_update(gpu: Gpu) -> None:
    budget, update, trainer = tracker(gpu, BudgetSettings(max_seconds=0.015))
    update(10)
    assert not trainer.should_stop
    update(10)
    assert trainer.should_stop
    assert budget.seconds == pytest.approx(0.020)


def test_the_end_of_training_synchronizes(gpu: Gpu) -> None:
    budget, update, trainer = tracker(gpu, BudgetSettings(max_updates=2))
    update(10)
    update(10)
    assert trainer.should_stop
    assert budget.seconds == pytest.approx(0.020)


@pytest.mark.parametrize("limits", [BudgetSettings(max_seconds=1.0), BudgetSettings(max_updates=100)])
def test_waiting_for_the_gpu_is_not_counted_as_overhead(gpu: Gpu, limits: BudgetSettings) -> None:
    """Neither with a budget in seconds nor for a checkpoint, whose overhead starts at `overhead_start`."""
    budget, update, _ = tracker(gpu, limits)
    update(10)
    budget.overhead_start = gpu.host / 1e3
    budget.state_dict()
    gpu.host += 3  # the checkpoint is written
    budget.overhead_s += gpu.host / 1e3 - budget.overhead_start
    assert budget.overhead_s == pytest.approx(0.003)
