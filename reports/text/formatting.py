"""How every number of a report is written: the only place where one becomes text.

A number is made into one string, the same in every language, which the page, Markdown and the terminal print as it is
and LaTeX after escaping (escaping.py turns the typographic characters used here into commands). Units and names of
metrics are words: language.py has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

SPACE = "\u00a0"
MISSING = "—"
"""What stands where nothing was measured; the reasons stand in a list of their own."""

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Metric:
    """How a metric is named and written.

    Attributes:
        scale: Units of the tracked number in one printed unit.
        form: Digits after the point, three significant digits, a power of ten, a clock, a whole number.
        better: Whether more or less of it is wanted.
        score: Whether it belongs to a test set.
    """

    scale: float = 1.0
    form: Literal["0.1", "0.001", "significant", "power", "clock", "whole"] = "significant"
    better: Literal["more", "less", ""] = ""
    score: bool = False


METRICS = {
    "bleu": Metric(form="0.1", better="more", score=True),
    "chrf": Metric(form="0.1", better="more", score=True),
    "ter": Metric(form="0.1", better="less", score=True),
    "params": Metric(1e6, better="less"),
    "train_flops": Metric(form="power", better="less"),
    "executed_flops": Metric(form="power", better="less"),
    "clock_flops": Metric(form="power", better="less"),
    "energy_j": Metric(better="less"),
    "latency_p50_ms": Metric(better="less"),
    "latency_p95_ms": Metric(better="less"),
    "sentences_per_s": Metric(better="more"),
    "peak_memory_bytes": Metric(2**20, better="less"),
    "wall_s": Metric(form="clock", better="less"),
    "bleu_shuffled_references": Metric(form="0.1", score=True),
    "truncated": Metric(form="whole", score=True),
    "params_core": Metric(1e6, better="less"),
    "validation_loss": Metric(form="0.001", better="less"),
    "validation_loss_shuffled_sources": Metric(form="0.001"),
    "validation_bleu": Metric(form="0.1", better="more"),
    "aer": Metric(form="0.1", better="less"),
    "aer_diagonal": Metric(form="0.1", better="less"),
    "contrastive": Metric(form="0.1", better="more"),
    "target_only": Metric(form="0.1"),
    "pairs": Metric(form="whole"),
    "updates": Metric(form="whole"),
}
"""In the order of the tidy CSV; a metric that is not named here follows under its own name."""

TABLE = tuple(METRICS)[:13]
"""Metrics that have a line in the CSV for every row, empty where nothing was measured."""


def metric(name: str) -> Metric:
    """Of a whole name; contrastive/pronoun/3 and test/bleu/length/1-5 are written like contrastive and bleu."""
    if name in METRICS:
        return METRICS[name]
    parts = name.split("/")
    return next((METRICS[part] for part in parts if part in METRICS), Metric())


def value(name: str, number: float | None) -> str:
    """A number in the unit of its metric's heading."""
    known = metric(name)
    if number is None or not math.isfinite(number):
        return MISSING
    scaled = number / known.scale
    if known.form == "power":
        return power(scaled)
    if known.form == "clock":
        return clock(scaled)
    if known.form == "whole":
        return whole(scaled)
    return significant(scaled) if known.form == "significant" else fixed(scaled, 1 if known.form == "0.1" else 3)


def interval(name: str, low: float | None, high: float | None) -> str:
    """Both ends of an interval, in the unit of the metric's heading."""
    if low is None or high is None:
        return ""
    between = " … " if low < 0 else "–"  # a minus sign beside a dash is hard to read
    return f"{value(name, low)}{between}{value(name, high)}"


def fixed(number: float, digits: int) -> str:
    """A number with so many digits after the point; a true minus sign."""
    return f"{number:,.{digits}f}".replace("-", "−")


def significant(number: float) -> str:
    """Three significant digits, without an exponent: 0.0123, 1.23, 123, 12,300."""
    if number == 0:
        return "0"
    before = math.floor(math.log10(abs(number))) + 1
    rounded = round(number, 3 - before)
    return fixed(rounded, max(0, 3 - (math.floor(math.log10(abs(rounded))) + 1)))


def power(number: float, digits: int = 2) -> str:
    """A power of ten, with so many digits after the point: 1.23 × 10¹⁵."""
    if number == 0:
        return "0"
    mantissa, exponent = f"{number:.{digits}e}".split("e")
    return f"{mantissa}{SPACE}×{SPACE}10{str(int(exponent)).translate(SUPERSCRIPTS)}".replace("-", "−")


def tick(number: float) -> str:
    """For an axis, as short as can be: 10¹², 2.5 × 10¹², 20, 0.5."""
    if 0.001 <= number < 100_000:
        return f"{number:,.6g}"
    mantissa, exponent = f"{number:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    ten = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return ten if mantissa == "1" else f"{mantissa}{SPACE}×{SPACE}{ten}"


def brief(number: float) -> str:
    """A place on an axis: 1,234, 12.5 or 1.23 × 10¹²."""
    return power(number) if number >= 1e6 else f"{number:,.0f}" if number >= 100 else significant(number)


def score(number: float) -> str:
    """A published score, with the digits that were printed, one at least: 23.75, 26.3."""
    return f"{number:.2f}".removesuffix("0")


def clock(seconds: float) -> str:
    """7.3 s, 4:05 or 1:02:03."""
    if seconds < 59.95:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ratio(number: float) -> str:
    """How many times as much: × 1.25."""
    return f"×{SPACE}{significant(number)}"


def percent(share: float) -> str:
    """A share as 98.7 %."""
    return f"{fixed(100 * share, 1)}{SPACE}%"


def difference(name: str, number: float) -> str:
    """A difference, its sign always printed."""
    text = value(name, number)
    return text if text.startswith("−") else f"+{text}"


def probability(p: float) -> str:
    """As p = 0.012, or p < 0.001."""
    return f"p{SPACE}{small(p)}" if p < 0.001 else f"p{SPACE}={SPACE}{small(p)}"


def at_most(p: float) -> str:
    """What several probabilities stay at or below, rounded up: p ≤ 0.013, or p < 0.001."""
    return f"p{SPACE}{small(p)}" if p < 0.001 else f"p{SPACE}≤{SPACE}{small(math.ceil(round(1000 * p, 6)) / 1000)}"


def small(p: float) -> str:
    """A probability in a column: 0.012, or < 0.001."""
    return f"<{SPACE}0.001" if p < 0.001 else f"{p:.3f}"


def whole(number: float) -> str:
    """A count: 12,345."""
    return f"{number:,.0f}"


def setting(text: str) -> str:
    """A tracked setting: large whole numbers with commas, everything else as it was given."""
    return f"{int(text):,}" if text.isdigit() and len(text) > 4 else text


def searched(text: str) -> str:
    """A setting that a sweep has drawn: three digits of a fraction, everything else as it was tracked."""
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.3g}"
    except ValueError:  # a choice, such as inverse_sqrt
        return text


def clipped(name: str, length: int = 24) -> str:
    """A name that fits into a plot."""
    return name if len(name) <= length else f"{name[: length - 1].rstrip()}…"


def exact(number: float | None) -> str:
    """For the CSV: every digit, whole numbers without a point, nothing where nothing was measured."""
    if number is None or not math.isfinite(number):
        return ""
    return str(int(number)) if number == int(number) and abs(number) < 2**63 else repr(float(number))
