"""Optimization settings, the same for every architecture: optimizer, learning-rate schedule, mean of the loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class OptimizerSettings:
    """An optimizer: a class of torch.optim and its arguments.

    Attributes:
        name: The class in torch.optim, such as Adam, SGD or Adadelta.
        lr: Learning rate, the peak of the schedule.
        settings: The other arguments of the class, such as {betas: [0.9, 0.98], eps: 1.0e-9}.
    """

    name: str = "Adam"
    lr: float = 1e-3
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class LearningRateSchedule:
    """Learning rate at update u (counted from 1): lr * min(1, u / warmup) * decay(u).

    The decay begins after warmup + hold updates.

    Attributes:
        warmup: Updates of linear increase from 0.
        hold: Updates at the full rate after the warm-up.
        decay: none; inverse_sqrt: sqrt((warmup + hold) / u); halve: 0.5 ** (1 + (u - warmup - hold - 1) // every);
            plateau: divided by ten after each validation whose loss was not the lowest so far (counted in
            `PlateauDecay` in bench/training/validation.py).
        every: For halve: updates between two halvings.
        floor: For plateau: lower bound of the learning rate; null for none.
    """

    warmup: int = 0
    hold: int = 0
    decay: Literal["none", "inverse_sqrt", "halve", "plateau"] = "none"
    every: int = 1
    floor: float | None = None

    def factor(self, update: int) -> float:
        """Return the factor of the learning rate at this update, counted from 1. Does not include plateau decay."""
        if update <= self.warmup:
            return update / self.warmup
        updates_of_decay = update - self.warmup - self.hold
        if updates_of_decay <= 0 or self.decay in ("none", "plateau"):
            return 1.0
        if self.decay == "inverse_sqrt":
            return (max(1, self.warmup + self.hold) / update) ** 0.5
        return 0.5 ** (1 + (updates_of_decay - 1) // self.every)


@dataclass
class OptimizationSettings:
    """How the loss is computed and minimized: the same settings for every architecture.

    Attributes:
        optimizer: The optimizer.
        schedule: The learning-rate schedule.
        label_smoothing: Probability mass spread evenly over the vocabulary (Szegedy et al. 2016); 0 for none.
        normalization: What the loss is averaged over. token: target tokens. sentence: sentences, each with the sum over
            its tokens, as in papers whose learning rates and clipping are meant for that sum divided by the batch size.
    """

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: LearningRateSchedule = field(default_factory=LearningRateSchedule)
    label_smoothing: float = 0.0
    normalization: Literal["token", "sentence"] = "token"
