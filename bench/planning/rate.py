"""How fast a job runs on a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["run", "calibration", "gpu"]


@dataclass(frozen=True)
class Rate:
    """How fast a job runs, and where that is known from.

    Attributes:
        seconds_per_pair: Seconds of updates for a sentence pair; 0 for an ensemble, which is not trained.
        other_seconds: Seconds of the job beside its updates: validations, evaluation, latency measurement, tracking.
        joules_per_pair: Joules of the updates; None if they cannot be measured.
        memory_bytes: Peak memory of an update; None if it was not measured.
        source: A finished run, a calibration, or the peak of a named GPU.
        detail: Which run, how many updates, or which assumption.
        spread: (highest - lowest) / median of the measured speed; None if it was measured once or not at all.
    """

    seconds_per_pair: float
    other_seconds: float
    joules_per_pair: float | None
    memory_bytes: float | None
    source: Source
    detail: str
    spread: float | None = None
