"""The status that training reports after every update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """The progress of a run after an update.

    Attributes:
        fraction: Fraction of the budget that has been used.
        updates: Updates of the weights so far.
        pairs: Sentence pairs seen so far.
        target_tokens: Target tokens seen so far.
        seconds: Seconds of training, validations not included.
        loss: Last point of the curve of the training loss, in nats per token; None before the first point.
        best: Validation score of the best validation so far; None before the first validation.
        validations: All validations so far, as (pairs seen, validation score).
        reward: Mean GLEU of the samples in the reward phase; None before that phase.
        score: The validation score that selects the weights: BLEU or chrF2, in percent, or loss, in nats per token.
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
    score: str = "BLEU"

    @property
    def best_text(self) -> str:
        """The best validation score with its name, such as 12.3 BLEU; empty before the first validation."""
        if self.best is None:
            return ""
        return f"{self.best:.{3 if self.score == 'loss' else 1}f} {self.score}"


StatusCallback = Callable[[Status], bool | None]
"""Called with the status after every update. True stops training at the validation of this update."""
