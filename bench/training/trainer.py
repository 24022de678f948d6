"""Training under a budget: the Trainer's set-up, the meter, validation, checkpoints, averaging of the last N.

Lightning owns the loop; what happens around a batch stands here as callbacks, in the order in which they act:
`BudgetTracker` (budget.py) counts what the update cost, `RewardPhase` (reward.py) replaces likelihood by reward,
`Validation` scores the weights at evenly spaced points of the budget, `PlateauDecay` lowers the learning rate where that is
the schedule, `LearningCurves` (budget.py) notes the loss, `CheckpointWriter` (checkpoints.py) saves what a resumed run needs,
`Progress` tells the person.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from bench.data.batches import PairBatches
from bench.measures.flops import FlopCounter
from bench.system.machine import MachineSettings, bf16_fallback
from bench.system.progress import Status, StatusCallback
from bench.training.budget import BudgetSettings, BudgetTracker, Curve, LearningCurves
from bench.training.checkpoints import CheckpointWriter, DirectCheckpointIO, RepeatedWork, SeedPerUpdate, Signals
from bench.training.distributed import SINGLE_PROCESS, ExternalLauncher, ProcessGroup
from bench.training.reward import RewardPhase, RewardSettings
from bench.training.validation import PlateauDecay, Score, Validation
from models.parts.batch import Batch
from models.parts.optimization import OptimizationSettings
from models.parts.translator import Translator, cross_entropy_loss

for name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)  # advice and advertisements

CHECKPOINT = "last.ckpt"

LEAST = {"max_pairs": 1, "max_updates": 1, "batch_tokens": 1, "validations": 1, "average": 0}
LEAST |= {"schedule.warmup": 0, "schedule.hold": 0, "schedule.every": 1}
ABOVE_ZERO = ("max_flops", "max_seconds", "clip", "optimizer.lr")
"""Settings that are counted, with the least that they may be, and quantities that must be more than nothing."""


@dataclass
class TrainingSettings(OptimizationSettings, BudgetSettings):
    """How long and how a model is trained.

    Attributes:
        batch_tokens: Padded tokens of the longer side in a batch, at most.
        precision: Arithmetic of products; bf16-mixed keeps the weights in fp32, and recurrent layers on a GPU; 64-true
            tells rounding from a mistake.
        clip: Largest norm of the gradient; null for no clipping.
        validations: Evenly spaced points of the budget at which the weights are scored.
        average: Score the mean of the weights at the last N validations; 0 scores the best validation's.
        reward: The end of the budget for GNMT's mixed objective of reward and likelihood.
    """

    batch_tokens: int = 4096
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    clip: float | None = 1.0
    validations: int = 10
    average: int = 0
    reward: RewardSettings = field(default_factory=RewardSettings)

    def check(self) -> None:
        """Raises ValueError for settings that cannot be trained with."""
        if not any((self.max_pairs, self.max_updates, self.max_flops, self.max_seconds)):
            raise ValueError(
                "training: no budget; set training.max_pairs, training.max_updates, training.max_flops or "
                "training.max_seconds"
            )
        for key, least in LEAST.items():
            value = attrgetter(key)(self)
            if value is not None and value < least:
                raise ValueError(f"training.{key}: {value} is too small; at least {least}")
        for key in ABOVE_ZERO:
            value = attrgetter(key)(self)
            if value is not None and not value > 0:
                raise ValueError(f"training.{key}: {value} is too small; more than 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"training.label_smoothing: {self.label_smoothing} is not between 0 and 1")
        if self.average > self.validations:
            raise ValueError(f"training.average: {self.average} is more than training.validations {self.validations}")
        self.reward.check()


class Progress(pl.Callback):
    """Tells `report` after every update how far the run is; what is shown, and how often, is its business.

    If it answers True to an update with a validation, whose checkpoint has just been saved, training stops there.
    """

    def __init__(
        self,
        budget: BudgetTracker,
        curves: LearningCurves,
        validation: Validation,
        report: StatusCallback,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.budget, self.curves, self.validation = budget, curves, validation
        self.report, self.group = report, group

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        budget = self.budget
        status = Status(
            budget.fraction,
            budget.updates,
            budget.pairs,
            budget.target_tokens,
            budget.seconds,
            self.last("train/loss"),
            self.validation.best,
            tuple(self.validation.scores),
            self.last("train/reward"),
        )
        if self.group.broadcast(self.report(status)):
            trainer.should_stop = True
        budget.overhead_s += time.perf_counter() - budget.overhead_start

    def last(self, name: str) -> float | None:
        """The last point of a curve."""
        return next((value for _, other, value in reversed(self.curves.seen) if other == name), None)


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: the weights to be judged, what they cost, and how they came about."""

    weights: dict[str, torch.Tensor]
    budget: BudgetTracker
    best_update: int
    curve: Curve
    repeated: RepeatedWork

    @property
    def whole(self) -> bool:
        """Whether the budget has been spent; not so if `report` asked to stop."""
        return self.budget.fraction >= 1


