"""The simulation of scaling curves with known laws: its cheap tests, and a small sample of the others."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.checks import scaling_simulation
from bench.checks.scaling_simulation import REFERENCE, SECOND, WORSE, Check, comparisons, main, true_crossing


@pytest.mark.parametrize("check", [scaling_simulation.refusals, scaling_simulation.wrong_points])
def test_cheap_tests_hold(check: Callable[[], Check]) -> None:
    found = check()
    assert found.holds, found.seen


def test_every_start_finds_the_law_and_sizes_are_counted_in_three_ways() -> None:
    for check in (scaling_simulation.exact_starts(), scaling_simulation.counting()):
        assert check.holds, check.seen


def test_few_sets_have_the_right_verdicts() -> None:
    assert true_crossing(REFERENCE, SECOND) == pytest.approx(8.9e12, rel=0.03)
    assert {one.verdict for one in comparisons(3, REFERENCE, SECOND, 2)} == {"crosses"}
    assert {(one.verdict, one.ahead) for one in comparisons(4, REFERENCE, WORSE, 2)} == {("none in range", 0)}
    assert {one.verdict for one in comparisons(5, REFERENCE, REFERENCE, 2)} == {"not resolved"}


def test_results_are_written_and_the_exit_code_says_whether_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "simulation.csv"
    assert main(["--tests", "9", "--sets", "2", "--csv", str(path)]) == 0
    with path.open(encoding="utf-8") as file:
        (line,) = csv.DictReader(file)
    assert (line["test"], line["holds"], line["seen"]) == ("9", "True", "flagged 2 of 2, clean data 0 of 2")
    monkeypatch.setattr("bench.scaling.outliers.MAX_DRIFT", 1.0)
    assert main(["--tests", "9", "--sets", "2"]) == 1
