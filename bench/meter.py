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
from bench.measures.flops import Ledger
from bench.ranks import ALONE, Ranks
from models.parts.translator import Batch

POINTS = 200
"""Points of a learning curve, whatever the length of the run."""


@dataclass
class Budget:
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


class Meter(pl.Callback):
    """What the run has used: updates, pairs, tokens, FLOPs, seconds; stops the run when its budget is spent.

    Seconds and joules are those between the begin and the end of updates: validations and checkpoints are not in them.
    Of several processes that train one model each counts the whole of every batch.
    """

    def __init__(self, budget: Budget, ledger: Ledger, ranks: Ranks = ALONE) -> None:
        self.budget, self.ledger, self.ranks = budget, ledger, ranks
        self.updates = self.pairs = self.source_tokens = self.target_tokens = 0
        self.seconds = 0.0
        self.began = 0.0
        self.aside, self.overhead = 0.0, 0.0  # seconds: when curves, checkpoints and reports began, and all they took
        self.energy = Energy()

    @property
    def fraction(self) -> float:
        """Part of the budget that is spent; of several limits, that of the one nearest to its end."""
        limits = (
            (self.pairs, self.budget.max_pairs),
            (self.updates, self.budget.max_updates),
            (self.ledger.model_flops, self.budget.max_flops),
            (self.seconds, self.budget.max_seconds),
        )
        return max(used / limit for used, limit in limits if limit)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A run that was killed after its last update has a spent budget when it is resumed.
        trainer.should_stop = self.fraction >= 1
        self.energy.open(pl_module.device)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int):
        self.energy.skip()
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        ended = time.perf_counter()
        self.seconds += ended - self.began
        self.energy.poll()
        if self.budget.max_seconds:  # then seconds decide, and only one clock may
            self.seconds = self.ranks.first(self.seconds)
        self.updates += 1
        for sources, targets, _ in batch.blocks:
            self.pairs += len(sources)
            self.source_tokens += sum(sources)
            self.target_tokens += sum(targets)
        self.ledger.add(batch)
        if self.fraction >= 1:
            trainer.should_stop = True
        self.overhead += time.perf_counter() - ended
        if trainer.should_stop:
            self.wait(pl_module.device)

    def wait(self, device: torch.device) -> None:
        """Waits for what a GPU has still to do of the updates so far, which is part of their time.

        Whoever makes the host wait anyway (a point of a curve, a validation) calls this first: else the waiting would
        be counted as theirs.
        """
        if device.type == "cuda":
            began = time.perf_counter()
            torch.cuda.synchronize(device)
            self.seconds += time.perf_counter() - began
            self.energy.poll()

    COUNTS = ("updates", "pairs", "source_tokens", "target_tokens", "seconds")

    def state_dict(self) -> dict[str, Any]:
        parts = {"overhead": self.overhead, "ledger": self.ledger.state_dict(), "energy": self.energy.state_dict()}
        return {name: getattr(self, name) for name in self.COUNTS} | parts

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in self.COUNTS:
            setattr(self, name, state_dict[name])
        self.overhead = state_dict.get("overhead", 0.0)
        self.ledger.load_state_dict(state_dict["ledger"])
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
        self, meter: Meter, flush: Callable[[Curve], None], resumed: Callable[[Curve], None], ranks: Ranks = ALONE
    ) -> None:
        self.meter, self.flush, self.resumed, self.ranks = meter, flush, resumed, ranks
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
        self.pending.append((self.meter.updates, name, value))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        due = self.meter.fraction * POINTS >= self.points + 1
        if due:
            self.meter.wait(pl_module.device)
        self.meter.aside = time.perf_counter()
        self.tell("loss", outputs["loss"])
        if not due:
            return
        self.points = math.floor(self.meter.fraction * POINTS)
        means = {name: statistics.fmean(values) for name, values in self.listed().items()}
        self.told.clear()
        if not math.isfinite(means["loss"]):
            raise Diverged(f"the training loss is {means['loss']} at update {self.meter.updates}")
        for name, mean in means.items():
            self.note(f"train/{name}", mean)
        self.note("train/lr", trainer.optimizers[0].param_groups[0]["lr"])
        self.note("train/pairs", self.meter.pairs)
        self.note("train/flops", self.meter.ledger.model_flops)
        self.note("train/seconds", self.meter.seconds)

    def tell(self, name: str, value: torch.Tensor) -> None:
        """A value of this update: the curve train/`name` gets the mean over the updates since its last point."""
        self.told.setdefault(name, []).append(value.detach())

    def listed(self) -> dict[str, list[float]]:
        return {name: self.ranks.mean([value.item() for value in values]) for name, values in self.told.items()}

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
