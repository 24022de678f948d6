"""Numbers of metrics as digits, scaled and rounded as bench/measures/metric_registry.py says.

The unit itself is printed in the heading of a table or axis: see `Catalogue.unit`.
"""

from __future__ import annotations

import math

from bench.measures import metric_registry
from bench.system import formatting


def value(name: str, number: float | None) -> str:
    """A number in the unit of its metric's heading, without the unit; a dash where nothing was measured.

    Args:
        name: Stored name of the metric, such as bleu or test/bleu/length/1-5.
        number: The number in the stored unit.
    """
    if number is None or not math.isfinite(number):
        return formatting.MISSING
    metric = metric_registry.metric(name)
    scaled = number / metric.scale
    match metric.format:
        case "power of ten":
            return formatting.power_of_ten(scaled)
        case "duration":
            return formatting.duration(scaled)
        case "count":
            return formatting.count(scaled)
        case "0.1":
            return formatting.fixed(scaled, 1)
        case "0.001":
            return formatting.fixed(scaled, 3)
        case "significant":
            return formatting.significant(scaled)


def interval(name: str, low: float | None, high: float | None) -> str:
    """Both ends of an interval in the unit of the metric's heading, as 1.0–2.0; empty if there is no interval."""
    if low is None or high is None:
        return ""
    between = " … " if low < 0 else "–"  # a minus sign beside a dash is hard to read
    return f"{value(name, low)}{between}{value(name, high)}"


def difference(name: str, number: float) -> str:
    """A difference in the unit of the metric's heading, always with its sign: +1.5, −1.5."""
    text = value(name, number)
    return text if text.startswith("−") or text == formatting.MISSING else f"+{text}"
