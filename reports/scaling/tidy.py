"""The tidy table of a scaling study: one line for each number, with its interval, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

from bench.scaling.analysis import COSTS, Analysis, Pair, RowAnalysis
from bench.scaling.direct_pairs import predict
from bench.scaling.uncertainty import Interval, Noise
from bench.system import formatting
from bench.system.visible_text import visible
from reports.scaling.study import Study


@dataclass(frozen=True)
class Number:
    """A line of the table.

    Attributes:
        row: Architecture; "" for a number of all rows.
        other: The second architecture of a pair, else "".
        quantity: What the number is.
        at: Where it holds: a size, a cost, a way of counting, or "".
        value: The number; None: it has no value, see text.
        low: Lower end of its interval; None: none.
        high: Upper end.
        unit: Its unit; "" for pure numbers.
        text: The verdict or the reason of a refusal; else "".
    """

    row: str
    other: str
    quantity: str
    at: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    text: str = ""


UNITS = {"E": "nats/token", "A0": "nats/token", "B0": "nats/token", "a": "", "b": ""}
COST_UNITS = {"flops": "FLOP", "seconds": "s"}


def numbers(study: Study, analysis: Analysis) -> list[Number]:
    """Returns all numbers of the study, those of rows first, then those of pairs, noise and rate checks."""
    found = [number for row in analysis.rows.values() for number in _of_row(row)]
    found += [number for pair in analysis.pairs for number in _of_pair(pair)]
    if noise := analysis.noise:
        found += _of_noise("", noise)
    for pair in study.direct:
        both = (pair.first, pair.second)
        rows, at = (pair.first[0].row, pair.second[0].row), f"{pair.flops:.10g} FLOP"
        runs = ", ".join(f"{one.size} {one.run}" for one in (*pair.first, *pair.second))
        quantity = "difference of loss of a direct pair"
        found.append(Number(*rows, quantity, at, pair.difference, None, None, "nats/token", runs))
        if expected := predict(analysis, *both):
            d = expected.difference
            found.append(Number(*rows, "difference that the curves predict", at, d.value, d.low, d.high, "nats/token"))
        for one in (*pair.first, *pair.second):
            found.append(_plain(one.row, "BLEU of a run of a direct pair", one.bleu, "BLEU", at))
    for check in study.rate_checks:
        at = f"{check.size}, {check.pairs:.10g} pairs, learning rate x {check.factor:.10g}"
        found.append(_plain(check.row, "loss of a learning-rate check", check.loss, "nats/token", at))
    return found


def csv_text(study: Study, analysis: Analysis) -> str:
    """Returns the table as CSV, with all digits; what has no value or interval is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["study", *(field.name for field in fields(Number))])
    for number in numbers(study, analysis):
        cells = [
            formatting.exact(cell) if cell is None or isinstance(cell, (int, float)) else cell
            for cell in astuple(number)
        ]
        writer.writerow([study.name, *cells])
    return visible(text.getvalue())


def _plain(row: str, quantity: str, value: float | None, unit: str = "", at: str = "", text: str = "") -> Number:
    return Number(row, "", quantity, at, value, None, None, unit, text)


def _interval(row: str, quantity: str, found: Interval, unit: str = "", at: str = "") -> Number:
    return Number(row, "", quantity, at, found.value, found.low, found.high, unit)


def _of_noise(row: str, noise: Noise) -> Iterator[Number]:
    """The noise of a row, or with "" that pooled over rows."""
    yield _plain(row, "run SD of log loss", noise.run_sd, text=noise.source)
    yield _plain(row, "degrees of freedom of the run SD", noise.run_df)
    if noise.cell_sd:
        yield _plain(row, "SD of log loss between sizes and budgets, beside runs", noise.cell_sd)
        yield _plain(row, "degrees of freedom of the SD between sizes and budgets", noise.cell_df)
    if noise.point_sd:
        yield _plain(row, "point SD of log loss", noise.point_sd)


def _of_row(row: RowAnalysis) -> Iterator[Number]:
    name = row.row
    yield _plain(name, "points", len(row.points))
    for cost in COSTS:
        yield _plain(name, "spent", row.spent[cost], COST_UNITS[cost])
    if row.reasons:
        yield _plain(name, "refused", None, text="; ".join(row.reasons))
    if row.law_error:
        yield _plain(name, "SD by which the law misses sizes and budgets", row.law_error)
    if noise := row.noise:
        yield from _of_noise(name, noise)
    if row.fit and row.identification:
        yield _plain(name, "residual SD of log loss", row.fit.residual_sd, text=row.fit.form)
        yield _plain(name, "condition number", row.identification.condition)
        yield _plain(name, "N0", row.fit.n0, "parameters")
        yield _plain(name, "D0", row.fit.d0, "target tokens")
    for key, found in (row.intervals or {}).items():
        yield _interval(name, key, found, UNITS[key])
    if row.choice:
        for form, predictions in row.choice.held_out.items():
            for one in predictions:
                yield _plain(name, "held-out error, rms", one.rms, at=one.what, text=form)
                yield _plain(name, "held-out error, worst", one.worst, at=one.what, text=form)
    for best in row.optima:
        at = f"{best.cost:.10g} FLOP"
        yield _interval(name, "best size", best.size, "parameters", at)
        yield _interval(name, "tokens per parameter", best.per_parameter, at=at)
    for one, found in row.exponents:
        yield _interval(name, "exponent of the best size", found, at=f"{one.count}, {one.cost}")
    if row.frontier_law:
        law, found = row.frontier_law
        at = f"C0 {law.c0:.10g} FLOP"
        yield _interval(name, "exponent of the frontier", found, at=at)
        yield _plain(name, "E of the frontier", law.irreducible, "nats/token")
        yield _plain(name, "k of the frontier", law.scale, "nats/token", at)
    if row.bleu:
        yield _plain(name, "BLEU law, c", row.bleu.scale, "BLEU")
        yield _plain(name, "BLEU law, k", row.bleu.rate, "1/nat")
    for cost in COSTS:
        if curve := row.curve(cost):
            front = curve.frontier
            for at, loss, low, high in zip(front.costs, front.loss, front.low, front.high, strict=True):
                cell = f"{at:.10g} {COST_UNITS[cost]}"
                yield _interval(name, "lowest loss", Interval(float(loss), float(low), float(high)), "nats/token", cell)


def _of_pair(pair: Pair) -> Iterator[Number]:
    unit, rows = COST_UNITS[pair.cost], (pair.first, pair.second)
    if (found := pair.crossing) is None:
        yield Number(*rows, "verdict", unit, None, None, None, "", "; ".join(("refused", *pair.reasons)))
        return
    at = f"{found.high_cost:.10g} {unit}"
    where = (found.at.value, found.at.low, found.at.high) if found.at else (None, None, None)
    yield Number(*rows, "verdict", f"{found.low_cost:.10g} to {at}", *where, unit, found.verdict)
    d = found.difference
    yield Number(*rows, "difference of loss", at, d.value, d.low, d.high, "nats/token")
    low_at, d = f"{found.low_cost:.10g} {unit}", found.low_difference
    yield Number(*rows, "difference of loss", low_at, d.value, d.low, d.high, "nats/token")
    yield Number(*rows, "ratio of costs for equal loss", at, found.cost_ratio, None, None, "")
