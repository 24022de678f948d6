"""The simulation of tables with known differences, and its committed result."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest

from bench.checks import significance_simulation
from bench.checks.significance_simulation import EQUAL, SYSTEMS, Result, Scenario, ability, main, simulate, table
from bench.experiment.yaml_layers import EXPERIMENTS

COMMITTED = EXPERIMENTS.parent / "reports" / "results"


def test_tables_have_the_true_scores_of_the_scenario() -> None:
    """Over 20 tables of 12 systems the mean is 50 and the last system 8 better; sentences add to the variance."""
    rng, scenario = np.random.default_rng(1), Scenario("", 3, EQUAL, gap=8.0)
    scores = [[run.score for run in runs.values()] for _ in range(20) for runs in table(scenario, rng).values()]
    last = [of for number, of in enumerate(scores) if number % SYSTEMS == SYSTEMS - 1]
    others = [of for number, of in enumerate(scores) if number % SYSTEMS != SYSTEMS - 1]
    assert fmean(map(fmean, others)) == pytest.approx(50, abs=0.6)
    assert fmean(map(fmean, last)) == pytest.approx(58, abs=1.2)
    assert 2.0 < fmean(stdev(of) ** 2 for of in others) ** 0.5 < 2.3


def test_ability_is_the_inverse_of_the_expected_bleu() -> None:
    """A test set of very many sentences has the wanted BLEU."""
    rng = np.random.default_rng(1)
    sure = Scenario("", 30, (0.0,) * SYSTEMS)  # 360 runs; the sentences differ between tables only
    scores = [run.score for _ in range(5) for runs in table(sure, rng).values() for run in runs.values()]
    assert fmean(scores) == pytest.approx(50, abs=1.0)
    assert list(np.diff(ability(np.linspace(5, 95, 10))) > 0) == [True] * 9


@pytest.mark.parametrize("seeds", [1, 2])
def test_tables_with_few_seeds_claim_nothing(seeds: int) -> None:
    found = simulate(Scenario("", seeds, EQUAL, gap=20.0), 3)
    assert (found.wrong, found.found, found.pairs, found.holds) == (0, 0, 0, True)


def test_a_large_gap_is_found_and_counted_once_for_each_pair() -> None:
    found = simulate(Scenario("", 3, (0.5,) * SYSTEMS, gap=10.0), 3)
    assert (found.tables, found.wrong, found.found, found.pairs) == (3, 0, 3, 3 * (SYSTEMS - 1))
    assert found.holds
    assert not replace(found, wrong=1).holds
    assert not replace(found, found=2).holds


def test_the_command_prints_and_writes_the_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def counted(scenario: Scenario, tables: int) -> Result:
        return Result(scenario, tables, wrong=0, found=tables * (scenario.seeds > 2), pairs=0)

    monkeypatch.setattr(significance_simulation, "simulate", counted)
    assert main(["--tables", "40", "--csv", str(tmp_path / "found.csv")]) == 0
    assert "0.0% [0.0%, 8.8%]" in capsys.readouterr().out  # Wilson's interval of 0 of 40
    lines = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    assert [line["seeds"] for line in lines] == [str(scenario.seeds) for scenario in significance_simulation.SCENARIOS]
    monkeypatch.setattr(significance_simulation, "simulate", lambda *of: replace(counted(*of), wrong=3))
    assert main(["--tables", "40"]) == 1


def committed() -> Sequence[dict[str, str]]:
    paths = sorted(COMMITTED.glob("*-significance-simulation.csv"))
    assert paths, (
        f"{COMMITTED} has no result of the simulation. Run python -m bench.checks.significance_simulation "
        "--csv reports/results/DATE-significance-simulation.csv and commit the file."
    )
    return list(csv.DictReader(paths[-1].read_text().splitlines()))


def test_the_committed_result_is_within_the_thresholds() -> None:
    """At least 1,000 tables of equal systems, at most 5 % of them with a false claim; 80 % of gaps of 8 BLEU found."""
    for line in committed():
        tables, wrong, found = (
            int(line[name]) for name in ("tables", "tables_with_false_claim", "tables_with_gap_found_against_baseline")
        )
        assert tables >= 1000
        if line["seeds"] != "3":
            assert wrong == found == int(line["pairs_with_gap_found"]) == 0
        elif set(line["seed_sds_bleu"].split()) == {"2.00"}:
            assert wrong <= 0.05 * tables
            assert found >= 0.80 * tables or float(line["gap_bleu"]) == 0
