"""Training under a budget: the Trainer's set-up, the meter, validation, checkpoints, averaging of the last N.

Lightning owns the loop; what happens around a batch stands here as callbacks, in the order in which they act:
`Meter` counts what the update cost, `Validation` scores the weights at evenly spaced points of the budget, `Curves`
notes the loss, `Checkpoints` (checkpoints.py) saves what a resumed run needs, `Progress` tells the person.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from bench.batches import PairBatches
from bench.checkpoints import Checkpoints, PlainFiles, Repeated, Signals, save, write_beside
from bench.machine import Machine
from bench.measures.flops import Ledger
from bench.progress import Report, Status
from models.parts.translator import Batch, Recipe, Translator

for name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)  # advice and advertisements

CHECKPOINT = "last.ckpt"

POINTS = 200
"""Points of a learning curve, whatever the length of the run."""


@dataclass
class Training(Recipe):
    """How long and how a model is trained.

    Attributes:
        max_pairs: Budget in sentence pairs seen: the unit in which rows of a table are equal.
        max_updates: Budget in updates of the weights.
        max_flops: Budget in model FLOPs of training (docs/flops.md).
        max_seconds: Budget in seconds of training, validations left out.
        batch_tokens: Padded tokens of the longer side in a batch, at most.
        precision: Arithmetic of products; bf16-mixed keeps the weights in fp32.
        clip: Largest norm of the gradient; null for no clipping.
        validations: Evenly spaced points of the budget at which the weights are scored.
        average: Score the mean of the weights at the last N validations; 0 scores the best validation's.
    """

    max_pairs: int | None = None
    max_updates: int | None = None
    max_flops: float | None = None
    max_seconds: float | None = None
    batch_tokens: int = 4096
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    clip: float | None = 1.0
    validations: int = 10
    average: int = 0

    def check(self) -> None:
        """Raises ValueError for settings that cannot be trained with."""
        if not any((self.max_pairs, self.max_updates, self.max_flops, self.max_seconds)):
            raise ValueError(
                "training: no budget; set training.max_pairs, training.max_updates, training.max_flops or "
                "training.max_seconds"
            )
        if not 0 <= self.average <= self.validations:
            raise ValueError(f"training.average: {self.average} is more than training.validations {self.validations}")


class Diverged(Exception):
    """The loss is no longer a number."""


class Meter(pl.Callback):
    """What the run has used: updates, pairs, tokens, FLOPs, seconds; stops the run when its budget is spent.

    Seconds are those between the begin and the end of updates: validations and checkpoints are not in them.
    """

    def __init__(self, settings: Training, ledger: Ledger) -> None:
        self.settings, self.ledger = settings, ledger
        self.updates = self.pairs = self.source_tokens = self.target_tokens = 0
        self.seconds = 0.0
        self.began = 0.0

    @property
    def fraction(self) -> float:
        """Part of the budget that is spent; of several limits, that of the one nearest to its end."""
        limits = (
            (self.pairs, self.settings.max_pairs),
            (self.updates, self.settings.max_updates),
            (self.ledger.model_flops, self.settings.max_flops),
            (self.seconds, self.settings.max_seconds),
        )
        return max(used / limit for used, limit in limits if limit)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A run that was killed after its last update has a spent budget when it is resumed.
        trainer.should_stop = self.fraction >= 1

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int):
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        self.seconds += time.perf_counter() - self.began
        self.updates += 1
        self.pairs += len(batch.source.lengths_B)
        self.source_tokens += sum(batch.source.lengths_B)
        self.target_tokens += sum(batch.target.lengths_B)
        self.ledger.add(batch)
        if self.fraction >= 1:
            trainer.should_stop = True

    COUNTS = ("updates", "pairs", "source_tokens", "target_tokens", "seconds")

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.COUNTS} | {"ledger": self.ledger.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in self.COUNTS:
            setattr(self, name, state_dict[name])
        self.ledger.load_state_dict(state_dict["ledger"])


class RandomPerUpdate(pl.Callback):
    """Seeds dropout from (seed, update), so that update n draws the same numbers in a resumed run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int):
        number = (self.seed * 1_000_003 + trainer.global_step) % 2**63
        # The default generators themselves: torch.manual_seed costs a hundred times more.
        torch.default_generator.manual_seed(number)
        if pl_module.device.type == "cuda":
            torch.cuda.default_generators[pl_module.device.index or 0].manual_seed(number)


