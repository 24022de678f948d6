"""A measured number with its unit, interval and provenance."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A measured number with everything that is needed to defend it. Every run stores its own in measures.json.

    Attributes:
        metric: Name in docs/metrics.md, such as bleu or latency_p50_ms.
        value: The number; None (never 0) where it could not be measured, and then `provenance` says why.
        unit: Of value, low and high.
        low: Lower end of the 95 % interval, None where there is none.
        high: Upper end of the 95 % interval.
        provenance: How it was measured: signature, samples, hardware, threads, precision, or why there is no value.
        count: Number of contrasts or sentences that the value was computed from, where the metric is of a group.
        chance: Accuracy in percent that guessing reaches on average, for accuracies on contrasts.
        noisy: True if the timing was disturbed by more than the limits of bench/measures/latency.py.
    """

    metric: str
    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None
    provenance: str = ""
    count: int | None = None
    chance: float | None = None
    noisy: bool = False
