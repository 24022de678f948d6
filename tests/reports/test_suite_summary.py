"""What the run of a suite shows in MLflow: the comparison with links, and metrics of the whole suite."""

from __future__ import annotations

import re
import statistics
from dataclasses import replace

import pytest

from bench.tracking.store import Store
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.text import suite_summary
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import Synthetic

pytestmark = [*synthetic_runs.quiet_mlflow]


def test_the_description_links_every_run_and_the_report(level: Context) -> None:
    runs = [run.id for row in level.rows for cell in row.cells.values() for run in cell.runs.values()]
    text = suite_summary.description(level, level.experiment, "parent", runs[1:])
    assert re.findall(r"\(#/experiments/\d+/runs/(\w+)\)", text) == runs[1:], "the first one is of another machine"
    text = suite_summary.description(level, level.experiment, "parent", runs)
    assert re.findall(r"\(#/experiments/\d+/runs/(\w+)\)", text) == runs
    assert f"(#/experiments/{level.experiment}/runs/parent/artifacts/report/report.html)" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(level.rows)
    assert len({line.count(" | ") for line in (lines[0], *lines[2:])}) == 1, "each line has the same cells"


def test_a_long_description_is_cut_between_rows(level: Context) -> None:
    many = replace(level, rows=level.rows * 100)
    runs = {run.id for row in level.rows for cell in row.cells.values() for run in cell.runs.values()}
    text = suite_summary.description(many, many.experiment, "parent", runs)
    assert len(text) < 8000
    left_out = re.search(r"\| \.\.\. (\d+)\s+rows", text)
    assert left_out
    assert int(left_out[1]) + text.count("](#/experiments") > len(many.rows)


def test_a_question_that_fills_the_description_leaves_no_row(level: Context) -> None:
    full = replace(level, question="Why? " * 2000)
    text = suite_summary.description(full, full.experiment, "parent", ())
    assert re.search(rf"\| \.\.\. {len(level.rows)}\s+rows", text)


def test_metrics_of_a_suite(level: Context, mixed: Context) -> None:
    track, row = level.tracks[0], level.row("two")
    found = suite_summary.metrics(level)
    number = row.cells[track].number("bleu", "test")
    assert number is not None
    seeds = [value for value in number.seeds.values() if value is not None]
    assert len(seeds) == 2
    assert found["two/en-de/bleu_mean"] == pytest.approx(number.value)
    assert found["two/en-de/bleu_sd"] == pytest.approx(statistics.stdev(seeds))
    best = level.scored(track)[0].cells[track].value("bleu", "test")
    assert found["best_bleu/en-de"] == best
    flops = [run.metrics["train_flops"] for r in mixed.rows for c in r.cells.values() for run in c.runs.values()]
    assert suite_summary.metrics(mixed)["total_train_flops"] == pytest.approx(sum(flops))


def test_rows_are_counted_once_and_a_partial_cost_is_no_total(store: Store) -> None:
    runs = [
        Synthetic("one", "One", 2015, 5, 1e12, seed, corpus, costs={"energy_j": 100.0} if seed == 1 else {})
        for corpus in ("toy-en-de", "toy-en-fr")
        for seed in (1, 2)
    ]
    runs.append(Synthetic("two", "Two", 2016, 5, 1e12, status="FAILED", reason="Diverged"))
    synthetic_runs.suite(store, "counted", runs, "one,two", "one")
    found = suite_summary.metrics(gather(store, "counted"))
    assert (found["rows_finished"], found["rows_failed"]) == (1, 1)
    assert found["total_train_flops"] == 4e12
    assert "total_energy_j" not in found
