"""The best of the finished trials of a hyperparameter search: one, or the Pareto front of several goals."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from bench.measures.selection import rank
from bench.sweep.settings import DIRECTIONS, Sweep

LOSS = "validation_loss"
"""The metric that decides between trials with equal goals."""


def pareto_front(sweep: Sweep, complete: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best trial within the limits; with several goals the Pareto front, best first by the first goal.

    Of trials with equal goals, that with the lowest validation loss is the best.
    """
    within = [
        trial for trial in complete if all(sweep.violation(n, trial.user_attrs["values"][n]) <= 0 for n in sweep.limits)
    ]
    signs = [1 if DIRECTIONS[goal] == "maximize" else -1 for goal in sweep.goals]
    points = [tuple(sign * value for sign, value in zip(signs, trial.values, strict=True)) for trial in within]
    best = [
        ((rank(trial.user_attrs["values"].get(LOSS), *point), -trial.number), trial)
        for point, trial in zip(points, within, strict=True)
        if not any(other != point and all(o >= p for o, p in zip(other, point, strict=True)) for other in points)
    ]
    ranked = [trial for _, trial in sorted(best, key=lambda entry: entry[0], reverse=True)]
    return ranked if len(signs) > 1 else ranked[:1]
