"""The settings of a sweep, as in its file, with the Optuna classes that they name."""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning

from bench.experiment.loading import read_typed
from bench.experiment.yaml_layers import check_known
from bench.measures.selection import Selection

logging.getLogger("optuna").setLevel(logging.ERROR)

Direction = Literal["minimize", "maximize"]

VALIDATION_SCORE = "validation_score"
"""The goal that stands for the score that selects the weights: validation_bleu, validation_chrf or validation_loss."""

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

DIRECTIONS: dict[str, Direction] = {**GOALS, "validation_chrf": "maximize"}
"""The same for every goal that a study may have: a corpus with short targets is measured by chrF2."""


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
class Extension:
    """Trials that are added to an equal search because the best of a row lay at the edge of a range.

    Attributes:
        trials: Number of added trials, the same for every row.
        space: The ranges of these trials that differ: beyond the edge, not over the part that was searched already.
    """

    trials: int
    space: dict[str, Any]


@dataclass
class Sweep:
    """The settings of a sweep.

    Attributes:
        trials: Jobs of each row, with those of extensions. Multiplied by the training budget of the preset, they are
            the tuning budget.
        sampler: Draws settings.
        pruner: Stops a job early, by its validation score; its steps are validations. Works only if the validation
            score is the one goal; otherwise nothing is pruned.
        goals: Metrics to optimize: one, or several for a Pareto front. validation_score is the score that selects the
            weights of a job: BLEU, or for short targets chrF2.
        limits: Metric -> its maximum, or its minimum if higher values are better.
        seed: Seed of every job and of the sampler. A suite that uses the result must have other seeds.
        rows: Row ids of an equal search (equal_search.py): all rows try the same points with the same budget, and
            nothing is pruned. Empty for a search of one row or more with a space of its own.
        preset: Preset of an equal search.
        trial_pairs: Sentence pairs of each trial of an equal search; null for the budget of the preset.
        settings: Settings that all rows of an equal search share, a part of every recipe (groups such as training).
        space: The space of an equal search, as under `search:` in an architecture's file. A row does without a setting
            of `model` that its architecture does not have.
        first: Values of the first trial, the common default: setting -> value.
        around: Another preset whose recipes narrow the space, and whose median is the first trial; empty for none.
        extensions: The last trials of an equal search, in ranges beyond an edge of the space. The trials before them
            stay as they are.
    """

    trials: int = 30
    sampler: OptunaClass = field(default_factory=lambda: OptunaClass("TPESampler"))
    pruner: OptunaClass = field(default_factory=lambda: OptunaClass("MedianPruner"))
    goals: list[str] = field(default_factory=lambda: [VALIDATION_SCORE])
    limits: dict[str, float] = field(default_factory=dict)
    seed: int = 1001
    rows: list[str] = field(default_factory=list)
    preset: str = ""
    trial_pairs: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)
    around: str = ""
    extensions: list[Extension] = field(default_factory=list)

    @property
    def extended_trials(self) -> int:
        """Trials of each row that are in an extension."""
        return sum(extension.trials for extension in self.extensions)

    @classmethod
    def read(cls, path: Path) -> Sweep:
        """Reads the file of a sweep. Raises ValueError for an unknown key, class or metric, or a wrong type."""
        sweep = read_typed(path, cls)
        for key, names, known in (
            ("goals", sweep.goals, [VALIDATION_SCORE, *GOALS]),
            ("limits", list(sweep.limits), list(GOALS)),
        ):
            for name in names:
                check_known(f"{key}: metric", name, known, path)
        if not sweep.goals:
            choices = ", ".join([VALIDATION_SCORE, *GOALS])
            raise ValueError(f"{path}: goals: the list is empty; name at least one of: {choices}")
        for name, limit in sweep.limits.items():
            if not math.isfinite(limit):
                raise ValueError(f"{path}: limits: {name}: {limit} is no limit; set a number, or remove it")
        if sweep.trials < 1:
            raise ValueError(f"{path}: trials: {sweep.trials} is too few; at least 1")
        sweep._check_equal_search(path)
        sweep.pruner.create(optuna.pruners, "pruner")
        sweep.check_sampler()
        return sweep

    def _check_equal_search(self, path: Path) -> None:
        """Raises ValueError if the file has a part of an equal search but not all of it."""
        parts = {"rows": self.rows, "preset": self.preset, "space": self.space}
        if missing := [key for key, value in parts.items() if any(parts.values()) and not value]:
            raise ValueError(f"{path}: {missing[0]}: missing; an equal search needs rows, preset and space; add it")
        if not self.rows:
            only = {key: getattr(self, key) for key in ("trial_pairs", "settings", "first", "around", "extensions")}
            if given := [key for key, value in only.items() if value]:
                raise ValueError(
                    f"{path}: {given[0]}: has an effect in an equal search only, with rows, preset and space; remove "
                    "it, or add these"
                )
        if self.trial_pairs is not None and self.trial_pairs < 1:
            raise ValueError(
                f"{path}: trial_pairs: {self.trial_pairs} is too few; at least 1, or null for the preset's"
            )
        for key in self.first:
            check_known("setting of first", key, list(self.space), path)
        if self.rows and not self.around and (unset := [key for key in self.space if key not in self.first]):
            raise ValueError(
                f"{path}: first: no value of {unset[0]}; the first trial needs one of each setting; add it"
            )
        if any(extension.trials < 1 for extension in self.extensions) or self.extended_trials >= self.trials:
            raise ValueError(
                f"{path}: extensions: {self.extended_trials} of the {self.trials} trials are in extensions; each has "
                "at least one, and so has the search before them; trials: counts all of them"
            )
        for extension in self.extensions:
            for key in extension.space:
                check_known("setting of extensions", key, list(self.space), path)
        if self.rows and (self.goals != [VALIDATION_SCORE] or self.limits):
            raise ValueError(
                f"{path}: goals: an equal search has the goal {VALIDATION_SCORE} and no limits; remove the others"
            )

    def check_sampler(self) -> None:
        """Raises ValueError if the sampler cannot draw for these goals, or needs a package that is not installed."""
        sampler = self.sampler.create(optuna.samplers, "sampler")
        directions: list[Direction] = [DIRECTIONS.get(goal, "maximize") for goal in self.goals]
        try:
            study = optuna.create_study(sampler=sampler, directions=directions)
            for _ in range(3):
                trial = study.ask()
                study.tell(trial, [trial.suggest_float(goal, 0.0, 1.0) for goal in self.goals])
        except (ImportError, ValueError) as error:
            raise ValueError(f"sampler: {self.sampler.name}: {error}") from error

    def for_selection(self, selection: Selection) -> Sweep:
        """The sweep with the metric of this selection in place of the goal validation_score."""
        goals = [selection.metric if goal == VALIDATION_SCORE else goal for goal in self.goals]
        return replace(self, goals=list(dict.fromkeys(goals)))

    def violation(self, metric: str, value: float | None) -> float:
        """How far a value is beyond its limit; at most 0 if it is within. Infinite if the value was not measured."""
        if value is None:
            return math.inf
        beyond = value - self.limits[metric]
        return beyond if GOALS[metric] == "minimize" else -beyond
