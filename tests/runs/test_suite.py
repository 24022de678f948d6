"""The jobs of a suite, and what it records of its plan."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import bench.runs.run_suite
import bench.runs.worker
from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.runs.job import JobResult
from bench.runs.run_suite import run_suite
from bench.runs.suite import Suite
from bench.runs.worker_pool import MAX_ATTEMPTS
from bench.tracking.reading import PLAN_TAG
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import synthetic_runs, tiny_job
from tests.helpers.threaded_workers import FakeJobs, ThreadBackend, WorkerKilled

pytestmark = [*synthetic_runs.quiet_mlflow]


def flags(folder: Path) -> list[str]:
    return [*tiny_job.corpus_flags(folder), "--text.vocabulary_size", "90", "--tracking.folder", str(folder / "runs")]


def test_jobs_go_corpus_by_corpus_then_seed_by_seed() -> None:
    suite = Suite(
        rows=["deep-att", "deep-att-ensemble", "lstm"],
        corpora=["grammar-en-de", "grammar-en-fr"],
        seeds=[1],
        more_seeds={"lstm": [3, 1], "deep-att": [3]},
    )
    jobs = suite.experiments([])
    german = [
        ("deep-att", 1),
        ("deep-att", 2),  # of the ensemble
        ("deep-att-ensemble", 1),
        ("lstm", 1),
        ("deep-att", 3),
        ("lstm", 3),
    ]
    assert [(job.row, job.seed) for job in jobs] == 2 * german
    assert [job.direction for job in jobs] == 6 * ["en-de"] + 6 * ["en-fr"]


def test_a_job_of_a_suite_is_the_job_that_its_settings_describe() -> None:
    suite = Suite(rows=["moe"], corpora=["grammar-en-fr"], seeds=[2, 3], settings={"training": {"clip": 0.5}})
    flags = ["--text.vocabulary_size", "90"]
    for job, seed in zip(suite.experiments(flags), suite.seeds, strict=True):
        layers = [{"training": {"clip": 0.5}}, {"corpus": {"name": "grammar-en-fr"}}, {"seed": seed}]
        assert job == resolve(row_files()["moe"], row="moe", suite=layers, flags=flags)


@pytest.mark.parametrize("seeds", [{"seeds": [0]}, {"more_seeds": {"deep-att-ensemble": [2, 0]}}])
def test_a_seed_without_members_is_refused(seeds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="seed: 0 is too small; at least 1"):
        Suite(rows=["deep-att-ensemble"], **seeds).experiments([])


def test_further_seeds_of_a_row_that_the_suite_has_not_give_one_line(tmp_path: Path) -> None:
    file = tmp_path / "table.yaml"
    file.write_text("rows: [mlp, lstm]\nmore_seeds: {lstn: [2]}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"table\.yaml: no row 'lstn', did you mean lstm\?"):
        Suite.read(file)


def failing(row: str, error: BaseException) -> FakeJobs:
    """Jobs of which those of one row raise an error."""

    def curve(experiment: Experiment) -> list[float]:
        if experiment.row == row:
            raise error
        return [1.0]

    return FakeJobs(curve)


def test_a_failed_row_does_not_stop_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = failing("mlp", KeyError("no such word"))

    def run(experiment: Experiment, store: Store, suite: str, **named: Any) -> JobResult:
        return jobs.run(experiment, store, suite, **named, on_status=lambda status: False, trial=None)

    monkeypatch.setattr(bench.runs.run_suite, "run", run)
    results, completed = run_suite(folder / "table.yaml", Suite(rows=["mlp", "cnn"]), flags(folder), False)
    assert completed
    assert [(result.experiment.row, result.state) for result in results] == [("mlp", "failed"), ("cnn", "finished now")]
    parent = Store(TrackingSettings(None, str(folder / "runs"))).parent_run("table")
    assert parent
    assert parent.status == "FAILED"


def test_a_job_that_loses_three_workers_has_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = failing("mlp", WorkerKilled())
    monkeypatch.setattr(bench.runs.worker, "run", jobs.run)
    suite = Suite(rows=["mlp", "cnn"])
    results, completed = run_suite(folder / "table.yaml", suite, flags(folder), False, ThreadBackend(1))
    assert completed
    assert {result.experiment.row: result.state for result in results} == {"mlp": "failed", "cnn": "finished now"}
    assert [experiment.row for experiment in jobs.started].count("mlp") == MAX_ATTEMPTS == 3


@pytest.mark.parametrize("planned", [100.0, None])
def test_a_suite_prints_and_records_the_planned_and_the_real_time(
    planned: float | None, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = FakeJobs(lambda experiment: [1.0])

    def run(experiment: Experiment, store: Store, suite: str, **named: Any) -> JobResult:
        return jobs.run(experiment, store, suite, **named, on_status=lambda status: False, trial=None)

    monkeypatch.setattr(bench.runs.run_suite, "run", run)
    monkeypatch.setattr(bench.runs.run_suite, "_planned_seconds", lambda *_: planned)
    run_suite(folder / "table.yaml", Suite(rows=["mlp"]), flags(folder), False)
    printed = capsys.readouterr().out.replace("\u00a0", " ")
    assert ("planned 2 min, took " in printed) is (planned is not None)
    parent = Store(TrackingSettings(None, str(folder / "runs"))).parent_run("table")
    assert parent
    recorded = json.loads(parent.tags[PLAN_TAG])
    assert recorded["planned_s"] == planned
    assert (recorded["took_s"] is None) is (planned is None)


def test_the_plan_of_a_suite_that_continues_a_job_is_not_compared_with_its_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan is of whole jobs."""
    jobs = FakeJobs(lambda experiment: [1.0])

    def run(experiment: Experiment, store: Store, suite: str, **named: Any) -> JobResult:
        return jobs.run(experiment, store, suite, **named, on_status=lambda status: False, trial=None)

    monkeypatch.setattr(bench.runs.run_suite, "run", run)
    monkeypatch.setattr(bench.runs.run_suite, "_planned_seconds", lambda *_: 100.0)
    suite, store = Suite(rows=["mlp"]), Store(TrackingSettings(None, str(folder / "runs")))
    (experiment,) = suite.experiments(flags(folder))
    writer = store.begin("table", experiment.name, {"job_hash": experiment.job_hash}, None)
    writer.finish("KILLED")
    run_suite(folder / "table.yaml", suite, flags(folder), False)
    printed = capsys.readouterr().out.replace("\u00a0", " ")
    assert re.search("planned 2 min for whole jobs, took .*: 1 job had begun before", printed)
    parent = store.parent_run("table")
    assert parent
    assert json.loads(parent.tags[PLAN_TAG])["took_s"] is None
