"""The tables of a scaling study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from bench.scaling.analysis import Analysis, Pair, RowAnalysis
from bench.scaling.direct_pairs import predict
from bench.scaling.held_out import HeldOut
from bench.scaling.optima import COUNTS
from bench.scaling.points import Point
from bench.scaling.uncertainty import Interval
from bench.system import formatting
from reports.scaling.study import Study
from reports.scaling.verdicts import number_range, short_verdict, signed
from reports.tables.table import EMPTY, Column, Entry, Table, text_entry
from reports.text.catalogue import Catalogue

PARAMETERS = ("E", "A0", "B0", "a", "b")


def _table(say: Catalogue, name: str, columns: Sequence[Column], rows: Sequence[Sequence[Entry]]) -> Table:
    return Table(f"scale-{name}", say(f"scale.table.{name}"), tuple(columns), tuple(tuple(row) for row in rows))


def _text_columns(say: Catalogue, *names: str) -> list[Column]:
    return [Column(say(f"scale.column.{name}"), side="left") for name in names]


def _columns(say: Catalogue, *names: str, group: str = "") -> list[Column]:
    return [Column(say(f"scale.column.{name}"), group=group) for name in names]


def _quantity(value: float | None) -> Entry:
    return EMPTY if value is None else Entry(formatting.quantity(value), sort=value)


def _percent(value: float) -> Entry:
    return Entry(formatting.percent(value), sort=value)


def _with_interval(found: Interval, digits: int | None = None) -> Entry:
    """A value with its interval below it."""
    ends = number_range(found.low, found.high, digits)
    text = formatting.quantity(found.value) if digits is None else formatting.fixed(found.value, digits)
    return Entry(text, (ends,), sort=found.value)


def crossings(say: Catalogue, study: Study, analysis: Analysis) -> Table:
    """The verdict on every pair of rows, at equal FLOPs and at equal seconds."""
    columns = [
        *_text_columns(say, "pair", "verdict_flops"),
        *_columns(say, "difference", "cost_ratio"),
        *_text_columns(say, "verdict_seconds"),
    ]
    seconds = {(pair.first, pair.second): pair for pair in analysis.pairs if pair.cost == "seconds"}
    rows = []
    for pair in analysis.pairs:
        if pair.cost == "flops":
            names = [study.labels[row] for row in (pair.first, pair.second)]
            both = say("scale.pair", first=names[0], second=names[1])
            short = [short_verdict(say, study, one) for one in (pair, seconds[pair.first, pair.second])]
            verdicts = [Entry(first, tuple(details), sort=first) for first, *details in short]
            rows.append([text_entry(both), verdicts[0], *_differences(pair), verdicts[1]])
    return _table(say, "crossings", columns, rows)


def _differences(pair: Pair) -> list[Entry]:
    """The difference at the highest common cost, and the ratio of costs for the same loss."""
    if pair.crossing is None:
        return [EMPTY, EMPTY]
    found = pair.crossing
    ratio, bound = found.cost_ratio, found.high_cost / found.low_cost
    if ratio is not None:
        entry = Entry(formatting.ratio(ratio), sort=ratio)
    elif found.difference.value > 0:  # the second row has this loss at the lowest cost, or below
        entry = Entry(f">{formatting.SPACE}{formatting.ratio(bound)}", sort=bound)
    else:
        entry = Entry(f"<{formatting.SPACE}{formatting.ratio(1 / bound)}", sort=1 / bound)
    return [_difference(found.difference), entry]


def _difference(found: Interval) -> Entry:
    """A difference of losses with its sign, and its interval below it."""
    return Entry(signed(found.value, 3), (number_range(found.low, found.high, 3),), sort=found.value)


def held_out(say: Catalogue, study: Study, analysis: Analysis) -> Table:
    """Errors of the predictions of the largest budget and of the largest size."""
    columns = _text_columns(say, "row", "form")
    for what in ("largest budget", "largest size"):
        columns += _columns(say, "rms", "worst", "number", group=say(f"scale.held.{what}"))
    columns += _columns(say, "other_form")
    rows = []
    for row in _fitted(analysis):
        assert row.choice
        entries = [text_entry(study.labels[row.row]), text_entry(say(f"scale.form.{row.choice.form}"))]
        by_what = {one.what: one for one in row.choice.held_out[row.choice.form]}
        for what in ("largest budget", "largest size"):
            entries += _errors(by_what.get(what))
        others = [error for form, error in row.choice.errors.items() if form != row.choice.form]
        rows.append([*entries, _percent(math.expm1(others[0])) if by_what else EMPTY])
    return _table(say, "held_out", columns, rows)


def _errors(one: HeldOut | None) -> list[Entry]:
    if one is None:
        return [EMPTY] * 3
    return [*(_percent(math.expm1(error)) for error in (one.rms, one.worst)), _quantity(len(one.observed))]


def direct(say: Catalogue, study: Study, analysis: Analysis) -> Table:
    """The direct pairs: the difference that the curves predict, and that of the runs, of means over seeds."""
    columns = [*_text_columns(say, "pair"), *_columns(say, "flops"), *_text_columns(say, "direct_runs")]
    columns += _columns(say, "predicted", "measured", "bleu_of_both")
    columns += _text_columns(say, "sign")
    rows = []
    for pair in study.direct:
        both = (pair.first, pair.second)
        names = [study.labels[runs[0].row] for runs in both]
        shown = [
            say(
                "scale.direct_run" if len(runs) == 1 else "scale.direct_seeds",
                size=runs[0].size,
                pairs=formatting.count(round(fmean(run.pairs for run in runs))),
                number=len(runs),
                id=runs[0].run[:8],
            )
            for runs in both
        ]
        bleus = [_mean_bleu(runs) for runs in both]
        expected, measured = predict(analysis, *both), pair.difference
        rows.append(
            [
                text_entry(say("scale.pair", first=names[0], second=names[1])),
                Entry(formatting.power_of_ten(pair.flops), sort=pair.flops),
                text_entry("; ".join(shown)),
                _difference(expected.difference) if expected else EMPTY,
                Entry(signed(measured, 3), sort=measured),
                text_entry("; ".join(bleus)),
                text_entry(say(f"scale.direct.{expected.sign(measured) if expected else 'unknown'}")),
            ]
        )
    return _table(say, "direct", columns, rows)


def _mean_bleu(runs: Sequence[Point]) -> str:
    """BLEU of the runs of one row, in percent, their mean; a sign for missing if a run has none."""
    bleus = [run.bleu for run in runs if run.bleu is not None]
    return formatting.fixed(fmean(bleus), 1) if len(bleus) == len(runs) else formatting.MISSING


def _fitted(analysis: Analysis) -> list[RowAnalysis]:
    return [row for row in analysis.rows.values() if row.fit]


def ladder(say: Catalogue, study: Study, analysis: Analysis) -> Table:
    """The sizes of every row."""
    columns = [
        *_text_columns(say, "row", "size", "settings"),
        *(Column(say(f"scale.count.{count}"), group=say("scale.column.parameters")) for count in COUNTS),
        *_columns(say, "flops_per_token", "learning_rate", "seeds"),
    ]
    per_token: dict[tuple[str, str], float] = {}
    for row in analysis.rows.values():
        for point in row.points:
            per_token[point.row, point.size] = point.flops / point.tokens
    rows = [
        [
            *(text_entry(text) for text in (study.labels[size.row], size.name, size.settings)),
            *(Entry(formatting.count(getattr(size, count)), sort=getattr(size, count)) for count in COUNTS),
            _quantity(per_token.get((size.row, size.name))),
            _quantity(size.learning_rate),
            _quantity(size.seeds),
        ]
        for size in study.sizes
    ]
    return _table(say, "ladder", columns, rows)


def parameters(say: Catalogue, study: Study, analysis: Analysis) -> Table:
    """The parameters of every law with their intervals, or why they are refused."""
    columns = [
        *_text_columns(say, "row", "form"),
        *(Column(name) for name in PARAMETERS),
        *_columns(say, "n0", "d0", "residual_sd", "condition", "starts"),
    ]
    rows = []
    for row in analysis.rows.values():
        fit, start = row.fit, [text_entry(study.labels[row.row])]
        stands = say("scale.refused" if row.reasons else "scale.identified")
        if fit is None or row.identification is None:
            rows.append([*start, Entry(formatting.MISSING, (stands,), missing=True), *[EMPTY] * 10])
            continue
        values = [EMPTY] * 5
        if row.intervals:
            values = [_with_interval(row.intervals[name], 4) for name in PARAMETERS]
        rows.append(
            [
                *start,
                Entry(say(f"scale.form.{fit.form}"), (stands,), sort=fit.form),
                *values,
                _quantity(fit.n0),
                _quantity(fit.d0),
                _percent(fit.residual_sd),
                _quantity(row.identification.condition),
                Entry(f"{fit.agreeing} / {fit.starts}", sort=fit.agreeing),
            ]
        )
    return _table(say, "parameters", columns, rows)


def optima(say: Catalogue, study: Study, analysis: Analysis) -> Table:
    """The best size and the tokens for each parameter at three costs."""
    columns = [*_text_columns(say, "row"), *_columns(say, "cost", "best_size", "tokens", "tokens_per_parameter")]
    columns += _text_columns(say, "place")
    rows = [
        [
            text_entry(study.labels[row.row]),
            _quantity(one.cost),
            _with_interval(one.size),
            _quantity(one.tokens),
            _with_interval(one.per_parameter),
            text_entry(say(f"scale.place.{one.place}")),
        ]
        for row in analysis.rows.values()
        for one in row.optima
    ]
    return _table(say, "optima", columns, rows)


def exponents(say: Catalogue, study: Study, analysis: Analysis) -> Table:
    """The exponents of the best size in three ways of counting, with exact FLOPs and with 6 N D."""
    kinds = [(count, cost) for cost in ("exact", "6ND") for count in COUNTS]
    columns = [
        *_text_columns(say, "row"),
        *(Column(say(f"scale.count.{count}"), group=say(f"scale.flops.{cost}")) for count, cost in kinds),
    ]
    rows = []
    for row in analysis.rows.values():
        if row.exponents:
            found = {(one.count, one.cost): ends for one, ends in row.exponents}
            entries = [_with_interval(found[kind], 2) if kind in found else EMPTY for kind in kinds]
            rows.append([text_entry(study.labels[row.row]), *entries])
    return _table(say, "exponents", columns, rows)


def frontier_laws(say: Catalogue, study: Study, analysis: Analysis) -> Table:
    """The power law of every frontier, L = E + k (C / C0)^-c."""
    columns = [*_text_columns(say, "row"), Column("E"), Column("k"), Column("C0"), Column("c")]
    rows = []
    for row in analysis.rows.values():
        if row.frontier_law:
            law, exponent = row.frontier_law
            losses = [Entry(formatting.fixed(value, 3), sort=value) for value in (law.irreducible, law.scale)]
            rows.append([text_entry(study.labels[row.row]), *losses, _quantity(law.c0), _with_interval(exponent, 3)])
    return _table(say, "frontier_laws", columns, rows)


def rates(say: Catalogue, study: Study) -> Table:
    """The checks of the rule for learning rates. Of the runs of one size and budget the lowest loss is bold."""
    columns = [*_text_columns(say, "row", "size"), *_columns(say, "pairs", "factor", "loss")]
    best: dict[tuple[str, str, float], float] = {}
    for check in study.rate_checks:
        key = check.row, check.size, check.pairs
        best[key] = min(check.loss, best.get(key, check.loss))
    rows = [
        [
            text_entry(study.labels[check.row]),
            text_entry(check.size),
            _quantity(check.pairs),
            Entry(formatting.ratio(check.factor), sort=check.factor),
            Entry(
                formatting.fixed(check.loss, 3),
                sort=check.loss,
                best=check.loss == best[check.row, check.size, check.pairs],
            ),
        ]
        for check in study.rate_checks
    ]
    return _table(say, "rates", columns, rows)


def spent(say: Catalogue, study: Study, analysis: Analysis) -> Table:
    """Runs, points, what the runs of each row cost, and the noise of the row."""
    columns = [*_text_columns(say, "row"), *_columns(say, "runs", "points", "flops", "hours")]
    columns += _columns(say, "run_sd", "run_df", "cell_sd")
    rows = []
    for row in analysis.rows.values():
        checks = [check for check in study.further_runs if check.row == row.row]
        times = [row.spent["seconds"], *(check.seconds for check in checks)]
        seconds = None if any(time is None for time in times) else sum(time or 0.0 for time in times)
        rows.append(
            [
                text_entry(study.labels[row.row]),
                _quantity(len({point.run for point in row.points}) + len(checks)),
                _quantity(len(row.points)),
                _quantity((row.spent["flops"] or 0.0) + sum(check.flops for check in checks)),
                _quantity(None if seconds is None else seconds / 3600),
                *([_percent(row.noise.run_sd), _quantity(row.noise.run_df)] if row.noise else [EMPTY] * 2),
                _percent(row.noise.cell_sd) if row.noise and row.noise.cell_sd else EMPTY,
            ]
        )
    return _table(say, "spent", columns, rows)
