"""What a suite records of its plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bench.runs.suite
from bench.experiment.spec import Experiment
from bench.runs.job import JobResult
from bench.runs.suite import Suite, run_suite
from bench.tracking.reading import PLAN_TAG
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import synthetic_runs, tiny_job
from tests.helpers.threaded_workers import FakeJobs

pytestmark = [*synthetic_runs.quiet_mlflow]


@pytest.mark.parametrize("planned", [100.0, None])
def test_a_suite_prints_and_records_the_planned_and_the_real_time(
    planned: float | None, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = FakeJobs(lambda experiment: [1.0])

    def run(experiment: Experiment, store: Store, suite: str, **named: Any) -> JobResult:
        return jobs.run(experiment, store, suite, **named, on_status=lambda status: False, trial=None)

    monkeypatch.setattr(bench.runs.suite, "run", run)
    monkeypatch.setattr(bench.runs.suite, "_planned_seconds", lambda *_: planned)
    flags = [*tiny_job.corpus_flags(folder), "--text.vocabulary_size", "90", "--tracking.folder", str(folder / "runs")]
    run_suite(folder / "table.yaml", Suite(rows=["mlp"]), flags, False)
    printed = capsys.readouterr().out.replace("\u00a0", " ")
    assert ("planned 2 min, took " in printed) is (planned is not None)
    parent = Store(TrackingSettings(None, str(folder / "runs"))).parent_run("table")
    assert parent
    recorded = json.loads(parent.tags[PLAN_TAG])
    assert recorded["planned_s"] == planned
    assert (recorded["took_s"] is None) is (planned is None)
