"""The attempts at one job of a hyperparameter search, and the state of the job that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from bench.runs.job import NOT_A_NUMBER
from bench.runs.worker_pool import MAX_ATTEMPTS

LOST_WORKER = "lost worker"
"""How the reason of an attempt begins whose worker was lost; several of them fail its job."""

UNFINISHED = "the command has ended"
"""Reason of every attempt until it has ended, because a killed command cannot write it afterwards."""


@dataclass
class JobAttempts:
    """The attempts at one job that are in the storage.

    Attributes:
        trial_number: Number of the first attempt, by which the job is named.
        failures_since: Attempts that failed before this time do not end the job, unless the loss was not a number,
            which would happen again; None if all do.
    """

    trial_number: int
    attempts: list[FrozenTrial]
    failures_since: datetime | None = None

    @property
    def state(self) -> str | None:
        """COMPLETE, PRUNED or FAILED; None if the job has not ended."""
        for attempt in self.attempts:
            if attempt.state in (TrialState.COMPLETE, TrialState.PRUNED):
                return attempt.state.name
        failed = any(attempt.user_attrs.get("failed") for attempt in self._counting())
        return "FAILED" if failed or self.lost_workers >= MAX_ATTEMPTS else None

    @property
    def lost_workers(self) -> int:
        failed = [attempt for attempt in self._counting() if attempt.state == TrialState.FAIL]
        return sum(attempt.user_attrs["reason"].startswith(LOST_WORKER) for attempt in failed)

    def _counting(self) -> list[FrozenTrial]:
        """The attempts whose failure may end the job."""
        return [
            attempt
            for attempt in self.attempts
            if self.failures_since is None
            or (attempt.datetime_start or self.failures_since) >= self.failures_since
            or attempt.user_attrs["reason"].startswith(f"failed: {NOT_A_NUMBER}")
        ]

    @property
    def in_progress(self) -> bool:
        return any(attempt.state in (TrialState.RUNNING, TrialState.WAITING) for attempt in self.attempts)
