"""The settings of a sweep, as in its file, with the Optuna classes that they name."""

from __future__ import annotations

import inspect
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning

from bench.experiment.loading import read_typed
from bench.experiment.yaml_layers import check_known

Direction = Literal["minimize", "maximize"]

GOALS: dict[str, Direction] = {
    "validation_bleu": "maximize",
    "validation_loss": "minimize",
    "train_flops": "minimize",
    "executed_flops": "minimize",
    "params": "minimize",
    "latency_p50_ms": "minimize",
    "latency_p95_ms": "minimize",
    "sentences_per_s": "maximize",
    "peak_memory_bytes": "minimize",
}
"""Metrics that may be goals or limits -> the direction in which they improve."""


@dataclass
class OptunaClass:
    """A sampler or pruner of Optuna.

    Attributes:
        name: Name of the class in optuna.samplers or optuna.pruners.
        settings: Arguments of the class.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def create(self, module: Any, kind: str, **defaults: Any) -> Any:
        """An object of the class. `defaults` are passed if the class takes them and `settings` does not set them.

        Raises:
            ValueError: the class does not exist, or does not take the arguments.
        """
        names = [name for name in module.__all__ if isinstance(getattr(module, name), type)]
        check_known(kind, self.name, [name for name in names if not name.startswith("Base")], Path(f"{kind}: name"))
        optuna_class = getattr(module, self.name)
        parameters = inspect.signature(optuna_class).parameters
        arguments = {key: value for key, value in defaults.items() if key in parameters} | self.settings
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return optuna_class(**arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{kind}: {self.name}: {error}") from error


@dataclass
class Sweep:
    """The settings of a sweep.

    Attributes:
        trials: Jobs of each row. Multiplied by the training budget of the preset, they are the tuning budget.
        sampler: Draws settings.
        pruner: Stops a job early, by its validation BLEU; its steps are validations. Works only if validation BLEU is
            the one goal; otherwise nothing is pruned.
        goals: Metrics to optimize: one, or several for a Pareto front.
        limits: Metric -> its maximum, or its minimum if higher values are better.
        seed: Seed of every job and of the sampler. A suite that uses the result must have other seeds.
    """

    trials: int = 30
    sampler: OptunaClass = field(default_factory=lambda: OptunaClass("TPESampler"))
    pruner: OptunaClass = field(default_factory=lambda: OptunaClass("MedianPruner"))
    goals: list[str] = field(default_factory=lambda: ["validation_bleu"])
    limits: dict[str, float] = field(default_factory=dict)
    seed: int = 1001

    @classmethod
    def read(cls, path: Path) -> Sweep:
        """Reads the file of a sweep. Raises ValueError for an unknown key, class or metric, or a wrong type."""
        sweep = read_typed(path, cls)
        for key, names in (("goals", sweep.goals), ("limits", list(sweep.limits))):
            for name in names:
                check_known(f"{key}: metric", name, list(GOALS), path)
        if not sweep.goals:
            raise ValueError(f"{path}: goals: the list is empty; name at least one of: {', '.join(GOALS)}")
        if sweep.trials < 1:
            raise ValueError(f"{path}: trials: {sweep.trials} is too few; at least 1")
        sweep.pruner.create(optuna.pruners, "pruner")
        sweep.check_sampler()
        return sweep

    def check_sampler(self) -> None:
        """Raises ValueError if the sampler cannot draw for these goals, or needs a package that is not installed."""
        sampler = self.sampler.create(optuna.samplers, "sampler")
        directions: list[Direction] = [GOALS[goal] for goal in self.goals]
        try:
            study = optuna.create_study(sampler=sampler, directions=directions)
            for _ in range(3):
                trial = study.ask()
                study.tell(trial, [trial.suggest_float(goal, 0.0, 1.0) for goal in self.goals])
        except (ImportError, ValueError) as error:
            raise ValueError(f"sampler: {self.sampler.name}: {error}") from error

    @property
    def prunes(self) -> bool:
        return self.goals == ["validation_bleu"]

    def violation(self, metric: str, value: float | None) -> float:
        """How far a value is beyond its limit; at most 0 if it is within. Infinite if the value was not measured."""
        if value is None:
            return math.inf
        beyond = value - self.limits[metric]
        return beyond if GOALS[metric] == "minimize" else -beyond
