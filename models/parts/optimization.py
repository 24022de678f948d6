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
    """Learning rate, counted in updates or in shares of the budget.

    In updates, the rate at update u (counted from 1) is lr * min(1, u / warmup) * decay(u); the decay begins after
    warmup + hold updates. The papers count so.

    In shares, with the decays linear and one_minus_sqrt, the rate depends on the share s of the budget (0 to 1) that
    was used before the update: lr * s / warmup_share during the warm-up, then lr * decay(p), where p grows from 0 at
    the end of the warm-up to 1 at the end of the budget. The rate therefore ends at 0, and one schedule fits budgets of
    any size. The budget is whatever limit is reached first (`BudgetTracker.fraction` in bench/training/budget.py); if
    it is a time, the rate depends on the speed of the machine, as the number of updates does.

    Attributes:
        warmup: Updates of linear increase from 0.
        hold: Updates at the full rate after the warm-up.
        decay: none; inverse_sqrt: sqrt((warmup + hold) / u); halve: 0.5 ** (1 + (u - warmup - hold - 1) // every);
            plateau: divided by ten at each validation from the first one whose loss was not the lowest so far
            (`PlateauDecay` in bench/training/validation.py). In shares of the budget: linear: 1 - p; one_minus_sqrt:
            1 - sqrt(p) (Hägele et al. 2024).
        every: For halve: updates between two halvings.
        floor: For plateau: lower bound of the learning rate; null for none.
        warmup_share: For linear and one_minus_sqrt: share of the budget in which the rate rises from 0; null for none.
    """

    warmup: int = 0
    hold: int = 0
    decay: Literal["none", "inverse_sqrt", "halve", "plateau", "linear", "one_minus_sqrt"] = "none"
    every: int = 1
    floor: float | None = None
    warmup_share: float | None = None

    @property
    def in_shares(self) -> bool:
        """Whether the schedule is counted in shares of the budget."""
        return self.decay in ("linear", "one_minus_sqrt")

    def check(self) -> None:
        """Check that the schedule is counted either in updates or in shares of the budget.

        Raises:
            ValueError: it mixes both, or the share is outside its range.
        """
        share = self.warmup_share
        if self.in_shares and (self.warmup or self.hold):
            raise ValueError(
                f"training.schedule: decay {self.decay} counts in shares of the budget, but warmup {self.warmup} and "
                f"hold {self.hold} count updates; set both to 0 and use training.schedule.warmup_share"
            )
        if share is not None and not self.in_shares:
            raise ValueError(
                f"training.schedule.warmup_share: {share} counts in shares of the budget, but decay {self.decay} "
                "counts updates; set training.schedule.decay to linear or one_minus_sqrt, or warmup_share to null"
            )
        if share is not None and not 0 <= share < 1:
            raise ValueError(f"training.schedule.warmup_share: {share} is not a share; at least 0, less than 1")

    def factor_at(self, share: float) -> float:
        """Return the factor of the learning rate at this share of the budget, for a schedule in shares."""
        warmup = self.warmup_share or 0.0
        if share < warmup:
            return share / warmup
        progress = min(1.0, (share - warmup) / (1 - warmup))
        return 1 - progress if self.decay == "linear" else 1 - progress**0.5

    def factor(self, update: int) -> float:
        """Return the factor of the learning rate at this update, counted from 1.

        It does not include the plateau decay and schedules in shares of the budget, which the harness applies.
        """
        if update <= self.warmup:
            return update / self.warmup
        updates_of_decay = update - self.warmup - self.hold
        if updates_of_decay <= 0 or self.decay in ("none", "plateau") or self.in_shares:
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
        accumulate: Parts into which each batch is divided; their gradients are accumulated for one update, so that a
            large batch fits in a small memory. null: one part, and more only if a GPU runs out of memory. Loss and
            gradient stay the same, except for the random numbers of dropout and for mixtures of experts.
    """

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: LearningRateSchedule = field(default_factory=LearningRateSchedule)
    label_smoothing: float = 0.0
    normalization: Literal["token", "sentence"] = "token"
    accumulate: int | None = None
