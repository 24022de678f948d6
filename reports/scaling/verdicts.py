"""What a scaling study says in sentences: its finding, the verdict on a pair, warnings, and what it cannot say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from scipy.stats import t as student_t

from bench.scaling.analysis import Analysis, Pair
from bench.scaling.crossing import Crossing
from bench.scaling.uncertainty import ENOUGH_DF, Interval, Noise
from bench.system import formatting
from reports.scaling.study import Study
from reports.text.catalogue import Catalogue

MAIN_PAIR = ("transformer-base", "bahdanau")
"""The pair whose verdict stands first."""

NAMED_RUNS = 5
"""Missing runs that a warning names; the section on cost names all."""

ENOUGH_DECADES, ENOUGH_SPAN = 2.0, 30.0

UNEQUAL = 3.0
"""Ratio of two rows' standard deviations between seeds from which the page says that they differ."""


def signed(value: float, digits: int) -> str:
    """A number with its sign: +0.012, −0.012."""
    return f"{'+' if value >= 0 else ''}{formatting.fixed(value, digits)}"


def number_range(low: float, high: float, digits: int | None = None) -> str:
    """Both ends as [low, high], with fixed digits or as quantities."""
    if digits is None:
        return formatting.interval(low, high)
    return f"[{formatting.fixed(low, digits)}, {formatting.fixed(high, digits)}]"


def _amount(pair: Pair, value: float) -> str:
    """A cost in short form, without its unit."""
    return formatting.power_of_ten(value, 1) if pair.cost == "flops" else formatting.quantity(float(f"{value:.2g}"))


def verdict(say: Catalogue, study: Study, pair: Pair) -> str:
    """The verdict on a pair in a sentence, with the range, the interval and the unit; or why there is none."""
    found, unit = pair.crossing, say(f"scale.unit.{pair.cost}")
    names = [study.labels[row] for row in (pair.first, pair.second)]
    if pair.refused:
        return say("scale.verdict.no_law", first=names[0], second=names[1], row=study.labels[pair.refused])
    if found is None:
        reason = say.recorded("; ".join(pair.reasons))
        return say("scale.verdict.refused", first=names[0], second=names[1], reason=reason)
    d, rows = found.difference, {"first": names[0], "second": names[1], "unit": unit}
    reach = {"low": _amount(pair, found.low_cost), "high": _amount(pair, found.high_cost)}
    if found.at and found.ahead is not None:
        ends = f"[{_amount(pair, found.at.low)}, {_amount(pair, found.at.high)}]"
        at = _amount(pair, found.at.value)
        return say("scale.verdict.crosses", at=at, ends=ends, ahead=names[found.ahead], **rows, **reach)
    if found.ahead is not None:
        sign = -1 if found.ahead == 0 else 1
        low, high = sorted((sign * d.low, sign * d.high))
        value, ends = formatting.fixed(abs(d.value), 3), number_range(low, high, 3)
        return say("scale.verdict.none", ahead=names[found.ahead], value=value, ends=ends, **rows, **reach)
    said = say("scale.verdict.open", at_low=_signed(found.low_difference), at_high=_signed(d), **rows, **reach)
    if _is_certain_of_changes(found):
        said += " " + say("scale.verdict.changes", percent=formatting.percent(found.changes))
    return said


def short_verdict(say: Catalogue, study: Study, pair: Pair) -> list[str]:
    """The verdict on a pair for a table that names the rows: one line, and lines of detail."""
    found, unit = pair.crossing, say(f"scale.unit.{pair.cost}")
    if pair.refused:
        return [say("scale.short.refused"), say("scale.short.no_law", row=study.labels[pair.refused])]
    if found is None:
        return [say("scale.short.refused"), say.recorded("; ".join(pair.reasons))]
    reach = say("scale.short.reach", low=_amount(pair, found.low_cost), high=_amount(pair, found.high_cost), unit=unit)
    if found.ahead is None:
        return [say("scale.short.open"), reach]
    ahead = study.labels[(pair.first, pair.second)[found.ahead]]
    if found.at is None:
        return [say("scale.short.none", ahead=ahead), reach]
    ends = f"[{_amount(pair, found.at.low)}, {_amount(pair, found.at.high)}]"
    at = say("scale.short.crosses", at=_amount(pair, found.at.value), ends=ends, unit=unit)
    return [at, say("scale.short.above", ahead=ahead), reach]


