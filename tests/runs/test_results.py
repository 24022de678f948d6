"""The results of a suite, which grow over machines: each machine does the jobs that no other one has finished."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bench.runs.results
import bench.runs.worker
from bench.experiment.job_data import corpus_of
from bench.experiment.spec import Experiment
from bench.measures.other_code import FIRST_LOSSES_TAG, committed
from bench.runs.job import JobResult
from bench.runs.metadata import corpus_hashes
from bench.runs.results import IN_RESULTS, MAX_BYTES, Results, joined
from bench.runs.run_suite import run_suite
from bench.runs.suite import Suite
from bench.tracking import export
from bench.tracking.exported import INDEX, Export
from bench.tracking.reading import TrackedRun
from bench.tracking.speeds import Speeds
from tests.helpers import tiny_sweep, tracking_folder
from tests.helpers.threaded_workers import FakeJobs, ThreadBackend
from tests.helpers.tiny_sweep import flags, store

ROWS = ["perceptron", "mlp"]
ENSEMBLE = "gnmt-ensemble"


@pytest.fixture(scope="module", autouse=True)
def cached_parsing() -> Iterator[None]:
    with tiny_sweep.cached_parsing():
        yield


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    found = FakeJobs(lambda experiment: [1.0])
    monkeypatch.setattr(bench.runs.worker, "run", found.run)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The first machine: the folder of a suite, with text and an empty store."""
    (tmp_path / "here").mkdir()
    return tracking_folder.create_with_corpus(tmp_path / "here")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A second machine: the folder of a suite with the same results, an empty store and no text."""
    (tmp_path / "other").mkdir()
    tracking_folder.create(tmp_path / "other" / "runs")
    return tmp_path / "other"


def run(folder: Path, rows: Sequence[str], again: bool = False, export: bool = True) -> list[JobResult]:
    """Run the suite `table`, whose results lie in `results` beside the folder of the suite, with text in `folder`."""
    suite = Suite(rows=list(rows), results="../results")
    results, _ = run_suite(folder / "table.yaml", suite, flags(folder), again, ThreadBackend(1), None, export)
    return results


def results_of(folder: Path) -> Results:
    found = Results.of(folder / "table.yaml", "../results")
    assert found
    return found


def finished(results: Results) -> dict[str, TrackedRun]:
    """Job hash -> the newest finished run of the job."""
    runs = [run for export in results.exports for run in export.runs(results.suite) if run.status == "FINISHED"]
    return {run.tags["job_hash"]: run for run in sorted(runs, key=lambda run: run.started)}


def rows(experiments: Sequence[Experiment]) -> list[str]:
    return [experiment.row for experiment in experiments]


def set_tag(folder: Path, row: str, tag: str, value: str) -> None:
    """Give the run of a row in the results another tag, such as the first losses that other code would have stored."""
    changed = store(folder)
    (of_row,) = [each for each in changed.runs("table") if each.tags["row"] == row]
    changed.client.set_tag(of_row.id, tag, value)
    path = next(path for path in results_of(folder).folder.iterdir() if of_row.id[:12] in path.name)
    shutil.rmtree(path)
    export.export_run(changed, "table", of_row.id, path)


def test_another_machine_does_what_is_missing(
    folder: Path, other: Path, jobs: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(folder, ROWS)
    exported = list((folder.parent / "results").iterdir())
    assert {path.name[-12:] for path in exported} == {each.run.id[:12] for each in first if each.run}
    assert all(sum(file.stat().st_size for file in path.iterdir()) < MAX_BYTES for path in exported)
    for path in (*folder.glob("*.en"), *folder.glob("*.de")):
        shutil.copy(path, other)
    jobs.started.clear()
    capsys.readouterr()
    results = run(other, [*ROWS, "cnn"])
    assert rows(jobs.started) == ["cnn"]
    assert {each.experiment.row: each.state for each in results} == {
        "perceptron": IN_RESULTS, "mlp": IN_RESULTS, "cnn": "finished now",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "2 of 3 jobs are in the results" in printed
    assert "to do" in printed
    assert len(finished(results_of(other))) == 3


def test_nothing_is_opened_if_all_jobs_are_in_the_results(folder: Path, tmp_path: Path, jobs: FakeJobs) -> None:
    run(folder, ROWS)
    jobs.started.clear()
    without_text = tmp_path / "third"
    without_text.mkdir()
    results = run(without_text, ROWS)
    assert [each.state for each in results] == [IN_RESULTS, IN_RESULTS]
    assert list(without_text.iterdir()) == []
    assert jobs.started == []
    run(folder, ROWS, again=True, export=False)
    assert rows(jobs.started) == ROWS


def test_results_may_be_named_without_their_folder_runs(tmp_path: Path, folder: Path, jobs: FakeJobs) -> None:
    run(folder, ROWS[:1])
    (folder.parent / "table").mkdir()
    (folder.parent / "results").rename(folder.parent / "table" / "runs")
    suite = Suite(rows=ROWS, results="../table")
    run_suite(folder / "table.yaml", suite, flags(folder), False, ThreadBackend(1), None, True)
    assert len(list((folder.parent / "table" / "runs").iterdir())) == 2
    assert [path.name for path in (folder.parent / "table").iterdir()] == ["runs"]


def test_a_job_that_was_finished_before_is_exported_later(folder: Path, jobs: FakeJobs) -> None:
    run(folder, ROWS, export=False)
    assert not (folder.parent / "results").exists()
    run(folder, ROWS)
    assert len(finished(results_of(folder))) == 2


def test_members_are_exported_after_their_ensemble(
    folder: Path, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported, ended = list[str](), list[list[str]]()

    def export_run(of: object, suite: str, run_id: str, to: Path) -> Path:
        exported.append(to.name.partition("--")[0])
        ended.append(sorted(each.row for each in jobs.started))
        return export.export_run(store(folder), suite, run_id, to)

    monkeypatch.setattr(bench.runs.results, "export_run", export_run)
    run(folder, ["mlp", ENSEMBLE])
    assert exported == ["mlp", ENSEMBLE, "gnmt", "gnmt"]
    assert all(ENSEMBLE in rows_then for rows_then in ended[1:])


def test_results_of_a_text_that_has_changed_do_not_count(folder: Path, jobs: FakeJobs) -> None:
    (first, _) = run(folder, ROWS)
    now = corpus_hashes(corpus_of(first.experiment))
    set_tag(folder, "perceptron", "data", now)
    set_tag(folder, "mlp", "data", now.replace('"train": "', '"train": "0'))
    jobs.started.clear()
    results = {each.experiment.row: each.state for each in run(folder, ROWS)}
    assert (rows(jobs.started), results["perceptron"]) == (["mlp"], IN_RESULTS)


def test_members_of_a_failed_ensemble_are_exported(folder: Path, jobs: FakeJobs) -> None:
    def fails(experiment: Experiment) -> list[float]:
        if experiment.members:
            raise ArithmeticError
        return [1.0]

    jobs.curve = fails
    run(folder, [ENSEMBLE])
    assert [each.tags["row"] for each in finished(results_of(folder)).values()] == ["gnmt", "gnmt"]


def test_an_ensemble_without_the_weights_of_its_members_is_refused_at_once(
    folder: Path, other: Path, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, [ENSEMBLE])
    results = folder.parent / "results"
    shutil.rmtree(next(results.glob(f"{ENSEMBLE}-*")))
    next(results.glob("gnmt-*")).rename(results / "moved")
    jobs.started.clear()
    asks = r"gnmt-ensemble .*needs the weights of its members gnmt .*remove .*results/moved.* --again"
    with pytest.raises(ValueError, match=asks):
        run(other, [ENSEMBLE])
    assert jobs.started == []
    trained_here = SimpleNamespace(find=lambda *_: "a model")
    monkeypatch.setattr(bench.runs.results, "logged_model", trained_here)
    run(folder, [ENSEMBLE])
    assert rows(jobs.started) == [ENSEMBLE]


def test_an_interrupted_export_leaves_nothing(folder: Path, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (result, *_) = run(folder, ["mlp"], export=False)
    assert result.run
    to = folder.parent / "results" / "mlp"
    with monkeypatch.context() as patch:
        patch.setattr(export, "write_file", fail)  # the index, which is written last
        with pytest.raises(KeyboardInterrupt):
            export.export_run(store(folder), "table", result.run.id, to)
    assert list(to.parent.iterdir()) == []
    export.export_run(store(folder), "table", result.run.id, to)
    times = [file.stat().st_mtime_ns for file in to.iterdir()]
    export.export_run(store(folder), "table", result.run.id, to)
    assert [file.stat().st_mtime_ns for file in to.iterdir()] == times
    kinds = {one.run.tags["kind"] for one in Export(to).exported.values()}
    assert kinds == {"job", "suite"}


def test_an_export_that_another_command_makes_at_the_same_time_is_no_error(
    folder: Path, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (result, *_) = run(folder, ["mlp"], export=False)
    assert result.run
    run_id, to = result.run.id, folder.parent / "results" / "mlp"
    write_file, own = export.write_file, os.getpid()

    def meanwhile(*arguments: Any) -> None:
        write_file(*arguments)
        with monkeypatch.context() as patch:  # the other command
            patch.setattr(export, "write_file", write_file)
            patch.setattr(os, "getpid", lambda: own + 1)
            export.export_run(store(folder), "table", run_id, to)

    with monkeypatch.context() as patch:
        patch.setattr(export, "write_file", meanwhile)
        assert export.export_run(store(folder), "table", run_id, to) == to
    assert [path.name for path in to.parent.iterdir()] == ["mlp"]
    assert {one.run.tags["kind"] for one in Export(to).exported.values()} == {"job", "suite"}


def test_runs_of_other_code_are_marked(folder: Path, jobs: FakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, ROWS)
    set_tag(folder, "mlp", FIRST_LOSSES_TAG, json.dumps([1.0, 2.0, 3.0]))
    set_tag(folder, "perceptron", FIRST_LOSSES_TAG, json.dumps(committed()["perceptron"]))
    capsys.readouterr()
    run(folder, [*ROWS, "cnn"], export=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if "other code" in line]
    assert [line.split()[0] for line in lines] == ["mlp"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [mlp]\nresults: a\nsweeps: {mlp: s}", "results: cannot be combined with sweeps"),
        ("rows: [mlp]\nresult: a", "unknown key result; did you mean results"),
    ],
)
def test_settings_that_do_not_fit_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Suite.read(tmp_path / "table.yaml")


def test_where_nothing_can_be_added_export_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    with pytest.raises(ValueError, match="results: is not set, but --export"):
        Results.of(path, "", export=True)
    assert Results.of(path, "") is None
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / INDEX).touch()
    with pytest.raises(ValueError, match="is one export, so --export cannot add"):
        Results.of(path, "one", export=True)


def test_times_measured_together_are_those_of_the_report_of_a_suite(jobs: FakeJobs, folder: Path) -> None:
    run(folder, ROWS)
    results, path = results_of(folder), folder / "table.yaml"
    assert joined(store(folder), path, "../results").speeds_of("table") is None
    speeds = Speeds("table", {}, [])
    speeds.write(results.folder)
    for reader in (joined(store(folder), path, "../results"), joined(None, path, "../results")):
        assert reader.speeds_of("table") == speeds
        assert reader.speeds_of("another") is None
    assert finished(results_of(folder)).keys() == finished(results).keys(), "the file is no export"
