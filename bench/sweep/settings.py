"""How settings are searched for: the file of a sweep, with the classes of Optuna that it names."""

from __future__ import annotations

import inspect
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning

from bench.experiment.spec import read_typed
from bench.experiment.yaml_layers import choose

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
"""What may be a goal or a limit, and which way it is better."""


@dataclass
class Named:
    """A class of Optuna and its arguments.

    Attributes:
        name: The class in optuna.samplers or optuna.pruners.
        settings: Its arguments.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def make(self, module: Any, kind: str, **more: Any) -> Any:
        """Raises ValueError for an unknown class and for arguments that it does not take."""
        known = [name for name in module.__all__ if isinstance(getattr(module, name), type)]
        choose(kind, self.name, [name for name in known if not name.startswith("Base")], Path(f"{kind}: name"))
        made = getattr(module, self.name)
        takes = inspect.signature(made).parameters
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return made(**{key: value for key, value in more.items() if key in takes} | self.settings)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{kind}: {self.name}: {error}") from error


@dataclass
class Sweep:
    """How settings are searched for.

    Attributes:
        trials: Jobs of each row; with the training budget of the preset, the tuning budget.
        sampler: What draws settings.
        pruner: What stops a job early, by validation BLEU; steps are validations. With other goals nothing is pruned.
        goals: Metrics to be made better: one, or several for a Pareto front.
        limits: Metric -> the most it may be (the least, where more is better).
        seed: Seed of every job and of the sampler. A table's seeds must be others.
    """

    trials: int = 30
    sampler: Named = field(default_factory=lambda: Named("TPESampler"))
    pruner: Named = field(default_factory=lambda: Named("MedianPruner"))
    goals: list[str] = field(default_factory=lambda: ["validation_bleu"])
    limits: dict[str, float] = field(default_factory=dict)
    seed: int = 1001

    @classmethod
    def read(cls, path: Path) -> Sweep:
        """Raises ValueError, one line, for an unknown key, class or metric, or a wrong type."""
        sweep = read_typed(path, cls)
        for key, names in (("goals", sweep.goals), ("limits", list(sweep.limits))):
            for name in names:
                choose(f"{key}: metric", name, list(GOALS), path)
        if not sweep.goals:
            raise ValueError(f"{path}: goals: names no metric; there are: {', '.join(GOALS)}")
        if sweep.trials < 1:
            raise ValueError(f"{path}: trials: {sweep.trials} is too few; at least 1")
        sweep.pruner.make(optuna.pruners, "pruner")
        sweep.draw()
        return sweep

    def draw(self) -> None:
        """Draws from a space that is thrown away. Raises ValueError for a sampler that cannot, or lacks a package."""
        sampler = self.sampler.make(optuna.samplers, "sampler")
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

    def excess(self, metric: str, value: float | None) -> float:
        """How far a value is beyond its limit; at most 0 for one within it. What was not measured is within none."""
        if value is None:
            return math.inf
        beyond = value - self.limits[metric]
        return beyond if GOALS[metric] == "minimize" else -beyond
