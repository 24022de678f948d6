"""Paired tests between rows and between suites, as reports show them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.tracking.store import Store
from reports.gathering import gather_runs
from reports.gathering.context import Context
from reports.tables import detail_tables
from reports.text import findings
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import Synthetic

pytestmark = [*synthetic_runs.quiet_mlflow, pytest.mark.usefixtures("compared")]


def test_identical_translations_are_called_identical(level: Context):
    test = level.comparison(level.tracks[0], "one", "two")
    assert test is not None
    assert (test.difference, test.p, test.corrected, test.verdict, test.seeds) == (0, None, None, "identical", (1, 2))
    english_german, english_french = findings.sentences(level)
    assert "with the same translations as Two" in english_german
    assert english_french.endswith("there is nothing to compare it with.")
    assert "p" not in [entry.text for row in detail_tables.significance(level).rows for entry in row]


def test_the_highest_row_is_corrected_for_all_pairs(mixed: Context):
    """Of three rows, two are tested against the baseline; tests of the highest row are corrected for three pairs."""
    sizes = {(test.row, test.against): test.corrected_for for test in mixed.comparisons}
    assert sizes == {("low", "base"): 2, ("high", "base"): 2, ("low", "high"): 3, ("base", "high"): 3}
    caveat = findings.caveat(mixed)
    assert (
        "for 3\u00a0tests, only between rows with at least three seeds in common. The highest row was selected"
        in caveat
    )


def test_another_row_can_be_the_baseline(store: Store):
    own = gather_runs.gather(store, "later")
    other = next(row.id for row in own.rows if row.id != own.baseline)
    given = gather_runs.gather(store, "later", baseline=other)
    assert (own.baseline, given.baseline) == (own.baseline, other)
    for track in own.translations:
        there, back = own.comparison(track, other, own.baseline), given.comparison(track, own.baseline, other)
        assert (there is None) == (back is None)
        if there and back:
            assert back.difference == pytest.approx(-there.difference)
    with pytest.raises(ValueError, match="--baseline: the suite 'later' has no row 'none'; it has "):
        gather_runs.gather(store, "later", baseline="none")


def test_changes_are_paired_tests(compared: Context):
    table = detail_tables.changes(compared)
    assert table is not None
    lines = {row[0].text: [entry.text for entry in row[1:]] for row in table.rows}
    tested = next(test for test in compared.changes if test.row == "tested")
    before, now, difference, _, detectable, p, corrected, verdict, flops, latency = lines["Tested"]
    assert float(difference) == pytest.approx(float(now) - float(before), abs=0.11)
    assert tested.difference > 0
    assert float(detectable) == pytest.approx(tested.detectable, abs=0.06)
    assert (tested.corrected_for, verdict, flops, latency) == (1, "better", "×\u00a03.00", "×\u00a01.00")
    assert (p, corrected) == ("<\u00a00.001", "<\u00a00.001")
    assert lines["Same"][2:8] == ["+0.0", "0.0–0.0", "—", "—", "—", "identical"]
    assert (lines["New"][7], lines["Gone"][0]) == ("only now", "only before")


def test_times_that_were_measured_in_another_way_are_not_compared(compared: Context):
    """Those of all rows at once, on one machine, against those of jobs."""
    together = replace(compared, timed_on="A CPU, threads: 2")
    table = detail_tables.changes(together)
    assert table
    (tested,) = [row for row in table.rows if row[0].text == "Tested"]
    assert [entry.missing for entry in tested[-2:]] == [False, True]


def test_times_of_other_machines_are_not_compared(compared: Context):
    assert compared.before
    for row in compared.before.rows:
        for cell in row.cells.values():
            for run in cell.runs.values():
                run.tags["hardware.cpu"] = "an older one"
    table = detail_tables.changes(compared)
    for row in compared.before.rows:
        for cell in row.cells.values():
            for run in cell.runs.values():
                del run.tags["hardware.cpu"]
    assert table
    (tested,) = [row for row in table.rows if row[0].text == "Tested"]
    assert [entry.missing for entry in tested[-2:]] == [False, True]


def test_suites_with_other_sentences_are_not_tested(store: Store, compared: Context):
    other = gather_runs.gather(store, "earlier")
    of_rows = other.translations[other.tracks[0]].statistics["bleu"]
    for row, runs in of_rows.items():
        of_rows[row] = {seed: replace(run, reference_hash="other sentences") for seed, run in runs.items()}
    assert gather_runs._changes(compared, other) == ()
    assert gather_runs._changes(compared, compared)


def test_suites_without_a_common_seed_are_not_tested(store: Store):
    runs = [Synthetic("tested", "Tested", 2014, 2, 1e12, seed=4), Synthetic("gone", "Gone", 2013, 3, 1e12)]
    synthetic_runs.suite(store, "others", runs, "tested,gone", "tested")
    table = detail_tables.changes(gather_runs.gather(store, "later", compare_with="others"))
    assert table
    verdicts = {row[0].text: [entry.text for entry in row if not entry.missing] for row in table.rows}
    assert "no common seed" in verdicts["Tested"]
    assert verdicts["Same"][-1] == "only now"


def test_a_row_is_compared_with_itself_at_the_same_preset(store: Store):
    """The older suite has runs on the same corpus at two presets, the other preset first."""
    presets = {"small": 2, "demo": 20}
    runs = [
        Synthetic("tested", "Tested", 2014, wrong, 3e12, tags={"preset": preset}) for preset, wrong in presets.items()
    ]
    runs.append(Synthetic("gone", "Gone", 2013, 3, 1e12, tags={"preset": "small"}))
    synthetic_runs.suite(store, "presets", runs, "tested,gone", "tested")
    context = gather_runs.gather(store, "later", compare_with="presets")
    assert [(test.row, test.verdict) for test in context.changes] == [("tested", "identical")]


def test_a_row_is_tested_on_the_track_whose_numbers_are_printed(store: Store):
    """In the older suite the run at the same preset failed, and one at another preset finished."""
    runs = [
        Synthetic("tested", "Tested", 2014, 2, 3e12, tags={"preset": "small"}),
        Synthetic("tested", "Tested", 2014, 2, 3e12, status="FAILED", reason="out of memory"),
    ]
    synthetic_runs.suite(store, "halves", runs, "tested", "tested")
    context = gather_runs.gather(store, "later", compare_with="halves")
    assert context.changes == ()
    table = detail_tables.changes(context)
    assert table
    (line,) = [[entry.text for entry in row] for row in table.rows if row[0].text == "Tested"]
    assert (line[1], line[8]) == ("—", "only now")
