"""A store in a folder: it can be moved, copied, only read, have any name, and come from somebody else."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from bench.measures.measure import Measure
from bench.tracking.reading import FILES_TAG, MissingFile
from bench.tracking.store import Store, TrackingSettings
from bench.tracking.store_folder import StoreFolder, copy_database, sqlite_file, sqlite_uri
from tests.helpers import tracking_folder

ODD_NAMES = [
    "my%20project",
    "a b",
    "50%",
    "what?",
    "c#",
    "R&D",
    "Größe 日本",
    "own's",
    '"x"',
    "-x",
    "a;b|c$d",
    "x\ny",
    "=+:@",
]


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tracking folder with an empty store, in a folder of its own."""
    return tracking_folder.create(tmp_path / "project" / "runs")


def open_store(folder: Path, read_only: bool = False) -> Store:
    return Store(TrackingSettings(None, str(folder)), read_only=read_only)


def write_run(store: Store, suite: str = "suite") -> str:
    """Writes a finished run with two files; returns its id."""
    job = store.begin(suite, "a job", {"job_hash": "abc"})
    job.text("{}", "corpus_stats.json")
    job.measures([Measure("test/bleu", 30.0, "percent")])
    job.finish("FINISHED")
    return job.id


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("how", ["moved", "copied", "replaced"])
def test_a_folder_can_be_moved_and_copied(folder: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    run_id = write_run(open_store(folder))
    old, new = folder.parent, folder.parent.with_name("a new name")
    if how == "copied":
        shutil.copytree(old, new)
    else:
        old.rename(new)
    if how == "replaced":  # something else is at the old path
        (old / "runs" / "artifacts" / "suite").mkdir(parents=True)
    before = files(old) if old.exists() else []

    reader = open_store(new / "runs", read_only=True)
    (run,) = reader.runs("suite")
    assert [measure.value for measure in reader.measures(run)] == [30.0]
    assert run.artifacts == (new / "runs" / "artifacts" / "suite" / run_id / "artifacts").as_uri()
    assert caplog.messages == []

    store = open_store(new / "runs")
    assert caplog.messages == [f"the store was moved from {folder} to {new}/runs: its recorded addresses are updated"]
    second = write_run(store)
    resumed = store.resume(run_id)
    resumed.text("{}", "later.json")
    resumed.finish("FINISHED")
    assert (files(old) if old.exists() else []) == before, "nothing is written to the old path"
    here = new / "runs" / "artifacts" / "suite"
    assert sorted(path.name for path in here.iterdir()) == sorted([run_id, second])
    assert (here / run_id / "artifacts" / "later.json").is_file()
    caplog.clear()
    assert MlflowClient(store.uri).get_run(run_id).info.artifact_uri == (here / run_id / "artifacts").as_uri()
    open_store(new / "runs")
    assert caplog.messages == []


def test_files_that_only_the_recorded_address_has_are_found(folder: Path) -> None:
    """The database was copied alone, or its artifacts are in the tracking folder of an earlier version."""
    run_id = write_run(open_store(folder))
    other = folder.parent / "other"
    other.mkdir()
    for file in folder.glob("mlflow.db*"):  # the log too, which an open store has not yet moved into the database
        shutil.copy(file, other)
    reader = open_store(other, read_only=True)
    assert [measure.value for measure in reader.measures(reader.run(run_id))] == [30.0]
    with pytest.raises(ValueError, match="nothing is read or written there"):
        open_store(other).resume(run_id).text("{}", "later.json")
    earlier = Store(TrackingSettings(sqlite_uri(other / "mlflow.db"), str(folder)))
    earlier.resume(run_id).text("{}", "later.json")
    assert (folder / "artifacts" / "suite" / run_id / "artifacts" / "later.json").is_file()


def test_a_missing_file_is_an_error_that_names_it(folder: Path) -> None:
    store = open_store(folder)
    run = store.run(write_run(store))
    assert run.tags[FILES_TAG] == '["corpus_stats.json"]'
    assert store.read_json(run, "never_written.json") == {}
    artifacts = folder / "artifacts" / "suite" / run.id / "artifacts"
    (artifacts / "measures.json").write_text('{"columns": ["met')
    with pytest.raises(MissingFile, match=rf"^{artifacts}/measures\.json: .* missing or incomplete, .*{run.id}"):
        store.measures(run)
    (artifacts / "corpus_stats.json").write_text('{"a": ')
    with pytest.raises(MissingFile, match=rf"^{artifacts}/corpus_stats\.json: .* missing or incomplete"):
        store.read_json(run, "corpus_stats.json")
    shutil.rmtree(folder / "artifacts")
    with pytest.raises(MissingFile, match=rf"^{artifacts}/measures\.json: "):
        store.measures(run)
    with pytest.raises(MissingFile, match=rf"^{artifacts}/corpus_stats\.json: "):
        store.read_json(run, "corpus_stats.json")
    unfinished = store.begin("suite", "another job", {"job_hash": "def"})
    assert store.measures(store.run(unfinished.id)) == []


def test_a_missing_file_of_a_folder_is_an_error(folder: Path) -> None:
    store = open_store(folder)
    job = store.begin("suite", "a job", {"job_hash": "abc"})
    job.text("{}", "attention/a-sentence.json")
    job.finish("FINISHED")
    run = store.run(job.id)
    assert store.list_files(run, "attention") == ["a-sentence.json"]
    shutil.rmtree(folder / "artifacts")
    with pytest.raises(MissingFile, match=r"attention/a-sentence\.json"):
        store.list_files(run, "attention")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_legal_file_name_is_that_of_a_tracking_folder(name: str, tmp_path: Path) -> None:
    folder = tracking_folder.create(tmp_path / name / "runs")
    store = open_store(folder)
    run_id = write_run(store, suite=name)
    (found,) = open_store(folder, read_only=True).runs(name)
    assert found.id == run_id
    assert [measure.value for measure in store.measures(found)] == [30.0]
    assert (folder / "artifacts" / name / run_id / "artifacts" / "measures.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name], "no stray folder"
    assert store.suites() == [name]


def test_a_new_store_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    folder = tmp_path / "50%25 what?" / "runs"
    write_run(open_store(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["50%25 what?"]
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".db") == ["mlflow.db"]


@pytest.mark.parametrize("name", [*ODD_NAMES, "plain"])
def test_the_uri_of_a_file_names_the_file(name: str) -> None:
    path = Path("/folder") / name / "mlflow.db"
    assert sqlite_file(sqlite_uri(path)) == path


def test_other_uris_name_no_file() -> None:
    for uri in ("http://127.0.0.1:5000", "postgresql://user@host/name", "databricks", "sqlite://", "http://[::1]:5000"):
        assert sqlite_file(uri) is None
    assert sqlite_file("sqlite:///runs/mlflow.db") == Path("runs/mlflow.db")


def test_reading_leaves_the_folder_as_it_was(folder: Path) -> None:
    write_run(open_store(folder))
    for path in folder.glob("*.lock"):
        path.unlink()
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    reader = open_store(folder, read_only=True)
    assert reader.suites() == ["suite"]
    assert reader.parent_run("suite") is None
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_reading_sees_what_a_live_writer_has_in_its_log(folder: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute(
            "INSERT INTO experiments (name, lifecycle_stage, workspace) VALUES ('live', 'active', 'default')"
        )
        writer.commit()
        writer.execute(
            "INSERT INTO experiments (name, lifecycle_stage, workspace) VALUES ('open', 'active', 'default')"
        )
        copies = tmp_path / "copies"
        copies.mkdir()
        with contextlib.closing(sqlite3.connect(copy_database(folder / "mlflow.db", copies))) as copy:
            names = {name for (name,) in copy.execute("SELECT name FROM experiments")}
    assert "live" in names
    assert "open" not in names, "not committed"


def test_a_database_that_never_rests_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlflow.db"
    monkeypatch.setattr("bench.tracking.store_folder.COPY_RETRY_SECONDS", 0.0)
    copyfile, count = shutil.copyfile, iter(range(1000))

    def changing(source: str, target: str) -> None:
        path.write_text("x" * next(count))
        copyfile(source, target)

    path.write_text("")
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(shutil, "copyfile", changing)
    with pytest.raises(ValueError, match=r"mlflow\.db changes too fast"):
        copy_database(path, tmp_path / "copies")


@pytest.mark.parametrize("what", ["address", "dots", "link", "deeper link"])
def test_nothing_is_written_outside_of_a_store_that_somebody_else_made(folder: Path, tmp_path: Path, what: str) -> None:
    store = open_store(folder)
    run_id = write_run(store)
    victim = tmp_path / "victim"
    shutil.copytree(folder / "artifacts" / "suite" / run_id / "artifacts", victim)
    before = files(victim)
    artifacts = folder / "artifacts" / "suite" / run_id / "artifacts"
    if what.endswith("link"):
        replaced = artifacts if what == "link" else artifacts / "deeper"
        shutil.rmtree(replaced, ignore_errors=True)
        replaced.symlink_to(victim)
    else:
        address = victim.as_uri() if what == "address" else f"{folder.as_uri()}/artifacts/../../../victim"
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
            connection.execute("UPDATE runs SET artifact_uri = ?", (address,))
    writer = open_store(folder).resume(run_id)
    with pytest.raises(Exception, match=r"nothing is read or written there|[Pp]ath"):
        writer.text("{}", "deeper/new.json")
    assert files(victim) == before


def test_a_database_that_is_a_link_is_read_only(folder: Path, tmp_path: Path) -> None:
    write_run(open_store(folder))
    link = tmp_path / "link" / "mlflow.db"
    link.parent.mkdir()
    link.symlink_to(folder / "mlflow.db")
    assert open_store(link.parent, read_only=True).suites() == ["suite"]
    with pytest.raises(ValueError, match="nothing is read or written there"):
        open_store(link.parent)


@pytest.mark.parametrize("address", ["/elsewhere/a", "FILE:///elsewhere/a", "s3://bucket/a"])
def test_nothing_is_written_to_an_address_that_is_no_file_beside_the_database(folder: Path, address: str) -> None:
    """The database may come from somebody else."""
    with pytest.raises(ValueError, match=rf"its database says that files are at {address}, which is no file: address"):
        StoreFolder(folder / "mlflow.db", folder).locate_for_writing(address)
