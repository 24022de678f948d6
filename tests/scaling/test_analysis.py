"""The analysis of a whole study, also of one in progress."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.checks.scaling_simulation import REFERENCE, SECOND, STARTS, Truth
from bench.scaling.analysis import Analysis, analyse
from bench.scaling.crossing import compare
from bench.scaling.fit import Data, fit_law
from bench.scaling.points import Point
from bench.scaling.uncertainty import pooled_noise
from tests.helpers.scaling_study import points

ROWS = ("bahdanau", "transformer-base", "few")
DRAWS = 60


@pytest.fixture(scope="module")
def measured() -> list[Point]:
    few = points("few", REFERENCE, 3, np.array([0.10, 0.26]) * 1e6)
    return [*points("bahdanau", REFERENCE, 1), *points("transformer-base", SECOND, 2), *few]


@pytest.fixture(scope="module")
def found(measured: list[Point]) -> Analysis:
    return analyse(measured, ROWS, known_e=1.10, draws=DRAWS, starts=STARTS)


def test_laws_and_noise_are_those_of_the_functions_for_one_row(found: Analysis, measured: list[Point]) -> None:
    own = [fit_law(Data.of([p for p in measured if p.row == row]), known_e=1.10, starts=STARTS) for row in ROWS]
    for row, fit in zip(ROWS, own, strict=True):
        analysed = found.rows[row].fit
        assert analysed
        assert analysed.form == "additive"
        assert analysed.parameters == pytest.approx(fit.parameters)
    assert found.noise == pooled_noise(own)


def test_the_verdict_is_that_of_the_frontiers(found: Analysis) -> None:
    first, second = (found.rows[row].curve("flops") for row in ROWS[:2])
    assert first
    assert second
    expected = compare((first.surface, first.ladder, first.draws), (second.surface, second.ladder, second.draws))
    pair = next(pair for pair in found.pairs if {pair.first, pair.second} == set(ROWS[:2]) and pair.cost == "flops")
    assert pair.crossing == expected
    assert expected.verdict == "crosses"


def test_a_row_with_two_sizes_has_no_law_and_no_verdict(found: Analysis) -> None:
    few = found.rows["few"]
    assert any("2 sizes; at least 3 are needed" in reason for reason in few.reasons)
    assert few.curves is None
    assert not few.intervals
    assert all(pair.refused == "few" for pair in found.pairs if "few" in (pair.first, pair.second))


def test_exponents_have_intervals_and_depend_on_the_way_of_counting(found: Analysis) -> None:
    exponents = {(one.count, one.cost): ends for one, ends in found.rows["bahdanau"].exponents}
    assert exponents["body", "exact"].value > exponents["body_softmax", "exact"].value
    assert all(ends.low <= ends.value <= ends.high for ends in exponents.values())


def test_a_law_that_is_not_identified_is_used_between_the_points_only() -> None:
    """Three sizes do not determine E: there is a frontier, but nothing beyond the largest cost and no exponent."""
    sizes = np.array([0.10, 0.10, 0.10, 0.67, 4.5]) * 1e6
    row = analyse(points("r", REFERENCE, 4, sizes), ["r"], draws=20, starts=STARTS).rows["r"]
    curve = row.curve("flops")
    assert curve
    assert "3 sizes; at least 4 are needed" in row.reasons
    assert not curve.frontier.extrapolated.any()
    assert not row.intervals
    assert not row.optima
    assert not row.exponents


def test_a_wrong_run_is_named_although_it_increases_the_noise_of_its_row(measured: list[Point]) -> None:
    wrong = [replace(p, loss=p.loss * 1.15) if p.run == "bahdanau-7" else p for p in measured if p.row != "few"]
    found = analyse(wrong, ROWS[:2], known_e=1.10, draws=20, starts=STARTS).rows["bahdanau"].wrong_run
    assert found
    assert found[0] == "bahdanau-7"


@pytest.mark.parametrize("number", [0, 1, 3, 6, 14])
def test_a_study_in_progress_says_what_is_missing(measured: list[Point], number: int) -> None:
    found = analyse(measured[:number], ROWS[:2], draws=20, starts=STARTS)
    assert all(row.reasons for row in found.rows.values())
    assert all(pair.crossing is None and pair.reasons for pair in found.pairs)
    assert found.rows["transformer-base"].reasons == ("0 points; at least 6 are needed",)


def test_rows_without_seconds_are_compared_by_flops_only(measured: list[Point]) -> None:
    untimed = [replace(p, seconds=None) if p.row == "bahdanau" else p for p in measured]
    found = analyse(untimed, (*ROWS[:2], "few"), known_e=1.10, draws=20, starts=STARTS)
    by_cost = {pair.cost: pair for pair in found.pairs if {pair.first, pair.second} == set(ROWS[:2])}
    assert by_cost["flops"].crossing
    assert by_cost["seconds"].reasons == ("seconds were not measured for all points",)
    assert found.rows["bahdanau"].spent["seconds"] is None


def test_points_of_one_run_are_paid_for_once() -> None:
    """Each of the three runs ends at the largest budget, whose cost contains that of the shorter ones."""
    measured = points("r", Truth(1, 45, 0.35, 200, 0.4), 5, np.array([0.1e6] * 3))
    spent = analyse(measured, ["r"], draws=20, starts=STARTS).rows["r"].spent["flops"]
    assert spent == pytest.approx(3 * max(point.flops for point in measured))


def test_points_along_a_line_have_no_curve() -> None:
    """One budget for each size: where D grows with N, a loss at another ratio would be extrapolated."""
    sizes = np.repeat(np.array([0.10, 0.26, 0.67, 1.7, 4.5]) * 1e6, 3)
    measured = points("r", REFERENCE, 6, sizes)
    budgets = sorted({point.tokens for point in measured})
    names = list(dict.fromkeys(point.size for point in measured))
    line = [point for point in measured if budgets.index(point.tokens) == names.index(point.size)]
    row = analyse(line, ["r"], draws=20, starts=STARTS).rows["r"]
    assert len(line) == 15
    assert row.fit
    assert row.reasons
    assert row.curves is None


def test_a_row_that_does_not_follow_a_law_does_not_change_the_intervals_of_others() -> None:
    """Three seeds of each size are enough for a noise of one's own; the last row jumps between its sizes."""
    sizes = np.repeat(np.array([0.10, 0.26, 0.67, 1.7, 4.5]) * 1e6, 3)
    good = points("good", REFERENCE, 6, sizes)
    jumping = [replace(p, row="bad", loss=p.loss * (1.3 if p.size in ("0.26M", "1.7M") else 1.0)) for p in good]
    alone = analyse(good, ["good"], draws=20, starts=STARTS).rows["good"]
    beside = analyse([*good, *jumping], ["good", "bad"], draws=20, starts=STARTS).rows
    assert alone.intervals
    assert beside["good"].intervals == alone.intervals
    assert beside["bad"].noise
    assert beside["bad"].noise.source == "sizes"


@pytest.mark.parametrize("budgets", [1, 2])
def test_one_or_two_budgets_give_no_curve(budgets: int) -> None:
    """The outer power has full rank with them, but its form alone would decide the law."""
    measured = points("r", REFERENCE, 7)
    kept = sorted({p.tokens for p in measured})[:budgets]
    few = analyse([p for p in measured if p.tokens in kept], ["r"], known_e=1.10, draws=20, starts=STARTS).rows["r"]
    assert f"{budgets} budgets; at least 3 are needed" in few.reasons
    assert few.curves is None


def test_bleu_near_zero_gives_no_curve_of_bleu_and_no_error(measured: list[Point]) -> None:
    """The least squares of scipy do not converge on these."""
    losses, bleus = [1.5, 1.7, 1.9, 2.1, 2.2, 2.4, 2.6, 2.8], [1.0, 0.0, 0.09, 0.1, 0.44, 0.41, 0.0, 0.0]
    chosen = zip(measured[: len(losses)], losses, bleus, strict=True)
    scored = [replace(p, loss=loss, bleu=bleu) for p, loss, bleu in chosen]
    assert analyse(scored, ["bahdanau"], draws=5, starts=STARTS[:1]).rows["bahdanau"].bleu is None
