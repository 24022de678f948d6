"""A measured number with what is needed to defend it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A measured number together with what is needed to defend it.

    Attributes:
        metric: Name in docs/metrics.md, such as bleu or latency_p50_ms.
        value: The number; None where it could not be measured (the recipe says why), never 0 instead.
        unit: Of value, low and high.
        low: Lower end of the 95 % interval, None where there is none.
        high: Upper end of the 95 % interval.
        recipe: How it was measured: signature, samples, hardware, threads, precision, or why there is no value.
    """

    metric: str
    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None
    provenance: str = ""
