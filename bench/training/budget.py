"""The budget of a training run: what has been used of it, and the learning curves along it."""

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
from models.parts.optimization import OptimizationSettings

CURVE_POINTS = 200
"""Number of points of a learning curve. It does not depend on the length of the run."""


@dataclass
class BudgetSettings:
    """The limits of a training run. Training stops when the first of them is reached; null means no limit.

    Attributes:
        max_pairs: Limit in sentence pairs seen. All rows of a table get the same number.
        max_updates: Limit in updates of the weights.
        max_flops: Limit in model FLOPs of training (docs/flops.md).
        max_seconds: Limit in seconds of training, not counting validations.
    """

    max_pairs: int | None = None
    max_updates: int | None = None
    max_flops: float | None = None
    max_seconds: float | None = None


class Diverged(Exception):
    """The loss became infinite or not a number (NaN)."""


class HostClock:
    """Measures the seconds of updates on a CPU, where an update has finished when the call returns."""

    asynchronous = False
    """Whether the host continues while the device still computes an update."""

    def begin(self) -> None:
        self.began = time.perf_counter()

    def end(self) -> None:
        self.ended = time.perf_counter()

    def read(self) -> float:
        """Return the seconds of the last update."""
        return self.ended - self.began


class StreamClock:
    """Measures the seconds of updates on a GPU, between two events in its stream.

    The GPU computes asynchronously. When the host has launched an update, the GPU may not even have started it, and
    work of the host between two updates may cost the GPU no time. The host's clock would therefore be wrong.
    """

    asynchronous = True

    def __init__(self, device: torch.device) -> None:
        self.device, self.updates = device, list[tuple[torch.cuda.Event, torch.cuda.Event]]()

    def begin(self) -> None:
        self.updates.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
        self.updates[-1][0].record()

    def end(self) -> None:
        self.updates[-1][1].record()

    def read(self) -> float:
        """Wait for the GPU and return the seconds of all updates since the last call."""
        torch.cuda.synchronize(self.device)
        milliseconds = sum(begin.elapsed_time(end) for begin, end in self.updates)
        self.updates.clear()
        return milliseconds / 1e3


class BudgetTracker(pl.Callback):
    """Counts updates, sentence pairs, tokens, FLOPs, seconds and joules; stops training when the budget is used up.

    `seconds` is the time from the start to the end of each update. Validations and checkpoints are not included. The
    same holds for joules on a CPU. On a GPU, the joules between two updates are included, because the GPU may still be
    computing then. If several processes train one model, each process counts the whole of every batch.

    Attributes:
        synchronized: Whether the seconds and joules of all updates so far have been counted.
        overhead_s: Seconds spent on counting, learning curves, checkpoints and progress reports.
        overhead_start: Clock reading (seconds) at which the current learning curves, checkpoint and report began.
    """

    COUNTS = ("updates", "pairs", "source_tokens", "target_tokens", "seconds", "overhead_s")

    def __init__(self, limits: BudgetSettings, flop_counter: FlopCounter, group: ProcessGroup = SINGLE_PROCESS) -> None:
        self.limits, self.flop_counter, self.group = limits, flop_counter, group
        self.updates = self.pairs = self.source_tokens = self.target_tokens = 0
        self.seconds = 0.0
        self.clock: HostClock | StreamClock = HostClock()
        self.synchronized = True
        self.overhead_start = self.overhead_s = 0.0
        self.energy = Energy()

    @property
    def fraction(self) -> float:
        """Fraction of the budget that has been used. With several limits: the largest of their fractions."""
        limits = (
            (self.pairs, self.limits.max_pairs),
            (self.updates, self.limits.max_updates),
            (self.flop_counter.model_flops, self.limits.max_flops),
            (self.seconds, self.limits.max_seconds),
        )
        return max(used / limit for used, limit in limits if limit)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A run that was killed after its last update resumes with a used-up budget and must not train further.
        trainer.should_stop = self.fraction >= 1
        if pl_module.device.type == "cuda":
            self.clock = StreamClock(pl_module.device)
        self.energy.open(pl_module.device, trainer.num_devices)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int):
        if self.synchronized:
            self.energy.skip()
        self.synchronized = False
        self.clock.begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        self.clock.end()
        if self.clock.asynchronous and self.limits.max_seconds:
            self.synchronize()
        ended = time.perf_counter()
        if not self.clock.asynchronous:
            self.synchronize()
        if self.limits.max_seconds:  # the clocks of the processes differ, but all must stop at the same update
            self.seconds = self.group.broadcast(self.seconds)
        self.updates += 1
        for sources, targets, _ in batch.shapes:
            self.pairs += len(sources)
            self.source_tokens += sum(sources)
            self.target_tokens += sum(targets)
        self.flop_counter.add(batch)
        if self.fraction >= 1:
            trainer.should_stop = True
        self.overhead_s += time.perf_counter() - ended
        if trainer.should_stop:
            self.synchronize()

    def synchronize(self) -> None:
        """Wait until a GPU has finished all updates so far, and count their seconds and joules.

        Code that makes the host wait for the GPU in any case (a point of a learning curve, a validation) must call
        this first. Otherwise the waiting time would be counted as time of that code.
        """
        if not self.synchronized:
            began = time.perf_counter()
            self.seconds += self.clock.read()
            self.energy.poll()
            self.synchronized = True
            if self.clock.asynchronous:  # the waiting time belongs to the updates and not to the overhead
                self.overhead_start += time.perf_counter() - began

    def state_dict(self) -> dict[str, Any]:
        self.synchronize()
        parts = {"flop_counter": self.flop_counter.state_dict(), "energy": self.energy.state_dict()}
        return {name: getattr(self, name) for name in self.COUNTS} | parts

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in self.COUNTS:
            setattr(self, name, state_dict[name])
        self.flop_counter.load_state_dict(state_dict["flop_counter"])
        self.energy.load_state_dict(state_dict["energy"])


