"""Validation during training: score the weights, keep the best or the last N, and decay the rate on a plateau."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch

from bench.measures.selection import Selection
from bench.system.files import fill_file
from bench.training.budget import BudgetTracker, LearningCurves
from bench.training.checkpoints import save_tensors
from bench.training.distributed import SINGLE_PROCESS, ProcessGroup
from bench.training.reward import RewardPhase
from models.parts.batch import Batch
from models.parts.optimization import OptimizationSettings
from models.parts.translator import Translator


@dataclass
class Score:
    """The result of a validation: greedy BLEU, GLEU and chrF2 in percent, cross entropy in nats per token.

    chrF2 is None unless it selects the weights.
    """

    bleu: float
    gleu: float
    loss: float
    chrf: float | None = None

    def selecting(self, selection: Selection) -> float:
        """Return the score that selects the weights."""
        value = getattr(self, selection.score)
        assert value is not None, f"the validation has not measured {selection.score}"
        return value


class Validation(pl.Callback):
    """Scores the weights at evenly spaced points of the budget and keeps the best, or the last N to average them.

    The best validation is that with the highest `Selection.rank`: the best value of the validation score; of equal ones
    that with the lower loss. If the run ends with a reward phase and a validation falls into it, only weights that have
    been trained with reward can be the best, even if earlier weights scored higher.

    Args:
        validations: Number of validations of the whole run.
        average: Number of last validations whose weights are averaged; 0 keeps the best validation instead.
        score: Returns the score of a model.
        selection: The validation score that selects the weights.
        folder: Where the weights are kept.
    """

    STATE = ("count", "in_reward_phase", "best", "best_loss", "best_update")
    STATE += ("lowest_loss", "plateaus", "kept_updates", "scores")

    def __init__(
        self,
        budget: BudgetTracker,
        curves: LearningCurves,
        reward_phase: RewardPhase,
        validations: int,
        average: int,
        score: Callable[[Translator], Score],
        selection: Selection,
        folder: Path,
    ) -> None:
        self.budget, self.curves, self.reward_phase = budget, curves, reward_phase
        self.validations, self.average, self.score = validations, average, score
        self.selection, self.folder = selection, folder
        self.count = 0  # points of the budget at which a validation was due so far
        self.in_reward_phase = False  # whether a validation has scored weights that were trained with reward
        self.best: float | None = None  # value of the validation score
        self.best_loss = math.inf  # loss of the same validation
        self.best_update = 0
        self.lowest_loss = math.inf
        self.plateaus = 0  # validations since the first one whose loss was not the lowest so far, with that one
        self.kept_updates: list[int] = []  # updates whose weights are on disk
        self.scores: list[tuple[int, float]] = []  # pairs seen, value of the validation score

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        if self.budget.fraction * self.validations < self.count + 1:
            return
        self.count = math.floor(min(1.0, self.budget.fraction) * self.validations)
        self.budget.synchronize()
        score = self.score(cast(Translator, pl_module))  # `train` passes a Translator to Lightning
        self.curves.add_point("validation/bleu", score.bleu)
        self.curves.add_point("validation/gleu", score.gleu)
        self.curves.add_point("validation/loss", score.loss)
        if score.chrf is not None:
            self.curves.add_point("validation/chrf", score.chrf)
        value, rank = score.selecting(self.selection), self.selection.rank
        self.scores.append((self.budget.pairs, value))
        lowest = score.loss < self.lowest_loss  # False also if the loss is not a number
        self.lowest_loss = score.loss if lowest else self.lowest_loss
        if self.plateaus or not lowest:
            self.plateaus += 1
        if self.reward_phase.has_trained and not self.in_reward_phase:
            self.in_reward_phase, self.best, self.kept_updates = True, None, []
        better = self.best is None or rank(value, score.loss) > rank(self.best, self.best_loss)
        if better:
            self.best, self.best_loss, self.best_update = value, score.loss, self.budget.updates
        if self.average or better:
            began = time.perf_counter()
            self.save(pl_module)
            self.budget.overhead_s += time.perf_counter() - began

    def path(self, update: int) -> Path:
        return self.folder / f"weights-{update}.pt"

    def save(self, module: pl.LightningModule) -> None:
        """Keep these weights. Older ones stay until `prune`, because the last checkpoint may still need them."""
        weights = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
        fill_file(self.path(self.budget.updates), lambda path: save_tensors(weights, path))
        self.kept_updates = [*self.kept_updates, self.budget.updates][-max(1, self.average) :]

    def prune(self) -> None:
        """Delete the weights that the checkpoint just written does not name."""
        kept = {self.path(update) for update in self.kept_updates}
        for path in set(self.folder.glob("weights-*.pt")) - kept:
            path.unlink(missing_ok=True)

    def final_weights(self) -> dict[str, torch.Tensor]:
        """Return the weights that are evaluated: those of the best validation, or the mean of the last N."""
        members = [torch.load(self.path(update), weights_only=True) for update in self.kept_updates]
        return {
            name: torch.stack([member[name].double() for member in members]).mean(0).to(first.dtype)
            if first.is_floating_point()
            else first
            for name, first in members[0].items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)


class PlateauDecay(pl.Callback):
    """The schedule's decay `plateau`: from the first validation without a new lowest loss on, each divides the rate.

    It is divided by ten, not below the schedule's `floor`. ConvS2S was trained so (Gehring et al. 2017, 4.2): rate
    0.25 until the validation loss stops falling, then a tenth after each epoch until the rate is 1e-4. In the paper
    training ends there. Here the budget ends it, as for every row. The schedule follows the loss for every target: it
    is the paper's rule, and a loss is not constant where a score is.
    """

    def __init__(
        self, optimization: OptimizationSettings, validation: Validation, group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.optimization, self.validation, self.group = optimization, validation, group

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Scale the rate of the next update, which the schedule has just set from its own base rate."""
        if self.optimization.schedule.decay != "plateau":
            return
        plateaus = self.group.broadcast(self.validation.plateaus)
        floor = self.optimization.schedule.floor or 0.0
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = max(min(group["lr"], floor), group["lr"] * 0.1**plateaus)
