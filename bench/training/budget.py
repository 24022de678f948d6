"""What a training has used of its budget, and its learning curves."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from bench.measures.energy import Energy
from bench.measures.flops import FlopCounter
from bench.training.distributed import SINGLE_PROCESS, ProcessGroup
from models.parts.batch import Batch

POINTS = 200
"""Points of a learning curve, whatever the length of the run."""


@dataclass
class BudgetSettings:
    """How long a model is trained: until the first of these limits is reached.

    Attributes:
        max_pairs: Budget in sentence pairs seen: the unit in which rows of a table are equal.
        max_updates: Budget in updates of the weights.
        max_flops: Budget in model FLOPs of training (docs/flops.md).
        max_seconds: Budget in seconds of training, validations left out.
    """

    max_pairs: int | None = None
    max_updates: int | None = None
    max_flops: float | None = None
    max_seconds: float | None = None


class Diverged(Exception):
    """The loss is no longer a number."""


class HostClock:
    """Seconds of the updates on a processor."""

    ahead = False
    """Whether the host goes on while an update is still at work."""

    def begin(self) -> None:
        self.began = time.perf_counter()

    def end(self) -> None:
        self.ended = time.perf_counter()

    def read(self) -> float:
        """Seconds of the last update."""
        return self.ended - self.began


class StreamClock:
    """Seconds of the updates between events in a GPU's stream.

    The host runs ahead of it: when an update ends there, the GPU may have begun it or not, and what the host does
    between two updates may cost the GPU nothing.
    """

    ahead = True

    def __init__(self, device: torch.device) -> None:
        self.device, self.updates = device, list[tuple[torch.cuda.Event, torch.cuda.Event]]()

    def begin(self) -> None:
        self.updates.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
        self.updates[-1][0].record()

    def end(self) -> None:
        self.updates[-1][1].record()

    def read(self) -> float:
        """Seconds of all updates since it was last read; waits for the GPU."""
        torch.cuda.synchronize(self.device)
        milliseconds = sum(begin.elapsed_time(end) for begin, end in self.updates)
        self.updates.clear()
        return milliseconds / 1e3


class BudgetTracker(pl.Callback):
    """What the run has used: updates, pairs, tokens, FLOPs, seconds; stops the run when its budget is spent.

    Seconds are those between the begin and the end of updates: validations and checkpoints are not in them. So are
    joules on a processor; on a GPU what is between two updates counts, since it is still at work there.
    Of several processes that train one model each counts the whole of every batch.
    """

    def __init__(self, limits: BudgetSettings, flop_counter: FlopCounter, group: ProcessGroup = SINGLE_PROCESS) -> None:
        self.limits, self.flop_counter, self.group = limits, flop_counter, group
        self.updates = self.pairs = self.source_tokens = self.target_tokens = 0
        self.seconds = 0.0
        self.clock: HostClock | StreamClock = HostClock()
        self.settled = True  # no update is at work whose seconds and joules are not yet counted
        self.aside, self.overhead = 0.0, 0.0  # seconds: when curves, checkpoints and reports began, and all they took
        self.energy = Energy()

    @property
    def fraction(self) -> float:
        """Part of the budget that is spent; of several limits, that of the one nearest to its end."""
        limits = (
            (self.pairs, self.limits.max_pairs),
            (self.updates, self.limits.max_updates),
            (self.flop_counter.model_flops, self.limits.max_flops),
            (self.seconds, self.limits.max_seconds),
        )
        return max(used / limit for used, limit in limits if limit)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A run that was killed after its last update has a spent budget when it is resumed.
        trainer.should_stop = self.fraction >= 1
        if pl_module.device.type == "cuda":
            self.clock = StreamClock(pl_module.device)
        self.energy.open(pl_module.device, trainer.num_devices)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int):
        if self.settled:
            self.energy.skip()
        self.settled = False
        self.clock.begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        self.clock.end()
        if self.clock.ahead and self.limits.max_seconds:
            self.wait()
        ended = time.perf_counter()
        if not self.clock.ahead:
            self.wait()
        if self.limits.max_seconds:  # then seconds decide, and only one clock may
            self.seconds = self.group.first(self.seconds)
        self.updates += 1
        for sources, targets, _ in batch.blocks:
            self.pairs += len(sources)
            self.source_tokens += sum(sources)
            self.target_tokens += sum(targets)
        self.flop_counter.add(batch)
        if self.fraction >= 1:
            trainer.should_stop = True
        self.overhead += time.perf_counter() - ended
        if trainer.should_stop:
            self.wait()

    def wait(self) -> None:
        """Waits for what a GPU has still to do of the updates so far, and counts their seconds and joules.

        Whoever makes the host wait anyway (a point of a curve, a validation) calls this first: else the waiting would
        be counted as theirs.
        """
        if not self.settled:
            began = time.perf_counter()
            self.seconds += self.clock.read()
            self.energy.poll()
            self.settled = True
            if self.clock.ahead:  # what the host waited is the updates' time, not that of a checkpoint which asks
                self.aside += time.perf_counter() - began

    COUNTS = ("updates", "pairs", "source_tokens", "target_tokens", "seconds")

    def state_dict(self) -> dict[str, Any]:
        self.wait()
        parts = {
            "overhead": self.overhead,
            "flop_counter": self.flop_counter.state_dict(),
            "energy": self.energy.state_dict(),
        }
        return {name: getattr(self, name) for name in self.COUNTS} | parts

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in self.COUNTS:
            setattr(self, name, state_dict[name])
        self.overhead = state_dict.get("overhead", 0.0)
        self.flop_counter.load_state_dict(state_dict["flop_counter"])
        self.energy.load_state_dict(state_dict.get("energy"))


Curve = list[tuple[int, str, float]]
"""Points (update, name, value)."""


class Curves(pl.Callback):
    """Learning curves at evenly spaced points of the budget. `flush` gets the points that a checkpoint has secured.

    A point that was noted after the last checkpoint is noted again by the resumed run: so it is handed on only
    together with a checkpoint, and no step has two values. `resumed` gets all that the checkpoint of a resumed run
    holds, since the killed process may not have handed on its last points. What is told is the mean of all processes.
    """

    def __init__(
        self,
        budget: BudgetTracker,
        flush: Callable[[Curve], None],
        resumed: Callable[[Curve], None],
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.budget, self.flush, self.resumed, self.group = budget, flush, resumed, group
        self.secured: Curve = []
        self.pending: Curve = []
        self.points = 0
        self.told: dict[str, list[torch.Tensor]] = {}  # since the last point

    @property
    def seen(self) -> Curve:
        return self.secured + self.pending

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.secured:
            self.resumed(self.secured)

    def note(self, name: str, value: float) -> None:
        self.pending.append((self.budget.updates, name, value))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        due = self.budget.fraction * POINTS >= self.points + 1
        if due:
            self.budget.wait()
        self.budget.aside = time.perf_counter()
        self.tell("loss", outputs["loss"])
        if not due:
            return
        self.points = math.floor(self.budget.fraction * POINTS)
        means = {name: statistics.fmean(values) for name, values in self.listed().items()}
        self.told.clear()
        if not math.isfinite(means["loss"]):
            raise Diverged(f"the training loss is {means['loss']} at update {self.budget.updates}")
        for name, mean in means.items():
            self.note(f"train/{name}", mean)
        self.note("train/lr", trainer.optimizers[0].param_groups[0]["lr"])
        self.note("train/pairs", self.budget.pairs)
        self.note("train/flops", self.budget.flop_counter.model_flops)
        self.note("train/seconds", self.budget.seconds)

    def tell(self, name: str, value: torch.Tensor) -> None:
        """A value of this update: the curve train/`name` gets the mean over the updates since its last point."""
        self.told.setdefault(name, []).append(value.detach())

    def listed(self) -> dict[str, list[float]]:
        return {name: self.group.mean([value.item() for value in values]) for name, values in self.told.items()}

    def secure(self) -> None:
        self.secured += self.pending
        self.flush(self.pending)
        self.pending = []

    def state_dict(self) -> dict[str, Any]:
        return {"secured": self.seen, "points": self.points, "told": self.listed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.secured = [tuple(point) for point in state_dict["secured"]]
        self.points = state_dict["points"]
        self.told = {name: [torch.tensor(value) for value in values] for name, values in state_dict["told"].items()}