def _signed(difference: Interval) -> str:
    """A difference with its sign and its interval: −0.012 [−0.020, −0.004]."""
    ends = f"[{signed(difference.low, 3)}, {signed(difference.high, 3)}]"
    return f"{signed(difference.value, 3)} {ends}"


def _is_certain_of_changes(found: Crossing) -> bool:
    """Whether the same row is ahead at both ends, and the other one between them: two crossings, not none."""
    return found.low_difference.value * found.difference.value > 0 and found.changes >= found.level


def finding(say: Catalogue, study: Study, analysis: Analysis) -> list[str]:
    """The verdict on the main pair, if the study has both rows, and a count of the verdicts on all pairs."""
    pairs = [pair for pair in analysis.pairs if pair.cost == "flops"]
    said = []
    for pair in pairs:
        if set(MAIN_PAIR) == {pair.first, pair.second}:
            said.append(verdict(say, study, pair))
    verdicts = [pair.crossing.verdict if pair.crossing else "refused" for pair in pairs]
    counted = {name: verdicts.count(name) for name in ("crosses", "none in range", "not resolved", "refused")}
    if not pairs or counted["refused"] == len(pairs):
        refused = any(row.reasons for row in analysis.rows.values())
        return [*said, say("scale.finding.nothing_by_law" if refused else "scale.finding.nothing")]
    numbers = {name.replace(" ", "_"): number for name, number in counted.items()}
    return [*said, say("scale.finding.all", pairs=say.count("pair", len(pairs)), **numbers)]


def warnings(say: Catalogue, study: Study, analysis: Analysis) -> list[str]:
    """What may be wrong with the points: a run far from the others, points in the middle of a schedule, lost runs."""
    found = []
    for row in analysis.rows.values():
        name = study.labels[row.row]
        if row.wrong_run:
            run_id, deviation = row.wrong_run
            point = next(point for point in row.points if point.run == run_id)
            run = say(
                "scale.run", size=point.size, pairs=formatting.count(round(point.pairs)), seed=point.seed, id=run_id[:8]
            )
            share = signed(100 * (math.exp(deviation.offset) - 1), 1)
            errors = formatting.fixed(abs(deviation.offset / deviation.error), 1)
            found.append(say("scale.warning.run", row=name, run=run, percent=share, errors=errors))
        if row.drift and row.drift.flagged:
            found.append(say("scale.warning.drift", row=name, percent=signed(100 * row.drift.error, 1)))
    if study.failed:
        more = len(study.failed) - NAMED_RUNS
        named = [*study.failed[:NAMED_RUNS], *([say("scale.more_runs", number=more)] if more > 0 else [])]
        found.append(say("scale.warning.failed", number=len(study.failed), runs=", ".join(named)))
    return found


def missing(say: Catalogue, study: Study, analysis: Analysis) -> list[tuple[str, str]]:
    """Rows whose law is refused, with the reasons."""
    return [
        (study.labels[row.row], "; ".join(say.recorded(reason) for reason in row.reasons))
        for row in analysis.rows.values()
        if row.reasons
    ]


def limits(say: Catalogue, study: Study, analysis: Analysis) -> list[str]:
    """What the study cannot say: the objections of reviewers that apply to it."""
    return [say(f"scale.limit.{key}", **values) for key, values in _limits(say, study, analysis)]