def train(
    model: Translator,
    data: PairBatches,
    settings: TrainingSettings,
    machine: MachineSettings,
    *,
    seed: int,
    folder: Path,
    signals: Signals,
    text: Callable[[Sequence[Sequence[int]]], list[str]],
    score: Callable[[Translator], Score],
    flush: Callable[[Curve], None],
    resumed: Callable[[Curve], None],
    report: StatusCallback,
    group: ProcessGroup = SINGLE_PROCESS,
) -> TrainingResult:
    """Trains until the budget is spent; continues from `folder`/last.ckpt if there is one.

    Args:
        model: With its initial weights; moved to the device and trained in place.
        signals: SIGINT and SIGTERM wait in it for the end of an update.
        text: Turns ids of the target into sentences, for the reward.
        score: Judges the weights at a validation.
        flush: Gets the points of the learning curves that the newest checkpoint has secured.
        resumed: Gets all points that the checkpoint holds from which a run continues.
        report: Gets the state after every update.
        ranks: The processes that train this model together; process 0 validates and saves for all.

    Raises:
        Interrupted: a signal came; everything is saved.
        Diverged: the loss is no longer a number.
    """
    model.optimization = settings
    budget = BudgetTracker(settings, FlopCounter(model), group)
    curves = LearningCurves(budget, flush, resumed, group)
    reward_phase = RewardPhase(settings.reward, budget, curves, text)
    model.objective = reward_phase.objective
    validation = Validation(budget, curves, reward_phase, settings.validations, settings.average, score, folder)

    def saved() -> None:
        curves.secure()
        if group.is_leader:
            validation.prune()

    path = folder / CHECKPOINT
    checkpoints = CheckpointWriter(
        path, machine.checkpoint_seconds, signals, data, lambda: validation.done, saved, group
    )
    repeated = RepeatedWork(folder / "reached.json", lambda: (budget.updates, budget.seconds))
    progress = Progress(budget, curves, validation, report, group)
    random = SeedPerUpdate(seed, group.rank)
    plateau = PlateauDecay(settings, validation, group)
    callbacks = [random, budget, reward_phase, validation, plateau, curves, checkpoints, repeated, progress]
    if not group.is_leader:
        callbacks = [callback for callback in callbacks if callback not in (validation, repeated)]
    data.rank, data.processes = group.rank, group.size
    trainer = pl.Trainer(
        accelerator=machine.device.type if machine.device.type == "cpu" else "gpu",
        devices=machine.devices,
        num_nodes=machine.num_nodes,
        strategy="auto" if group.size == 1 else "ddp",
        precision=settings.precision,
        gradient_clip_val=settings.clip,
        max_epochs=1,  # the data never ends: an "epoch" of Lightning is the whole run, and the meter stops it
        callbacks=callbacks,
        plugins=[ExternalLauncher(group, machine.devices), DirectCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    in_bf16 = bf16_fallback(machine.device, settings.precision == "bf16-mixed")
    with signals.deferred(), in_bf16, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # Lightning's own
        # Said of any loader without workers, and of any resumed loader that is not Lightning's own.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before the epoch ended.*")
        model.train()
        trainer.fit(model, data, ckpt_path=path if group.broadcast(path.exists()) else None, weights_only=True)
    model.objective = cross_entropy_loss
    weights = group.broadcast(validation.scored_weights() if group.is_leader else {})
    return TrainingResult(weights, budget, validation.best_update, curves.seen, repeated)
