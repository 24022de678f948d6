"""Results of sweeps in a report."""

from __future__ import annotations

import pytest

from bench.system import formatting
from bench.tracking.store import Store
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.tables import detail_tables
from reports.text import experimental_setup, findings
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import Synthetic

pytestmark = synthetic_runs.quiet_mlflow


def test_expected_best_rises_to_the_best_trial(odd: Context):
    points = odd.tuning[odd.tracks[0]]["best"]
    assert (points[0].budget, points[0].best) == (1000, pytest.approx(15, abs=1))  # one of the four failed: 0
    assert (points[-1].budget, points[-1].best) == (4000, 30)


def test_tuning_debt_and_curve_are_those_stored_by_the_suite(store: Store):
    synthetic_runs.suite(store, "tuned", [Synthetic("low", "Low", 2014, 2, 1e12)], "low", "low")
    synthetic_runs.tuned(store, "tuned", "low", 8000.0)
    context = gather(store, "tuned")
    (point,) = context.tuning[context.tracks[0]]["low"]
    assert (point.budget, point.low, point.high) == (1000, 5, 20)
    assert findings.warnings(context)[0].startswith("Tuning debt")
    assert "Low (8,000\u00a0pairs)" in findings.warnings(context)[0]
    facts = {fact.label: fact.values for fact in experimental_setup.facts(context, context.tracks[0])}
    text = "8,000\u00a0pairs granted, 6,000\u00a0pairs spent, debt 8,000\u00a0pairs"
    assert facts["Tuning"] == ((text, ""),)


def test_rows_whose_settings_come_from_no_search_are_named(store: Store):
    rows = [Synthetic("low", "Low", 2014, 2, 1e12), Synthetic("high", "High", 2017, 9, 1e12)]
    synthetic_runs.suite(store, "untuned", rows, "low,high", "low")
    synthetic_runs.tuned(store, "untuned", "low", debt=None, granted=None, no_search=True)
    context = gather(store, "untuned")
    assert findings.warnings(context) == [
        "Not from an equal search: the settings of Low. What their tuning cost is unknown, so differences between rows "
        "may be differences of tuning."
    ]
    facts = {fact.label: fact.values for fact in experimental_setup.facts(context, context.tracks[0])}
    assert facts["Tuning"] == (("from no search, cost unknown", "Low"), ("none", "High"))


def test_a_tuning_budget_in_another_unit_has_no_debt(store: Store):
    synthetic_runs.suite(store, "timed", [Synthetic("low", "Low", 2014, 2, 1e12)], "low", "low")
    synthetic_runs.tuned(store, "timed", "low", debt=None, granted=None)
    context = gather(store, "timed")
    facts = {fact.label: fact.values for fact in experimental_setup.facts(context, context.tracks[0])}
    assert "not measured in pairs granted" in facts["Tuning"][0][0]
    assert findings.warnings(context) == []


def test_tables_of_a_sweep(odd: Context):
    best = odd.row("best").name
    assert [[entry.text for entry in row] for row in detail_tables.settings(odd).rows] == [
        [best, "training.optimizer.lr", "0.00312", formatting.percent(0.75)]
    ]
    assert [[entry.text for entry in row] for row in detail_tables.fronts(odd).rows] == [
        [best, "10.0", "5.00", "training.optimizer.lr 0.001"],
        [best, "30.0", "9.00", "training.optimizer.lr 0.00312"],
    ]


def test_a_sweep_without_bleu_gives_no_curve(store: Store):
    for number, scored in enumerate(((True, False), (False,)), 1):
        row = f"swept-{number}"
        for of in scored:
            synthetic_runs.sweep(store, row, of)
        synthetic_runs.suite(store, row, [Synthetic(row, "Low", 2014, 2, 1e12)], row, row)
        context = gather(store, row)
        points = context.tuning.get(context.tracks[0], {})
        assert [(point.budget, point.best) for point in points.get(row, [])][-1:] == (
            [(4000, 30)] if number == 1 else []
        )