class BudgetSchedule(pl.Callback):
    """Sets the learning rate of the next update, if the schedule is counted in shares of the budget.

    A resumed run needs no more than this: the checkpoint holds the rate that was set for its next update.
    """

    def __init__(self, optimization: OptimizationSettings, budget: BudgetTracker) -> None:
        self.optimization, self.budget = optimization, budget

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.budget.updates:
            self.set_rate(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.set_rate(trainer)

    def set_rate(self, trainer: pl.Trainer) -> None:
        schedule, peak = self.optimization.schedule, self.optimization.optimizer.lr
        if schedule.in_shares:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = peak * schedule.factor_at(self.budget.fraction)


Curve = list[tuple[int, str, float]]
"""The points of all learning curves of a run, as (update, name, value)."""


class LearningCurves(pl.Callback):
    """Records learning curves at evenly spaced points of the budget.

    A point that was recorded after the last checkpoint is recorded again by a resumed run. Points are therefore passed
    on only when a checkpoint contains them, so that no step gets two values. Values are means over all processes.

    Args:
        on_saved: Called with the new points when a checkpoint that contains them has been written.
        on_resumed: Called at the start of a resumed run with all points of its checkpoint, because the killed process
            may not have passed on its last points.
    """

    def __init__(
        self,
        budget: BudgetTracker,
        on_saved: Callable[[Curve], None],
        on_resumed: Callable[[Curve], None],
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.budget, self.on_saved, self.on_resumed, self.group = budget, on_saved, on_resumed, group
        self.saved: Curve = []
        self.unsaved: Curve = []
        self.points_recorded = 0
        self.recent: dict[str, list[torch.Tensor]] = {}  # values of the updates since the last point

    @property
    def points(self) -> Curve:
        return self.saved + self.unsaved

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.saved:
            self.on_resumed(self.saved)

    def add_point(self, name: str, value: float) -> None:
        self.unsaved.append((self.budget.updates, name, value))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        due = self.budget.fraction * CURVE_POINTS >= self.points_recorded + 1
        if due:
            self.budget.synchronize()
        self.budget.overhead_start = time.perf_counter()
        self.record("loss", outputs["loss"])
        if not due:
            return
        self.points_recorded = math.floor(self.budget.fraction * CURVE_POINTS)
        means = {name: statistics.fmean(values) for name, values in self.recent_values().items()}
        self.recent.clear()
        if not math.isfinite(means["loss"]):
            raise Diverged(f"the training loss is {means['loss']} at update {self.budget.updates}")
        for name, mean in means.items():
            self.add_point(f"train/{name}", mean)
        self.add_point("train/lr", trainer.optimizers[0].param_groups[0]["lr"])
        self.add_point("train/pairs", self.budget.pairs)
        self.add_point("train/flops", self.budget.flop_counter.model_flops)
        self.add_point("train/seconds", self.budget.seconds)

    def record(self, name: str, value: torch.Tensor) -> None:
        """Record a value of this update. The next point of the curve train/`name` is the mean since its last point."""
        self.recent.setdefault(name, []).append(value.detach())

    def recent_values(self) -> dict[str, list[float]]:
        """Return the values since the last point, each as the mean over all processes."""
        return {name: self.group.mean([value.item() for value in values]) for name, values in self.recent.items()}

    def mark_saved(self) -> None:
        """Pass on the points that the checkpoint just written contains."""
        self.saved += self.unsaved
        self.on_saved(self.unsaved)
        self.unsaved = []

    def state_dict(self) -> dict[str, Any]:
        return {"saved": self.points, "points_recorded": self.points_recorded, "recent": self.recent_values()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.saved = [tuple(point) for point in state_dict["saved"]]
        self.points_recorded = state_dict["points_recorded"]
        # float64, because the mean over processes of two float32 losses is in general no float32.
        self.recent = {
            name: [torch.tensor(value, dtype=torch.float64) for value in values]
            for name, values in state_dict["recent"].items()
        }
