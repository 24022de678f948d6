"""How far a run is: what a training tells after every update, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """How far a run is: part of the budget spent, counts, seconds of training, last loss, best validation BLEU.

    `validations` are all so far, as (pairs seen, BLEU); `reward` is the mean GLEU of what a model draws that learns
    from it, None before that phase.
    """

    fraction: float
    updates: int
    pairs: int
    target_tokens: int
    seconds: float
    loss: float | None
    best: float | None
    validations: tuple[tuple[int, float], ...] = ()
    reward: float | None = None


StatusCallback = Callable[[Status], bool | None]
"""Gets the state after every update; True asks to stop at the validation of this update."""
