"""Numbers and durations as text, for the terminal and for reports. A number becomes text here and nowhere else.

Every function returns one string, the same in every language. The page, Markdown and the terminal print it as it is;
LaTeX escapes the typographic characters used here (reports/text/escaping.py). Which format a metric has stands in
bench/measures/metric_registry.py.
"""

from __future__ import annotations

import math

SPACE = "\u00a0"
"""No line is broken between a number and its unit."""

MISSING = "—"
"""Printed in place of a number that was not measured."""

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def fixed(number: float, digits: int) -> str:
    """The number with `digits` digits after the point: −1,234.5. The minus sign is the typographic one."""
    return f"{number:,.{digits}f}".replace("-", "−")


def count(number: float) -> str:
    """A whole number: 12,345."""
    return fixed(number, 0)


def significant(number: float) -> str:
    """Three significant digits without an exponent: 0.0123, 1.23, 123, 12,300."""
    if number == 0:
        return "0"
    digits_before_point = math.floor(math.log10(abs(number))) + 1
    rounded = round(number, 3 - digits_before_point)
    return fixed(rounded, max(0, 3 - (math.floor(math.log10(abs(rounded))) + 1)))  # rounding may add a digit: 999.9


def power_of_ten(number: float, digits: int = 2) -> str:
    """Scientific notation with `digits` digits after the point: 1.23 × 10¹⁵."""
    if number == 0:
        return "0"
    mantissa, exponent = f"{number:.{digits}e}".split("e")
    return f"{mantissa}{SPACE}×{SPACE}10{str(int(exponent)).translate(SUPERSCRIPTS)}".replace("-", "−")


def quantity(number: float) -> str:
    """A number whose metric is not known: 1.23 × 10¹⁵ from a million on, 12,345, or three significant digits."""
    if not math.isfinite(number):
        return str(number)
    if abs(number) >= 1e6:
        return power_of_ten(number)
    return count(number) if abs(number) >= 100 or number == int(number) else significant(number)


def interval(low: float | None, high: float | None) -> str:
    """[low, high], or an empty text if there is no interval."""
    return "" if low is None or high is None else f"[{quantity(low)}, {quantity(high)}]"


def duration(seconds: float) -> str:
    """7.3 s below a minute, else 4:05 or 1:02:03. 59.97 s is 1:00, because it would round to 60.0 s."""
    if seconds < 59.95:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def hours_and_minutes(seconds: float) -> str:
    """1:52 h from an hour on, 12 min from a minute on, else 34 s."""
    if seconds < 59.5:
        return f"{seconds:.0f}{SPACE}s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min"
    return f"{minutes // 60:,}:{minutes % 60:02}{SPACE}h"


def percent(share: float) -> str:
    """A share between 0 and 1 as 98.7 %."""
    return f"{fixed(100 * share, 1)}{SPACE}%"


def ratio(number: float) -> str:
    """A factor: × 1.25."""
    return f"×{SPACE}{significant(number)}"


def p_value(p: float) -> str:
    """A p-value in a column: 0.012, or < 0.001."""
    return f"<{SPACE}0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """A p-value in a sentence: p = 0.012, or p < 0.001."""
    return f"p{SPACE}{p_value(p)}" if p < 0.001 else f"p{SPACE}={SPACE}{p_value(p)}"


def p_at_most(p: float) -> str:
    """An upper bound of several p-values, rounded up: p ≤ 0.013, or p < 0.001."""
    if p < 0.001:
        return p_equals(p)
    return f"p{SPACE}≤{SPACE}{p_value(math.ceil(round(1000 * p, 6)) / 1000)}"


def axis_tick(number: float) -> str:
    """The shortest text for a tick of an axis: 10¹², 2.5 × 10¹², 20, 0.5."""
    if 0.001 <= number < 100_000:
        return f"{number:,.6g}"
    mantissa, exponent = f"{number:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    ten = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return ten if mantissa == "1" else f"{mantissa}{SPACE}×{SPACE}{ten}"


def published_score(number: float) -> str:
    """A published score with the digits that were printed, at least one: 23.75, 26.3."""
    return f"{number:.2f}".removesuffix("0")


def setting(text: str) -> str:
    """The value of a setting: large whole numbers with commas, everything else unchanged."""
    return f"{int(text):,}" if text.isdigit() and len(text) > 4 else text


def sampled_setting(text: str) -> str:
    """A value that a hyperparameter search sampled: fractions with three digits, everything else unchanged."""
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.3g}"
    except ValueError:  # a choice, such as inverse_sqrt
        return text


def shortened(name: str, length: int = 24) -> str:
    """The name, cut to `length` characters and marked with … if it is longer."""
    return name if len(name) <= length else f"{name[: length - 1].rstrip()}…"


def exact(number: float | None) -> str:
    """Every digit, for the CSV: whole numbers without a point; empty if there is no finite number."""
    if number is None or not math.isfinite(number):
        return ""
    return str(int(number)) if number == int(number) and abs(number) < 2**63 else repr(float(number))
