"""A figure of speed: samples of the same work, their median, their spread, and the noise while they were taken."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bench.measures.latency import OTHERS_LIMIT, SPREAD_LIMIT


@dataclass(frozen=True)
class Figure:
    """A named figure.

    Attributes:
        name: With its unit at the end, such as target_tokens_per_s or greedy_ms.
        samples: Values in the order in which they were measured.
        same_work: True if all samples are of equal work. Otherwise their spread is not only noise: batches of equally
            many tokens have 130 or 400 pairs.
    """

    name: str
    samples: list[float]
    same_work: bool = True

    @property
    def is_time(self) -> bool:
        """True for a time, of which less is better; False for a rate."""
        return not self.name.endswith("_per_s")

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """(third quartile - first quartile) / median of the samples."""
        first, third = np.quantile(self.samples, (0.25, 0.75))
        return float(third - first) / self.median


@dataclass(frozen=True)
class Measurement:
    """The figures of one row, from one measurement without a break.

    Attributes:
        other_share: Share of all cores that other processes used, 0 to 1; None if the system does not tell it.
        facts: What else was measured or is needed to read the figures, such as the ceiling of the machine.
    """

    figures: list[Figure]
    other_share: float | None
    facts: dict[str, float | str | None] = field(default_factory=dict)

    @property
    def quiet(self) -> bool:
        """True if other processes and the largest spread are within the limits of bench/measures/latency.py."""
        return self.other_share is not None and self.other_share <= OTHERS_LIMIT and self._spread <= SPREAD_LIMIT

    @property
    def _spread(self) -> float:
        """The largest spread of a figure whose samples are of equal work."""
        return max(figure.spread for figure in self.figures if figure.same_work)

    @property
    def noise(self) -> str:
        others = "unknown" if self.other_share is None else f"{self.other_share:.0%}"
        return f"{'quiet' if self.quiet else 'NOISY'}: others {others}, spread {self._spread:.0%}"


Measure = Callable[[float], Measurement]
"""Measures once; the argument is the time in seconds that it may take, beside its warm-up."""


def joined(measurements: Sequence[Measurement]) -> Measurement:
    """Several measurements of the same figures as one: all samples, and the largest share of other processes."""
    shares = [one.other_share for one in measurements]
    known = [share for share in shares if share is not None]
    figures = [
        replace(first, samples=[sample for one in measurements for sample in one.figures[number].samples])
        for number, first in enumerate(measurements[0].figures)
    ]
    return Measurement(figures, max(known) if len(known) == len(shares) else None, measurements[-1].facts)
