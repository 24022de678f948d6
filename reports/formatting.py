"""How every number of a report is written: the only place where one becomes text.

A number is made into one string, which the page, Markdown and the terminal print as it is and LaTeX after escaping
(escaping.py turns the typographic characters used here into commands).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        label: Heading of its column.
        unit: Unit that is printed, after division by `scale`.
        scale: Units of the tracked number in one printed unit.
        form: Digits after the point, three significant digits, a power of ten, a clock, a whole number.
        better: Whether more or less of it is wanted.
        score: Whether it belongs to a test set.
    """

    label: str
    unit: str = ""
    scale: float = 1.0
    form: Literal["0.1", "0.001", "significant", "power", "clock", "whole"] = "significant"
    better: Literal["more", "less", ""] = ""
    score: bool = False

    @property
    def heading(self) -> str:
        return f"{self.label}, {self.unit}" if self.unit else self.label


METRICS = {
    "bleu": Metric("BLEU", form="0.1", better="more", score=True),
    "chrf": Metric("chrF2", form="0.1", better="more", score=True),
    "ter": Metric("TER", form="0.1", better="less", score=True),
    "params": Metric("Parameters", "M", 1e6, better="less"),
    "train_flops": Metric("Training FLOPs", form="power", better="less"),
    "executed_flops": Metric("Executed FLOPs", form="power", better="less"),
    "latency_p50_ms": Metric("Latency p50", "ms", better="less"),
    "latency_p95_ms": Metric("Latency p95", "ms", better="less"),
    "sentences_per_s": Metric("Throughput", "sentences/s", better="more"),
    "peak_memory_bytes": Metric("Peak memory", "MiB", 2**20, better="less"),
    "wall_s": Metric("Wall time", form="clock", better="less"),
    "bleu_shuffled_references": Metric("BLEU, shuffled references", form="0.1", score=True),
    "params_core": Metric("Parameters outside embeddings and softmax", "M", 1e6, better="less"),
    "validation_loss": Metric("Validation loss", "nats/token", form="0.001", better="less"),
    "validation_loss_shuffled_sources": Metric("Validation loss, shuffled sources", "nats/token", form="0.001"),
    "clock_flops": Metric("Clock estimate of training", "FLOP", form="power", better="less"),
    "pairs": Metric("Sentence pairs", form="whole"),
    "updates": Metric("Updates", form="whole"),
    "seconds": Metric("Training time", "s"),
}
"""In the order of the tidy CSV; a metric that is not named here follows under its own name."""

TABLE = tuple(METRICS)[:11]
"""Metrics that have a line in the CSV for every row, empty where nothing was measured."""


def metric(name: str) -> Metric:
    return METRICS.get(name) or Metric(name)


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
        return f"{scaled:,.0f}"
    return significant(scaled) if known.form == "significant" else fixed(scaled, 1 if known.form == "0.1" else 3)


def quantity(name: str, number: float | None) -> str:
    """A number with its unit, to stand in a sentence."""
    unit = metric(name).unit
    return value(name, number) + (SPACE + unit if unit and number is not None else "")


def interval(name: str, low: float | None, high: float | None) -> str:
    """Both ends of an interval, in the unit of the metric's heading."""
    if low is None or high is None:
        return ""
    between = " to " if low < 0 else "–"  # a minus sign beside a dash is hard to read
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


def difference(name: str, number: float) -> str:
    """A difference, its sign always printed."""
    text = value(name, number)
    return text if text.startswith("−") else f"+{text}"


def compared(one: float, other: float) -> str:
    """How much more or less one amount is than another: 25 % fewer than, 2.3 times those of."""
    ratio = one / other
    if ratio >= 2:
        return f"{fixed(ratio, 1 if ratio < 100 else 0)} times those of"
    percent = round(abs(ratio - 1) * 100)
    if percent == 0:
        return "as many as"
    return f"{percent}{SPACE}% {'more' if ratio > 1 else 'fewer'} than"


def probability(p: float) -> str:
    """As p = 0.012, or p < 0.001."""
    return f"p{SPACE}{small(p)}" if p < 0.001 else f"p{SPACE}={SPACE}{small(p)}"


def small(p: float) -> str:
    """A probability in a column: 0.012, or < 0.001."""
    return f"<{SPACE}0.001" if p < 0.001 else f"{p:.3f}"


def count(number: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{number:,}{SPACE}{noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """A, B and C."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def setting(text: str) -> str:
    """A tracked setting: large whole numbers with commas, everything else as it was given."""
    return f"{int(text):,}" if text.isdigit() and len(text) > 4 else text


def clipped(name: str, length: int = 24) -> str:
    """A name that fits into a plot."""
    return name if len(name) <= length else f"{name[: length - 1].rstrip()}…"


def exact(number: float | None) -> str:
    """For the CSV: every digit, whole numbers without a point, nothing where nothing was measured."""
    if number is None or not math.isfinite(number):
        return ""
    return str(int(number)) if number == int(number) and abs(number) < 2**63 else repr(float(number))
