"""The recipes of an equal search: the best trial of each row, how many others are near it, and what lies at an edge.

They are in experiments/tuned/<preset>.yaml (bench/experiment/tuned.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from bench.experiment.tuned import COMPLETE, Recipe, Trial, Tuned, read_trials, recipes_path, trials_sha256
from bench.measures.selection import rank
from bench.sweep import equal_search
from bench.sweep.settings import Sweep
from bench.system.files import write_file

NEAR = 0.8
"""Share of the best score from which a trial is near it."""


def best_first(trials: Sequence[Trial]) -> list[Trial]:
    """The trials with a score, by descending validation BLEU; of equal ones, that with the lowest loss comes first."""
    scored = [trial for trial in trials if trial.state == COMPLETE]
    return sorted(
        scored,
        key=lambda trial: (rank(trial.validation_loss, trial.validation_bleu or 0.0), -trial.number),
        reverse=True,
    )


def choose(sweep: Sweep, name: str) -> Tuned:
    """The recipes of the rows that have finished all of their trials.

    Args:
        name: The name of the search, the stem of its file.
    """
    rows = {}
    every = read_trials(sweep.preset)
    for row in sweep.rows:
        trials = [trial for trial in every if trial.row == row]
        all_numbers = sorted(trial.number for trial in trials) == list(range(sweep.trials))
        if all_numbers and any(trial.state == COMPLETE for trial in trials):
            best = best_first(trials)[0]
            settings = equal_search.recipe_settings(sweep, best.settings)
            rows[row] = Recipe(best.number, best.validation_bleu or 0.0, best.commit, settings)
    _, experiment = equal_search.trial_experiments(sweep, sweep.rows[0])[0]
    budget = experiment.training.max_pairs or 0
    return Tuned(name, sweep.trials, budget, sweep.seed, trials_sha256(sweep.preset), rows)


def write_recipes(preset: str, tuned: Tuned) -> Path:
    """Writes the recipes of a preset and returns the file."""
    heading = (
        f"# Written by `bench tuned experiments/{tuned.search}.yaml` from {preset}-trials.csv. Do not edit:\n"
        "# `bench verify tuning` chooses again and compares.\n"
    )
    path = recipes_path(preset)
    write_file(path, heading + yaml.safe_dump(asdict(tuned), sort_keys=False))
    return path


def near_best(trials: Sequence[Trial]) -> int:
    """The number of trials with at least NEAR of the best validation BLEU, the best one included.

    It says how easily a row is tuned: if one point of many is good, other points of the space may be better still.
    """
    best, *_ = best_first(trials)
    return sum((trial.validation_bleu or 0.0) >= NEAR * (best.validation_bleu or 0.0) for trial in trials)


def at_edge(sweep: Sweep, trials: Sequence[Trial]) -> list[tuple[str, bool]]:
    """The settings of which the best trial has the lowest or highest value tried, and whether this is more than chance.

    With 16 points, a setting that hardly matters has its best value at a given end in one of 16 rows. So an edge counts
    only if the three best trials of the row all lie in the quarter of the tried values at that end, which happens by
    chance in one of 560 rows (with 20 points, in one of 570). A quarter of fewer than 12 points is less than three
    values, so the outermost three are taken; with 6 points, that happens by chance in one of 60 rows, with 8 in one of
    168. With fewer than three scores no edge counts. A lower limit of 0 is no edge, because it cannot move.
    """
    found = []
    leading = best_first(trials)[:3]
    for key, span in equal_search.space(sweep).items():
        values = sorted(trial.settings[key] for trial in trials if key in trial.settings)
        if not values:
            continue
        value = leading[0].settings[key]
        low = value == values[0] and span.low != 0
        if not (low or value == values[-1]):
            continue
        number = max(3, len(values) // 4)
        outer = values[:number] if low else values[-number:]
        presses = len(leading) == 3 and all(outer[0] <= trial.settings[key] <= outer[-1] for trial in leading)
        found.append((f"{key} {value:g} is the {'lowest' if low else 'highest'} of its {len(values)} values", presses))
    return found
