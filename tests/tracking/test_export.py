"""Exports that replace an earlier one in the same folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.measures.measure import Measure
from bench.tracking import export
from bench.tracking.exported import Export, read_exports
from bench.tracking.store import Store
from tests.helpers.tracking_folder import new_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = new_store(tmp_path / "store")
    add_job(store)
    return store


def add_job(store: Store) -> str:
    parent = store.start_parent("one", {"rows": "a"})
    job = store.begin("one", "a s1", {"row": "a", "job_hash": "a" * 16}, parent)
    job.table({"source": ["A cat."], "hypothesis": ["Eine Katze."]}, "hypotheses/test.json")
    job.measures([Measure("test/bleu", 31.5, "percent")])
    job.finish("FINISHED")
    return job.id


def test_an_export_is_replaced_by_the_next_one(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    export.export(store, folder, ["one"])
    add_job(store)
    export.export(store, folder, ["one"])
    assert len(Export(folder).runs("one")) == 2
    assert not (folder / export.INCOMPLETE).exists()


def test_an_export_among_others_is_opened_again_only_after_a_change(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "of-a-run"
    export.export(store, folder, ["one"])
    (first,) = read_exports([folder.parent])
    assert read_exports([folder.parent]) == [first]  # the same object: exports have no equality of their own
    assert len(first.runs("one")) == 1
    add_job(store)
    export.export(store, folder, ["one"])
    (second,) = read_exports([folder.parent])
    assert len(second.runs("one")) == 2


def test_a_failed_export_leaves_the_one_before(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    export.export(store, folder, ["one"], artifacts=True)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    run = store.runs("one")[0]
    shutil.rmtree(store.settings.path / "artifacts")
    with pytest.raises(Exception, match=r"hypotheses|artifacts"):
        export.export(store, folder, ["one"], artifacts=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert Export(folder).runs("one")[0].id == run.id


def test_texts_and_models_of_an_export_are_not_deleted_unasked(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    export.export(store, folder, ["one"], artifacts=True)
    with pytest.raises(ValueError, match=r"holds an export with --artifacts, .* add --artifacts, or choose another"):
        export.export(store, folder, ["one"])
    assert (folder / "artifacts").is_dir()
