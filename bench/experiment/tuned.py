"""The recipes that equal searches chose for a preset, and the trials that they chose from. Needs no Optuna.

experiments/tuned/<preset>-trials.csv holds every finished trial of a search, so that it continues on another machine.
experiments/tuned/<preset>.yaml is written from it by `bench tuned`; `merge_settings` (loading.py) reads it as a layer
between the preset and the flags. Nobody edits the two files: `bench verify tuning` recomputes them.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from bench.experiment.spec import Experiment, flatten
from bench.experiment.yaml_layers import EXPERIMENTS, read_yaml
from bench.system.files import sha256, write_file

TUNED = EXPERIMENTS / "tuned"

COMPLETE, DIVERGED = "COMPLETE", "DIVERGED"


@dataclass(frozen=True)
class Recipe:
    """The settings of the best trial of a row.

    Attributes:
        trial: Its number, counted from 0; trial 0 is the common default.
        validation_bleu: Its score, in percent.
        commit: The commit that trained it.
        settings: A layer of settings: those that all rows share, and the values that were searched.
    """

    trial: int
    validation_bleu: float
    commit: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Tuned:
    """The recipes of a preset.

    Attributes:
        search: Name of the search: the stem of its file in experiments/.
        trials: Trials of each row.
        budget: Sentence pairs of each trial.
        seed: Seed of every trial.
        trials_sha256: Hash of the file of trials from which the recipes were chosen.
        rows: Row -> its recipe.
    """

    search: str
    trials: int
    budget: int
    seed: int
    trials_sha256: str
    rows: dict[str, Recipe]

    @property
    def pairs_granted(self) -> float:
        """The tuning budget of each row, in sentence pairs."""
        return float(self.trials * self.budget)


def recipes_path(preset: str) -> Path:
    return TUNED / f"{preset}.yaml"


def trials_path(preset: str) -> Path:
    return TUNED / f"{preset}-trials.csv"


def read_tuned(preset: str) -> Tuned | None:
    """The recipes of a preset; None if no search has written any.

    Raises:
        ValueError: the file has other keys than `bench tuned` writes.
    """
    path = recipes_path(preset)
    if not path.is_file():
        return None
    content = read_yaml(path)
    try:
        recipes = {row: Recipe(**recipe) for row, recipe in content.pop("rows").items()}
        return Tuned(**content, rows=recipes)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a file that bench tuned has written ({error}); write it again with bench tuned "
            f"experiments/tune-{preset}.yaml"
        ) from error


def recipe_of(experiment: Experiment) -> tuple[Tuned, Recipe] | None:
    """The recipe that a row's settings come from; None if there is none, or if a setting has another value."""
    tuned = read_tuned(experiment.preset)
    recipe = tuned.rows.get(experiment.row) if tuned else None
    if tuned is None or recipe is None:
        return None
    settings = flatten(experiment.settings)
    # The optimizer's own settings are compared as they are: {betas: [...]} has no dataclass.
    same = all(settings.get(key) == value for key, value in flatten(recipe.settings).items())
    return (tuned, recipe) if same else None


# --- trials -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """A finished trial of an equal search.

    Attributes:
        number: Counted from 0; the trials of all rows with one number have the same settings.
        state: COMPLETE, or DIVERGED if the loss became infinite or not a number.
        validation_bleu: In percent; None if it diverged.
        validation_loss: Decides between trials of equal BLEU; None if it diverged.
        pairs: Sentence pairs seen.
        commit: The commit that trained it.
        settings: Key -> value of the settings that were searched.
    """

    row: str
    number: int
    state: str
    validation_bleu: float | None
    validation_loss: float | None
    pairs: int
    seed: int
    job_hash: str
    commit: str
    settings: Mapping[str, Any] = field(default_factory=dict)


COLUMNS = tuple(part.name for part in dataclasses.fields(Trial) if part.name != "settings")


def read_trials(preset: str) -> list[Trial]:
    """The finished trials of a preset's search; empty if there is no file.

    Raises:
        ValueError: a line is not one that `write_trials` writes.
    """
    path = trials_path(preset)
    if not path.is_file():
        return []
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for record in reader:
            try:
                found.append(_trial(record))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}, line {reader.line_num}: not a trial ({error}); expected the columns {', '.join(COLUMNS)} "
                    "and those of the settings; restore the file from git"
                ) from error
    return found


def pairs_spent(preset: str, row: str) -> float:
    """The sentence pairs that the trials of a row saw: fewer than were granted if one diverged."""
    return float(sum(trial.pairs for trial in read_trials(preset) if trial.row == row))


def _trial(record: Mapping[str, str]) -> Trial:
    """The trial of one line of the file."""
    settings = {key: _number(text) for key, text in record.items() if "." in key and text}
    if record["state"] not in (COMPLETE, DIVERGED):
        raise ValueError(f"state is {record['state']!r}, neither {COMPLETE} nor {DIVERGED}")
    for key in ("validation_bleu", "validation_loss"):
        if not math.isfinite(_score(record[key]) or 0.0):
            raise ValueError(f"{key} is {record[key]}, not finite")
    return Trial(
        row=record["row"],
        number=int(record["number"]),
        state=record["state"],
        validation_bleu=_score(record["validation_bleu"]),
        validation_loss=_score(record["validation_loss"]),
        pairs=int(record["pairs"]),
        seed=int(record["seed"]),
        job_hash=record["job_hash"],
        commit=record["commit"],
        settings=settings,
    )


def _score(text: str) -> float | None:
    return float(text) if text else None


def _number(text: str) -> float | int:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def write_trials(preset: str, trials: Iterable[Trial]) -> None:
    """Adds trials to a preset's file, sorted by row and number. A trial that is in it already stays as it was."""
    path = trials_path(preset)
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):  # two commands may search for different rows
        every = {(trial.row, trial.number): trial for trial in [*trials, *read_trials(preset)]}
        ordered = [every[key] for key in sorted(every)]
        keys = list(dict.fromkeys(key for trial in ordered for key in trial.settings))
        text = io.StringIO()
        writer = csv.DictWriter(text, [*COLUMNS, *keys], lineterminator="\n")
        writer.writeheader()
        for trial in ordered:
            writer.writerow({name: getattr(trial, name) for name in COLUMNS} | dict(trial.settings))
        write_file(path, text.getvalue())


def trials_sha256(preset: str) -> str:
    """The SHA-256 of a preset's file of trials; empty if there is none."""
    path = trials_path(preset)
    return sha256(path) if path.is_file() else ""
