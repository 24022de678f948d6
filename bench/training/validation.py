"""Validation during training: scores the weights, keeps the best (or averages the last N), decays on a plateau."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch

from bench.system.files import fill_file
from bench.training.budget import BudgetTracker, Curves
from bench.training.checkpoints import save
from bench.training.distributed import SINGLE_PROCESS, ProcessGroup
from bench.training.reward import RewardPhase
from models.parts.batch import Batch
from models.parts.optimization import OptimizationSettings
from models.parts.translator import Translator


@dataclass
class Score:
    """What a validation found: greedy BLEU and mean GLEU in percent, and cross entropy in nats a token."""

    bleu: float
    gleu: float
    loss: float


class Validation(pl.Callback):
    """Scores the weights at evenly spaced points of the budget and keeps the best, or the last N for averaging.

    Of a run that ends with a phase of reward, weights that have learnt from it, whatever likelihood had reached.
    """

    def __init__(
        self,
        budget: BudgetTracker,
        curves: Curves,
        refinement: RewardPhase,
        validations: int,
        average: int,
        score: Callable[[Translator], Score],
        folder: Path,
    ) -> None:
        self.budget, self.curves, self.refinement = budget, curves, refinement
        self.validations, self.average, self.score, self.folder = validations, average, score, folder
        self.done = 0
        self.refined = False  # whether the weights of a validation had learnt from reward
        self.best: float | None = None
        self.best_update = 0
        self.lowest = math.inf  # loss
        self.plateaus = 0  # validations whose loss was not the lowest so far
        self.kept: list[int] = []  # updates whose weights are kept
        self.scores: list[tuple[int, float]] = []  # pairs seen, BLEU

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        if self.budget.fraction * self.validations < self.done + 1:
            return
        self.done = math.floor(min(1.0, self.budget.fraction) * self.validations)
        self.budget.wait()
        score = self.score(cast(Translator, pl_module))  # what `train` gives to Lightning
        self.curves.note("validation/bleu", score.bleu)
        self.curves.note("validation/gleu", score.gleu)
        self.curves.note("validation/loss", score.loss)
        self.scores.append((self.budget.pairs, score.bleu))
        self.plateaus += score.loss >= self.lowest
        self.lowest = min(score.loss, self.lowest)
        if self.refinement.acted and not self.refined:
            self.refined, self.best, self.kept = True, None, []
        better = self.best is None or score.bleu > self.best
        if better:
            self.best, self.best_update = score.bleu, self.budget.updates
        if self.average or better:
            began = time.perf_counter()
            self.save(pl_module)
            self.budget.overhead += time.perf_counter() - began

    def path(self, update: int) -> Path:
        return self.folder / f"weights-{update}.pt"

    def save(self, module: pl.LightningModule) -> None:
        """Keeps these weights. The older ones stay until a checkpoint no longer names them."""
        weights = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
        fill_file(self.path(self.budget.updates), lambda path: save(weights, path))
        self.kept = [*self.kept, self.budget.updates][-max(1, self.average) :]

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
        names = ("done", "refined", "best", "best_update", "lowest", "plateaus", "kept", "scores")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)


class Plateau(pl.Callback):
    """Schedule's decay `plateau`: the rate falls to a tenth at each validation that brought nothing, down to `floor`.

    As ConvS2S was trained (Gehring et al. 2017, section 4.2): rate 0.25, a tenth whenever the validation loss stops
    falling, until 1e-4. There training ends then; here the budget ends it, as it does for every row.
    """

    def __init__(
        self, optimization: OptimizationSettings, validation: Validation, group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.optimization, self.validation, self.group = optimization, validation, group

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """The schedule has just set the rate of the next update, from its own base rate."""
        if self.optimization.schedule.decay != "plateau":
            return
        plateaus, floor = self.group.first(self.validation.plateaus), self.optimization.schedule.floor or 0.0
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = max(min(group["lr"], floor), group["lr"] * 0.1**plateaus)