def _limits(say: Catalogue, study: Study, analysis: Analysis) -> Iterator[tuple[str, dict[str, object]]]:
    def listed(rows: list[str]) -> dict[str, object]:
        return {"rows": say.listed([study.labels[row] for row in rows])}

    rows = [row for row in analysis.rows.values() if row.points]
    yield ("synthetic" if study.corpus.startswith("grammar") else "corpus"), {"corpus": study.corpus}
    if any(size.seeds < 2 for size in study.sizes):
        yield "one_seed", {"sizes": sum(size.seeds < 2 for size in study.sizes), "of": len(study.sizes)}
    noises = {row.row: row.noise for row in rows if row.noise}
    between = {row.row: row.interpolation for row in rows if row.interpolation}
    if analysis.noise is None:
        yield "no_noise", {}
    elif few := [row for row, noise in noises.items() if (noise.run_df if row in between else noise.df) < ENOUGH_DF]:
        yield "few_df", {"enough": ENOUGH_DF, **listed(few)}
    if scattered := [row for row, noise in noises.items() if noise.source == "sizes" and row not in between]:
        yield "sizes", listed(scattered)
    spreads = [noise.run_sd for noise in noises.values() if noise.run_sd]
    if spreads and max(spreads) > UNEQUAL * min(spreads):
        yield "unequal", {"low": formatting.percent(min(spreads)), "high": formatting.percent(max(spreads))}
    curves = {row.row: curve for row in rows if (curve := row.curve("flops"))}
    if interpolated := [row for row in curves if analysis.rows[row].reasons and row not in between]:
        yield "interpolated", listed(interpolated)
    if between:
        errors = [analysis.rows[row].law_error for row in between]
        ends = {"low": formatting.percent(min(errors)), "high": formatting.percent(max(errors))}
        yield "between", {**ends, **listed([*between])}
    compared = [pair.crossing for pair in analysis.pairs if pair.crossing and pair.cost == "flops"]
    if narrow := sum(math.log10(one.high_cost / one.low_cost) < ENOUGH_DECADES for one in compared):
        yield "decades", {"narrow": narrow, "of": len(compared)}
    if short := [row for row, curve in curves.items() if curve.ladder.sizes[-1] / curve.ladder.sizes[0] < ENOUGH_SPAN]:
        yield "span", listed(short)
    if ends := [
        row for row, curve in curves.items() if curve.frontier.at_end[~curve.frontier.extrapolated].mean() > 0.5
    ]:
        yield "ladder_end", listed(ends)
    checked = {check.row for check in study.rate_checks if check.factor != 1}
    if unchecked := [row for row in study.labels if row not in checked]:
        yield "rate_unchecked", listed(unchecked)
    if wrong := _wrong_rates(study, noises):
        runs = [
            say("scale.rate_run", row=study.labels[row], size=size, pairs=formatting.count(round(pairs)))
            for row, size, pairs in wrong
        ]
        yield "rate_wrong", {"runs": say.listed(runs)}
    if len({row.fit.form for row in rows if row.fit}) > 1:
        yield "forms", {}
    if silent := [row.row for row in rows if any(point.bleu is None for point in row.points)]:
        yield "no_bleu", listed(silent)
    if factor := _unequal_seconds(study):
        yield "seconds", {"device": study.device or say("protocol.unknown"), "factor": formatting.ratio(factor)}
    yield "counts", {}
    yield "extrapolation", {}


def _unequal_seconds(study: Study) -> float:
    """The largest ratio between the seconds per token of two runs of one row and size; 0: no seconds were measured."""
    per_token: dict[tuple[str, str], list[float]] = {}
    for point in study.points:
        if point.seconds is not None:
            per_token.setdefault((point.row, point.size), []).append(point.seconds / point.tokens)
    return max((max(of) / min(of) for of in per_token.values()), default=0.0)


def _wrong_rates(study: Study, noises: Mapping[str, Noise]) -> list[tuple[str, str, float]]:
    """Rows, sizes and budgets for which another learning rate than that of the rule had a clearly lower loss.

    Of three equal rates with one seed each, the rule is not the best in two cases of three. So the difference must be
    larger than those of all rates together would be in 95 % of studies without one: Student's t, Bonferroni-corrected.
    Runs of one size and budget differ by the noise of seeds alone; how sizes scatter around the law does not matter.
    """
    groups: dict[tuple[str, str, float], dict[float, float]] = {}
    for check in study.rate_checks:
        groups.setdefault((check.row, check.size, check.pairs), {})[check.factor] = check.loss
    others = sum(len(losses) - 1 for losses in groups.values() if 1.0 in losses)
    least = {
        row: math.sqrt(2) * noise.run_sd * float(student_t.isf(0.05 / max(others, 1), noise.run_df))
        for row, noise in noises.items()
    }
    return [
        (row, size, pairs)
        for (row, size, pairs), losses in groups.items()
        if row in least and 1.0 in losses and math.log(losses[1.0] / min(losses.values())) > least[row]
    ]