Curve = list[tuple[int, str, float]]
"""Points (update, name, value)."""


class Curves(pl.Callback):
    """Learning curves at evenly spaced points of the budget. `flush` gets the points that a checkpoint has secured.

    A point that was noted after the last checkpoint is noted again by the resumed run: so it is handed on only
    together with a checkpoint, and no step has two values. `resumed` gets all that the checkpoint of a resumed run
    holds, since the killed process may not have handed on its last points.
    """

    def __init__(self, meter: Meter, flush: Callable[[Curve], None], resumed: Callable[[Curve], None]) -> None:
        self.meter, self.flush, self.resumed = meter, flush, resumed
        self.secured: Curve = []
        self.pending: Curve = []
        self.points = 0
        self.losses: list[torch.Tensor] = []

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
        self.losses.append(outputs["loss"].detach())
        if self.meter.fraction * POINTS < self.points + 1:
            return
        self.points = math.floor(self.meter.fraction * POINTS)
        loss = statistics.fmean(loss.item() for loss in self.losses)
        self.losses.clear()
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} at update {self.meter.updates}")
        self.note("train/loss", loss)
        self.note("train/lr", trainer.optimizers[0].param_groups[0]["lr"])
        self.note("train/pairs", self.meter.pairs)
        self.note("train/flops", self.meter.ledger.model_flops)
        self.note("train/seconds", self.meter.seconds)

    def secure(self) -> None:
        self.secured += self.pending
        self.flush(self.pending)
        self.pending = []

    def state_dict(self) -> dict[str, Any]:
        losses = [loss.item() for loss in self.losses]
        return {"secured": self.seen, "points": self.points, "losses": losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.secured = [tuple(point) for point in state_dict["secured"]]
        self.points = state_dict["points"]
        self.losses = [torch.tensor(loss) for loss in state_dict["losses"]]


@dataclass
class Score:
    """What a validation found: greedy BLEU, and cross entropy in nats a token."""

    bleu: float
    loss: float


class Validation(pl.Callback):
    """Scores the weights at evenly spaced points of the budget and keeps the best, or the last N for averaging."""

    def __init__(
        self, meter: Meter, curves: Curves, settings: Training, score: Callable[[Translator], Score], folder: Path
    ) -> None:
        self.meter, self.curves, self.settings, self.score, self.folder = meter, curves, settings, score, folder
        self.done = 0
        self.best: float | None = None
        self.best_update = 0
        self.kept: list[int] = []  # updates whose weights are kept
        self.scores: list[tuple[int, float]] = []  # pairs seen, BLEU

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        if self.meter.fraction * self.settings.validations < self.done + 1:
            return
        self.done = math.floor(min(1.0, self.meter.fraction) * self.settings.validations)
        score = self.score(pl_module)  # type: ignore[arg-type]  # ours is the only module that is trained here
        self.curves.note("validation/bleu", score.bleu)
        self.curves.note("validation/loss", score.loss)
        self.scores.append((self.meter.pairs, score.bleu))
        better = self.best is None or score.bleu > self.best
        if better:
            self.best, self.best_update = score.bleu, self.meter.updates
        if self.settings.average or better:
            self.save(pl_module)

    def path(self, update: int) -> Path:
        return self.folder / f"weights-{update}.pt"

    def save(self, module: pl.LightningModule) -> None:
        """Keeps these weights. The older ones stay until a checkpoint no longer names them."""
        weights = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
        write_beside(self.path(self.meter.updates), lambda path: save(weights, path))
        self.kept = [*self.kept, self.meter.updates][-max(1, self.settings.average) :]

    def prune(self) -> None:
        """Deletes the weights that the checkpoint just written does not name."""
        kept = {self.path(update) for update in self.kept}
        for path in set(self.folder.glob("weights-*.pt")) - kept:
            path.unlink(missing_ok=True)

    def scored_weights(self) -> dict[str, torch.Tensor]:
        """The weights that a run is judged by."""
        members = [torch.load(self.path(update), weights_only=True) for update in self.kept]
        return {
            name: torch.stack([member[name].double() for member in members]).mean(0).to(first.dtype)
            if first.is_floating_point()
            else first
            for name, first in members[0].items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("done", "best", "best_update", "kept", "scores")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)


class Progress(pl.Callback):
    """Tells `report` after every update how far the run is; what is shown, and how often, is its business.

    If it answers True to an update with a validation, whose checkpoint has just been saved, training stops there.
    """

    def __init__(self, meter: Meter, curves: Curves, validation: Validation, report: Report) -> None:
        self.meter, self.curves, self.validation, self.report = meter, curves, validation, report

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        meter = self.meter
        loss = next((value for _, name, value in reversed(self.curves.seen) if name == "train/loss"), None)
        status = Status(
            meter.fraction,
            meter.updates,
            meter.pairs,
            meter.target_tokens,
            meter.seconds,
            loss,
            self.validation.best,
            tuple(self.validation.scores),
        )
        if self.report(status):
            trainer.should_stop = True


@dataclass(frozen=True)
class Trained:
    """A finished training: the weights to be judged, what they cost, and how they came about."""

    weights: dict[str, torch.Tensor]
    meter: Meter
    best_update: int
    curve: Curve
    repeated: Repeated


def train(
    model: Translator,
    data: PairBatches,
    settings: Training,
    machine: Machine,
    *,
    seed: int,
    folder: Path,
    signals: Signals,
    score: Callable[[Translator], Score],
    flush: Callable[[Curve], None],
    resumed: Callable[[Curve], None],
    report: Report,
) -> Trained:
    """Trains until the budget is spent; continues from `folder`/last.ckpt if there is one.

    Args:
        model: With its initial weights; moved to the device and trained in place.
        signals: SIGINT and SIGTERM wait in it for the end of an update.
        score: Judges the weights at a validation.
        flush: Gets the points of the learning curves that the newest checkpoint has secured.
        resumed: Gets all points that the checkpoint holds from which a run continues.
        report: Gets the state after every update.

    Raises:
        Interrupted: a signal came; everything is saved.
        Diverged: the loss is no longer a number.
    """
    model.recipe = settings
    meter = Meter(settings, Ledger(model))
    curves = Curves(meter, flush, resumed)
    validation = Validation(meter, curves, settings, score, folder)

    def saved() -> None:
        curves.secure()
        validation.prune()

    path = folder / CHECKPOINT
    checkpoints = Checkpoints(path, machine.checkpoint_seconds, signals, data, lambda: validation.done, saved)
    repeated = Repeated(folder / "reached.json", lambda: (meter.updates, meter.seconds))
    trainer = pl.Trainer(
        accelerator=machine.device.type if machine.device.type == "cpu" else "gpu",
        devices=machine.devices,
        num_nodes=machine.num_nodes,
        precision=settings.precision,
        gradient_clip_val=settings.clip,
        max_epochs=1,  # the data never ends: an "epoch" of Lightning is the whole run, and the meter stops it
        callbacks=[
            RandomPerUpdate(seed),
            meter,
            validation,
            curves,
            checkpoints,
            repeated,
            Progress(meter, curves, validation, report),
        ],
        plugins=[LightningEnvironment(), PlainFiles()],  # the first: never guess a cluster from the environment
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with signals.held(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # Lightning's own
        # Said of any loader without workers, and of any resumed loader that is not Lightning's own.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before the epoch ended.*")
        model.train()
        trainer.fit(model, data, ckpt_path=path if path.exists() else None, weights_only=True)
    return Trained(validation.scored_weights(), meter, validation.best_update, curves.seen, repeated)
