"""The training loop: `train` sets up the Lightning trainer and its callbacks.

Lightning owns the loop. Everything that happens around a batch is a callback. They act in this order: `MemoryLimit`
(memory_limit.py) tells an update that ran out of memory from what follows it, `SeedPerUpdate` (checkpoints.py) seeds
dropout, `BudgetTracker` (budget.py) counts what the update used, `BudgetSchedule` (budget.py) sets the learning rate if
the schedule is in shares of the budget, `RewardPhase` (reward.py) replaces the cross entropy by the reward objective,
`Validation` (validation.py) scores the weights, `PlateauDecay` (validation.py) lowers the learning rate if that is the
schedule, `LearningCurves` (budget.py) records the loss, `CheckpointWriter` (checkpoints.py) saves what a resumed run
needs, `RepeatedWork` (checkpoints.py) counts updates repeated after a kill, and `Progress` reports the status to the
caller.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from bench.data.batches import PairBatches
from bench.measures.flops import FlopCounter
from bench.measures.selection import Selection
from bench.system.machine import MachineSettings, bf16_fallback
from bench.system.progress import Status, StatusCallback
from bench.training.budget import BudgetSchedule, BudgetSettings, BudgetTracker, Curve, LearningCurves
from bench.training.checkpoints import (
    PROGRESS_FILE,
    CheckpointWriter,
    DirectCheckpointIO,
    RepeatedWork,
    SeedPerUpdate,
    Signals,
)
from bench.training.distributed import SINGLE_PROCESS, ExternalLauncher, ProcessGroup
from bench.training.memory_limit import MemoryLimit
from bench.training.recorded_updates import record_updates
from bench.training.reward import RewardPhase, RewardSettings
from bench.training.validation import PlateauDecay, Score, Validation
from models.parts.batch import Batch
from models.parts.optimization import OptimizationSettings
from models.parts.translator import Translator, cross_entropy_loss

for name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)  # advice and advertisements

CHECKPOINT = "last.ckpt"

MINIMUM = {"max_pairs": 1, "max_updates": 1, "batch_tokens": 1, "batch_pairs": 1, "validations": 1, "average": 0}
MINIMUM |= {"schedule.warmup": 0, "schedule.hold": 0, "schedule.every": 1, "accumulate": 1}
"""The smallest valid value of each setting that is a count."""

POSITIVE = ("max_flops", "max_seconds", "clip", "optimizer.lr")
"""The settings that must be greater than 0."""


@dataclass
class TrainingSettings(OptimizationSettings, BudgetSettings):
    """How a model is trained, and for how long.

    Attributes:
        batch_tokens: Maximum number of tokens in a batch, counted on the longer side with padding.
        batch_pairs: Maximum number of sentence pairs in a training batch; null for no such limit. Where `batch_tokens`
            is so large that this limit is reached first, rows with different text units (subwords, words, characters)
            have the same number of updates.
        precision: Arithmetic of products. bf16-mixed keeps the weights in fp32, and on a GPU recurrent layers too.
            64-true distinguishes rounding errors from mistakes.
        clip: Maximum norm of the gradient; null for no clipping.
        validations: Number of evenly spaced points of the budget at which the weights are scored.
        average: Evaluate the mean of the weights at the last N validations; 0 evaluates the best validation's weights.
        reward: Settings of the reward phase at the end of the budget (GNMT's mixed objective of reward and likelihood).
    """

    batch_tokens: int = 4096
    batch_pairs: int | None = None
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    clip: float | None = 1.0
    validations: int = 10
    average: int = 0
    reward: RewardSettings = field(default_factory=RewardSettings)

    def check(self) -> None:
        """Check the settings before training.

        Raises:
            ValueError: a setting is outside its range, or there is no budget.
        """
        if not any((self.max_pairs, self.max_updates, self.max_flops, self.max_seconds)):
            raise ValueError(
                "training: no budget; set training.max_pairs, training.max_updates, training.max_flops or "
                "training.max_seconds"
            )
        for key, minimum in MINIMUM.items():
            value = attrgetter(key)(self)
            if value is not None and value < minimum:
                raise ValueError(f"training.{key}: {value} is too small; at least {minimum}")
        for key in POSITIVE:
            value = attrgetter(key)(self)
            if value is not None and not value > 0:
                raise ValueError(f"training.{key}: {value} is too small; more than 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"training.label_smoothing: {self.label_smoothing} is not between 0 and 1; at least 0, less than 1"
            )
        if self.average > self.validations:
            raise ValueError(f"training.average: {self.average} is more than training.validations {self.validations}")
        self.schedule.check()
        self.reward.check()


def _no_validation(model: Translator) -> Score:
    raise AssertionError("only process 0 validates")


def _ignore(_: Curve | Status) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class TrainingHooks:
    """The functions that `train` calls. The defaults are those of a follower, which neither validates nor reports.

    Attributes:
        decode_text: Turns sentences of target ids into text; the reward compares text.
        score: Returns the score of the model at a validation.
        selection: The validation score that selects the weights, and the tokenizer of BLEU and GLEU.
        on_points_saved: Called with the points of the learning curves that the newest checkpoint contains for the first
            time.
        on_resumed: Called at the start of a resumed run with all points of its checkpoint.
        on_status: Called with the status after every update. True at an update with a validation, whose checkpoint has
            just been saved, stops training.
    """

    decode_text: Callable[[Sequence[Sequence[int]]], list[str]]
    score: Callable[[Translator], Score] = _no_validation
    selection: Selection = field(default_factory=Selection)
    on_points_saved: Callable[[Curve], None] = _ignore
    on_resumed: Callable[[Curve], None] = _ignore
    on_status: StatusCallback = _ignore


class Progress(pl.Callback):
    """Calls `on_status` after every update and stops training if it returns True."""

    def __init__(
        self,
        budget: BudgetTracker,
        curves: LearningCurves,
        validation: Validation,
        on_status: StatusCallback,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.budget, self.curves, self.validation = budget, curves, validation
        self.on_status, self.group = on_status, group

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
            self.validation.selection.label,
        )
        if self.group.broadcast(self.on_status(status)):
            trainer.should_stop = True
        budget.overhead_s += time.perf_counter() - budget.overhead_start

    def last(self, name: str) -> float | None:
        """Return the value of the last point of a curve, or None if it has no point yet."""
        return next((value for _, other, value in reversed(self.curves.points) if other == name), None)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training: the weights to be evaluated, what they cost, and the learning curves.

    Attributes:
        scores: The validation score at each validation.
        graph_launches: Batches, or parts of batches, that this process computed by recorded CUDA graphs.
    """

    weights: dict[str, torch.Tensor]
    budget: BudgetTracker
    best_update: int
    scores: list[float]
    curve: Curve
    repeated_work: RepeatedWork
    graph_launches: int = 0

    @property
    def completed(self) -> bool:
        """Whether the whole budget was used. False if `on_status` stopped the training."""
        return self.budget.fraction >= 1


def train(
    model: Translator,
    data: PairBatches,
    settings: TrainingSettings,
    machine: MachineSettings,
    hooks: TrainingHooks,
    *,
    seed: int,
    folder: Path,
    signals: Signals,
    group: ProcessGroup = SINGLE_PROCESS,
) -> TrainingResult:
    """Train until the budget is used up. Resume from `folder`/last.ckpt if that file exists.

    Args:
        model: The model with its initial weights. It is moved to the device and trained in place.
        seed: Seed of dropout and of the samples of the reward phase.
        folder: Where checkpoints and kept weights are written.
        signals: Defers SIGINT and SIGTERM to the end of an update.
        group: The processes that train this model together. Process 0 validates and saves for all of them.

    Raises:
        Interrupted: a signal came; everything is saved.
        Diverged: the loss became infinite or not a number.
        UpdateTooLarge: a GPU ran out of memory; more parts (`accumulate`) may help. Only if there is one process.
    """
    model.optimization = settings
    budget = BudgetTracker(settings, FlopCounter(model), group)
    curves = LearningCurves(budget, hooks.on_points_saved, hooks.on_resumed, group)
    reward_phase = RewardPhase(settings.reward, budget, curves, hooks.decode_text, hooks.selection.tokenizer)
    model.objective = reward_phase.objective
    recorded = None
    if machine.cuda_graphs:
        recorded = record_updates(model, data, budget.flop_counter, settings.reward.share)
    validation = Validation(
        budget,
        curves,
        reward_phase,
        settings.validations,
        settings.average,
        hooks.score,
        hooks.selection,
        folder,
    )

    def on_saved() -> None:
        curves.mark_saved()
        if group.is_leader:
            validation.prune()

    path = folder / CHECKPOINT
    checkpoints = CheckpointWriter(
        path, machine.checkpoint_seconds, signals, data, lambda: validation.count, on_saved, group
    )
    repeated_work = RepeatedWork(folder / PROGRESS_FILE, lambda: (budget.updates, budget.seconds))
    progress = Progress(budget, curves, validation, hooks.on_status, group)
    seeds = SeedPerUpdate(seed, group.rank)
    plateau = PlateauDecay(settings, validation, group)
    schedule = BudgetSchedule(settings, budget)
    memory_limit = MemoryLimit()
    callbacks = [
        memory_limit,
        seeds,
        budget,
        schedule,
        reward_phase,
        validation,
        plateau,
        curves,
        checkpoints,
        repeated_work,
        progress,
    ]
    if not group.is_leader:
        callbacks = [callback for callback in callbacks if callback not in (validation, repeated_work)]
    data.rank, data.processes = group.rank, group.size
    trainer = pl.Trainer(
        accelerator=machine.device.type if machine.device.type == "cpu" else "gpu",
        devices=machine.devices,
        num_nodes=machine.num_nodes,
        strategy="auto" if group.size == 1 else "ddp",
        precision=settings.precision,
        gradient_clip_val=settings.clip,
        max_epochs=1,  # the data never ends: an "epoch" of Lightning is the whole run, and `budget` stops it
        callbacks=callbacks,
        plugins=[ExternalLauncher(group, machine.devices), DirectCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    in_bf16 = bf16_fallback(machine.device, settings.precision == "bf16-mixed")
    with signals.deferred(), in_bf16, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # caused by Lightning itself
        # Lightning warns of any loader without workers, and of resuming with any loader that is not its own.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before the epoch ended.*")
        model.train()
        try:
            with memory_limit.reported(settings.accumulate or 1) if group.size == 1 else nullcontext():
                trainer.fit(model, data, ckpt_path=path if group.broadcast(path.exists()) else None, weights_only=True)
        finally:
            model.objective, model.differentiate = cross_entropy_loss, None
    weights = group.broadcast(validation.final_weights() if group.is_leader else {})
    scores = [score for _, score in validation.scores]
    launches = 0 if recorded is None else recorded.launches
    return TrainingResult(weights, budget, validation.best_update, scores, curves.points, repeated_work, launches)
