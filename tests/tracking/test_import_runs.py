"""Runs that are moved from one SQLite store to another (tests/journeys/test_move_runs.py: to a server and back)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from bench.measures.measure import Measure
from bench.tracking import export, exported, import_runs, logged_model, ui_view
from bench.tracking.import_runs import ImportResult
from bench.tracking.reading import LEFT_OUT_TAG, TrackedRun
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import DESCRIPTION_TAG, PARENT_TAG, Store
from tests.helpers.tracking_folder import new_store


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def origin(tmp_path: Path) -> Store:
    """A store with a suite of two jobs, one of which names the other as its member, and a view."""
    store = new_store(tmp_path / "origin")
    parent = store.start_parent("pair", {"rows": "a,b", "question": "What?"})
    member = add_job(store, "a", parent)
    ensemble = add_job(store, "b", parent, {"members": json.dumps([member])})
    store.end(parent, "FINISHED")
    text = ui_view.suite_description("What?", store.experiment_id("pair"), ensemble)
    store.set_view("pair", "suite", ui_view.suite_view(["test/bleu"]), text)
    return store


def add_job(store: Store, row: str, parent: str, tags: Mapping[str, str] | None = None) -> str:
    job = store.begin("pair", f"{row} en-de s1", {"row": row, "job_hash": row * 16, **(tags or {})}, parent)
    job.params({f"key{number}": number for number in range(150)})
    job.datasets({"test": "ab" * 32}, "toy-en-de", {"test": "{}"})
    job.curve([(step, "validation/loss", 1 / step) for step in range(1, 20)])
    job.table({"source": ["A cat."], "hypothesis": ["Eine Katze."]}, "hypotheses/test.json")
    job.text(json.dumps({"run": job.id}), "importance.json")
    job.measures([Measure("test/bleu", 31.5, "percent", 30.0, 33.0), Measure("params", 2**60 + 1, "parameters")])
    job.finish("FINISHED")
    return job.id


def add_model(store: Store, folder: Path) -> str:
    """A finished job with a model, whose settings, tags and files have paths of the machine and a password."""
    parent = store.parent_run("pair")
    tags = {key: key for key in logged_model.COPIED_TAGS if key != "suite"} | {
        "row": "m",
        "command": "bench run '/home/jane doe/x/a.yaml' --seed 1",
        "reason": "OSError: /home/jane/runs/x: no space",
    }
    job = store.begin("pair", "m en-de s1", tags, parent.id if parent else None)
    job.params({"decoding.beam": 5, "corpus.train": "['/home/jane/c/a.en']", "tracking.uri": "http://jane:secret@h"})
    job.text("corpus: {train: [/home/jane/c/a.en]}\ntracking: {uri: 'http://jane:secret@h'}\n", "config.yaml")
    job.datasets({"test": "ab" * 32}, "toy-en-de", {"test": "{}"})
    folder.mkdir()
    for name in logged_model.TRANSLATOR_FILES:
        (folder / name).write_text("tracking: {uri: 'http://jane:secret@h'}" if name == "config.yaml" else "0123456789")
    job.model(folder, "A cat.", 5)
    job.measures([Measure("test/bleu", 31.5, "percent", provenance="read from /home/jane/c/a.en")])
    job.finish("FINISHED")
    return job.id


def move(source: Store, target: Store, folder: Path, artifacts: bool = False) -> ImportResult:
    export.export(source, folder, export.exportable(source), artifacts)
    return import_runs.import_runs(target, [exported.Export(folder)])


def content(store: Store, run: TrackedRun) -> dict[str, Any]:
    """Everything of a run that must be equal in another store."""
    raw = store.client.get_run(run.id)
    history = {
        name: [(point.step, point.value, point.timestamp) for point in store.client.get_metric_history(run.id, name)]
        for name in run.metrics
    }
    datasets = raw.inputs.dataset_inputs if raw.inputs else []
    inputs = [(one.dataset.name, one.dataset.digest) for one in datasets]
    ours = {key: value for key, value in run.tags.items() if not key.startswith(("mlflow.", "attention_ladder."))}
    ours.pop("members", None)
    times = raw.info.start_time, raw.info.end_time
    return {"name": run.name, "status": run.status, "times": times, "tags": ours, "params": run.params} | {
        "history": history,
        "inputs": inputs,
        "measures": store.measures(run),
    }


def test_a_moved_suite_has_everything_under_new_ids(origin: Store, tmp_path: Path) -> None:
    target = new_store(tmp_path / "target")
    assert move(origin, target, tmp_path / "export") == ImportResult(3, 0, ["pair"])
    here, there = ({run.tags["row"]: run for run in store.runs("pair")} for store in (target, origin))
    assert here.keys() == there.keys() == {"a", "b"}
    for row, run in here.items():
        assert content(target, run) == content(origin, there[row])
    parent = target.parent_run("pair")
    assert parent
    assert (parent.status, parent.tags["question"]) == ("FINISHED", "What?")
    assert {run.tags[PARENT_TAG] for run in here.values()} == {parent.id}
    assert json.loads(here["b"].tags["members"]) == [here["a"].id]
    assert target.read_json(here["a"], "importance.json") == {"run": here["a"].id}
    tags = target.client.get_experiment(target.experiment_id("pair")).tags
    assert tags[ui_view.tag("suite")] == ui_view.suite_view(["test/bleu"])
    assert f"#/experiments/{target.experiment_id('pair')}/runs/{here['b'].id}" in tags[DESCRIPTION_TAG]
    assert target.hypotheses(here["a"], "test").empty, "the export has no sentences"


def test_artifacts_are_moved_on_request(origin: Store, tmp_path: Path) -> None:
    target = new_store(tmp_path / "target")
    move(origin, target, tmp_path / "export", artifacts=True)
    for run in target.runs("pair"):
        assert list(target.hypotheses(run, "test")["hypothesis"]) == ["Eine Katze."]


def test_an_import_can_be_repeated_and_goes_home(origin: Store, tmp_path: Path) -> None:
    target = new_store(tmp_path / "target")
    move(origin, target, tmp_path / "export")
    assert move(origin, target, tmp_path / "export") == ImportResult(0, 3, ["pair"])
    before = {run.id for run in origin.runs("pair")}
    assert move(target, origin, tmp_path / "back") == ImportResult(0, 3, ["pair"]), "these runs were made here"
    assert {run.id for run in origin.runs("pair")} == before


def test_runs_of_two_machines_join_under_one_suite(origin: Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other")
    add_job(other, "c", other.start_parent("pair", {"rows": "c"}))
    target = new_store(tmp_path / "target")
    move(origin, target, tmp_path / "first")
    assert move(other, target, tmp_path / "second") == ImportResult(1, 1, ["pair"])
    parent = target.parent_run("pair")
    assert parent
    assert [(run.tags["row"], run.tags[PARENT_TAG]) for run in target.runs("pair")] == [
        (row, parent.id) for row in ("c", "b", "a")
    ]


@pytest.mark.parametrize("whole_first", [True, False])
def test_the_part_of_a_suite_does_not_describe_it(whole_first: bool, origin: Store, tmp_path: Path) -> None:
    """On another machine, somebody ran one row last, with itself as baseline."""
    other = new_store(tmp_path / "other")
    add_job(other, "c", other.start_parent("pair", {"rows": "c", "baseline": "c", "about": json.dumps({"c": {}})}))
    whole = origin.parent_run("pair")
    assert whole
    origin.client.set_tag(whole.id, "baseline", "b")
    origin.client.set_tag(whole.id, "about", json.dumps({"a": {}, "b": {}}))
    target = new_store(tmp_path / "target")
    for number, store in enumerate((origin, other) if whole_first else (other, origin)):
        move(store, target, tmp_path / str(number))
    parent = target.parent_run("pair")
    assert parent
    assert (parent.tags["rows"], parent.tags["baseline"]) == ("a,b", "b")
    together = new_store(tmp_path / "together")
    exports = exported.read_exports([tmp_path / "0", tmp_path / "1"])
    import_runs.import_runs(together, exports)
    parent = together.parent_run("pair")
    assert parent
    assert (parent.tags["rows"], parent.tags["baseline"]) == ("a,b", "b")
    assert json.loads(parent.tags["about"]).keys() == {"a", "b", "c"}


def test_an_interrupted_import_continues(origin: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = new_store(tmp_path / "target")
    write, calls = import_runs._write_files, iter(range(9))

    def interrupt(*arguments: Any) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(import_runs, "_write_files", interrupt)
        with pytest.raises(KeyboardInterrupt):
            move(origin, target, tmp_path / "export")
    assert move(origin, target, tmp_path / "export") == ImportResult(2, 1, ["pair"])
    assert sorted(run.tags["row"] for run in target.runs("pair")) == ["a", "b"]
    parent = target.parent_run("pair")
    assert parent
    assert {run.tags[PARENT_TAG] for run in target.runs("pair")} == {parent.id}


def test_a_running_run_has_ended_in_the_other_store(origin: Store, tmp_path: Path) -> None:
    origin.resume(origin.runs("pair")[0].id)
    target = new_store(tmp_path / "target")
    move(origin, target, tmp_path / "export")
    assert sorted(run.status for run in target.runs("pair")) == ["FINISHED", "KILLED"]


def test_paths_persons_and_passwords_stay(origin: Store, tmp_path: Path) -> None:
    add_model(origin, tmp_path / "model")
    export.export(origin, tmp_path / "export", ["pair"], artifacts=True)
    tables = str([parquet.read_table(path).to_pylist() for path in (tmp_path / "export").glob("*.parquet")])
    others = [path for path in (tmp_path / "export").rglob("*") if path.is_file() and path.suffix != ".parquet"]
    for private in ("jane", "secret", str(tmp_path)):
        assert private not in tables
        assert not any(private.encode() in path.read_bytes() for path in others)
    assert "bench run a.yaml --seed 1" in tables
    assert "OSError: x: no space" in tables
    (run,) = (run for run in exported.Export(tmp_path / "export").runs("pair") if run.tags["row"] == "m")
    assert run.params["corpus.train"] == "['a.en']"


def test_a_model_keeps_its_scores_and_their_data_set(origin: Store, tmp_path: Path) -> None:
    job = add_model(origin, tmp_path / "model")
    target = new_store(tmp_path / "target")
    move(origin, target, tmp_path / "export", artifacts=True)
    (run,) = (run for run in target.runs("pair") if run.tags["row"] == "m")
    old, new = logged_model.find(origin.client, job), logged_model.find(target.client, run.id)
    assert old
    assert new
    for model in (old, new):
        assert [(one.key, one.value, one.dataset_name) for one in model.metrics or ()] == [
            ("test/bleu", 31.5, "toy-en-de/test")
        ]
    assert (new.name, new.tags, new.source_run_id) == (old.name, old.tags, run.id)
    translator = target.download_translator(run, tmp_path)
    assert translator
    assert (translator / "weights.pt").read_text() == "0123456789"


def test_a_folder_of_results_becomes_one_suite(origin: Store, tmp_path: Path) -> None:
    """Each job was exported on its own while the suite ran, and the ensemble comes before its member.

    A suite that was started again on another machine has a run of its own there.
    """
    parent = origin.parent_run("pair")
    assert parent
    for run in origin.runs("pair"):
        folder = {"a": "2-member", "b": "1-ensemble"}[run.tags["row"]]
        export.export_run(origin, "pair", run.id, tmp_path / "runs" / folder)
    exports = exported.read_exports([tmp_path / "runs"])
    for each, parent_id in zip(exports, (parent.id, "f" * 32), strict=True):
        of_suite = each.exported.pop(parent.id)
        each.exported[parent_id] = replace(of_suite, run=replace(of_suite.run, id=parent_id, status="RUNNING"))
        for one in each.exported.values():
            if PARENT_TAG in one.run.tags:
                one.run.tags[PARENT_TAG] = parent_id
    target = new_store(tmp_path / "target")
    assert import_runs.import_runs(target, exports) == ImportResult(3, 1, ["pair"])
    assert import_runs.import_runs(target, exports) == ImportResult(0, 4, ["pair"])
    here = {run.tags["row"]: run for run in target.runs("pair")}
    assert here["b"].tags["members"] == json.dumps([here["a"].id])
    moved = target.parent_run("pair")
    assert moved
    assert moved.status == "FINISHED"
    assert {run.tags[PARENT_TAG] for run in here.values()} == {moved.id}


def test_nothing_but_the_weights_of_a_foreign_model_is_taken(origin: Store, tmp_path: Path) -> None:
    """`mlflow models serve` executes the code of a model, and a link may lead to a file that nobody should publish."""
    model = tmp_path / "export" / "models" / add_model(origin, tmp_path / "model")
    export.export(origin, tmp_path / "export", ["pair"], artifacts=True)
    (model / "serving.py").write_text("print('of somebody else')")
    (tmp_path / "key").write_text("private")
    (model / "notes.txt").symlink_to(tmp_path / "key")
    target = new_store(tmp_path / "target")
    import_runs.import_runs(target, [exported.Export(tmp_path / "export")])
    files = [path.read_bytes() for path in (tmp_path / "target").rglob("*") if path.is_file()]
    assert not any(b"of somebody else" in content or content == b"private" for content in files)
    (model / "weights.pt").unlink()
    (model / "weights.pt").symlink_to(tmp_path / "key")
    with pytest.raises(ValueError, match="nothing is read or written there"):
        import_runs.import_runs(new_store(tmp_path / "other"), [exported.Export(tmp_path / "export")])


def test_incomplete_weights_are_refused(origin: Store, tmp_path: Path) -> None:
    job = add_model(origin, tmp_path / "model")
    export.export(origin, tmp_path / "export", ["pair"], artifacts=True)
    (tmp_path / "export" / "models" / job / "weights.pt").write_text("0123")
    with pytest.raises(ValueError, match=r"weights\.pt: incomplete or changed: its SHA-256"):
        import_runs.import_runs(new_store(tmp_path / "target"), [exported.Export(tmp_path / "export")])


def test_a_run_whose_import_was_interrupted_is_not_exported(
    origin: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle, last = new_store(tmp_path / "middle"), new_store(tmp_path / "last")
    with monkeypatch.context() as patched:
        patched.setattr(import_runs, "_write_files", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            move(origin, middle, tmp_path / "first")
    export.export(middle, tmp_path / "second", ["pair"])
    assert exported.Export(tmp_path / "second").exported == {}
    import_runs.import_runs(last, [exported.Export(tmp_path / "second")])
    assert last.suites() == []


def test_links_to_experiments_lead_to_those_of_the_new_store(origin: Store, tmp_path: Path) -> None:
    target = new_store(tmp_path / "target")
    for name in ("x", "y", "z"):  # so that numbers of experiments differ
        target.experiment_id(name)
    study = origin.start_parent("tune", {"row": "a"}, study="s")
    here = f"#/experiments/{origin.experiment_id('tune')}/runs/{study}"
    RunWriter(origin.client, study).tag({DESCRIPTION_TAG: f"[trial]({here}), [there](http://host/{here})"})
    move(origin, target, tmp_path / "export")
    (moved,) = target.studies("tune")
    new = f"#/experiments/{target.experiment_id('tune')}/runs/{moved.id}"
    assert moved.tags[DESCRIPTION_TAG].startswith(f"[trial]({new}), ")
    assert f"http://host/#/experiments/{origin.experiment_id('tune')}/" in moved.tags[DESCRIPTION_TAG]


def test_studies_of_several_sweeps_have_the_order_of_the_store(origin: Store, tmp_path: Path) -> None:
    """A report shows the newest study of a row, whichever sweep it belongs to."""
    for sweep, study in (("b", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("a", "5")):
        origin.start_parent(sweep, {"row": "a"}, study=study)
        time.sleep(0.002)  # times in MLflow are milliseconds
    export.export(origin, tmp_path / "export", ["pair"])
    assert [study.name for study in exported.Export(tmp_path / "export").studies()] == ["5", "4", "3", "2", "1"]


def test_a_later_export_brings_the_end_of_a_run_and_its_files(origin: Store, tmp_path: Path) -> None:
    job = origin.runs("pair")[0]
    origin.resume(job.id)
    target = new_store(tmp_path / "target")
    move(origin, target, tmp_path / "first")
    before = {run.id for run in target.runs("pair")}
    origin.end(job.id, "FINISHED")
    assert move(origin, target, tmp_path / "second", artifacts=True).added == 0
    runs = target.runs("pair")
    assert {run.id for run in runs} == before
    assert [run.status for run in runs] == ["FINISHED", "FINISHED"]
    assert not any(target.hypotheses(run, "test").empty or LEFT_OUT_TAG in run.tags for run in runs)
    move(origin, target, tmp_path / "third")  # an export with less changes nothing
    assert not any(target.hypotheses(run, "test").empty or LEFT_OUT_TAG in run.tags for run in target.runs("pair"))
