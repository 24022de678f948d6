"""Runs that are moved from a SQLite store to a tracking server and to another SQLite store, by the real commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.tracking.exported import ORIGIN_TAG
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import synthetic_runs
from tests.helpers.store_content import as_lines, content
from tests.helpers.tracking_folder import create
from tests.journeys.commands import BENCH, finish, start, tracking_server

pytestmark = [pytest.mark.journey, *synthetic_runs.quiet_mlflow]

SUITE = """
question: Which is better?
rows: [lstm, transformer-base]
preset: demo
seeds: [1]
settings:
  corpus: {name: files, train: TRAIN, val: VAL, test: TEST}
  text: {vocabulary_size: 90}
  training: {max_pairs: 600, batch_tokens: 600, validations: 2}
  decoding: {beam: 2, extra_length: 5}
  machine: {threads: 1}
"""
SENTENCES = ["The man sees a bird 7.", "The king wants a table 12."]


@pytest.fixture
def origin(corpus: Path, tmp_path: Path) -> Store:
    """A SQLite store with a finished suite of two trained rows, and a study of a sweep that the suite names."""
    folder = create(tmp_path / "origin")
    suite = SUITE
    for split in ("train", "val", "test"):
        suite = suite.replace(split.upper(), f"[{corpus}/{split}.en, {corpus}/{split}.de]")
    (tmp_path / "pair.yaml").write_text(suite)
    finish(start(BENCH, "suite", tmp_path / "pair.yaml", "--tracking.folder", folder))
    store = Store(TrackingSettings(f"sqlite:///{folder}/mlflow.db", str(folder)))
    synthetic_runs.sweep(store, "lstm")
    synthetic_runs.tuned(store, "pair", "lstm", 0.0)
    parent = store.parent_run("pair")
    assert parent
    store.end(parent.id, "FINISHED")
    return store


def bench(*arguments: object, uri: str) -> str:
    return finish(start(BENCH, *arguments, MLFLOW_TRACKING_URI=uri))


def test_runs_go_to_a_server_and_back(origin: Store, tmp_path: Path) -> None:
    """Every number, link, status, time, model and sentence is equal; run ids and numbers of experiments are new.

    It trains two rows, starts a server and writes three reports: three minutes on a busy machine of two cores.
    """
    home = tmp_path / "home"
    create(home)
    last = Store(TrackingSettings(f"sqlite:///{home}/mlflow.db", str(home)))
    last.experiment_id("another")
    bench("store", "export", tmp_path / "there", "--artifacts", uri=origin.uri)
    with tracking_server(tmp_path) as address:
        server = Store(TrackingSettings(address, str(tmp_path / "runs")))
        server.experiment_id("another")
        folder = ("--tracking.folder", tmp_path / "runs")
        printed = bench("store", "import", tmp_path / "there", *folder, uri=address)
        assert "5 runs added" in printed
        assert "0 runs added" in bench("store", "import", tmp_path / "there", *folder, uri=address)
        bench("store", "export", tmp_path / "back", "--artifacts", uri=address)
        on_server = content(server)
        (moved,) = (run for run in server.runs("pair") if run.tags["row"] == "lstm")
    bench("store", "import", tmp_path / "back", "--tracking.folder", home, uri=last.uri)
    for found in (on_server, at_home := content(last)):
        del found["experiments"]["another"]
    assert as_lines(on_server) == as_lines(content(origin))
    assert as_lines(at_home) == as_lines(on_server)

    (original,), (final,) = (
        [run for run in store.runs("pair") if run.tags["row"] == "lstm"] for store in (origin, last)
    )
    assert len({original.id, moved.id, final.id}) == 3
    assert final.tags[ORIGIN_TAG] == moved.tags[ORIGIN_TAG] == original.id
    parent = last.parent_run("pair")
    assert parent
    assert final.tags["mlflow.parentRunId"] == parent.id
    links = set(re.findall(r"#/experiments/(\d+)/runs/([0-9a-f]{32})", parent.tags["mlflow.note.content"]))
    known = {run.id for run in last.runs("pair")} | {parent.id}
    assert links == {(last.experiment_id("pair"), run) for run in known}
    assert "report.html" in last.list_files(parent, "report")
    before, after = (
        bench("translate", "best:pair/lstm", *SENTENCES, "--tracking.folder", store.settings.folder, uri=store.uri)
        for store in (origin, last)
    )
    assert before == after
    back = bench("store", "import", tmp_path / "back", "--tracking.folder", origin.settings.folder, uri=origin.uri)
    assert "0 runs added" in back
