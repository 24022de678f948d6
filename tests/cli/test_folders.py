"""Commands on a tracking folder that was moved, that may only be read, that lost files, or whose name is odd."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cli.main import main
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job
from tests.helpers.command_line import NAME, RUN, error_of, run_of, translate

SOURCE = "The man sees a dog 5."


@pytest.fixture
def moved(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder with the finished run, under an odd name; its database records the files of the original."""
    copy = tmp_path / "a 50%25 place?"
    shutil.copytree(folder, copy)
    for path in (copy / "runs").glob("*.lock"):
        path.unlink()
    with contextlib.closing(sqlite3.connect(copy / "runs" / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return copy


def state(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_reading_commands_write_nothing(
    folder: Path, moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = translate(folder, capsys, NAME, SOURCE)
    before = state(moved / "runs")
    tracking = ["--tracking.folder", str(moved / "runs")]
    assert translate(moved, capsys, NAME, SOURCE) == expected
    assert main(["report", "--format", "csv", *tracking]) == 0
    assert ",test,transformer-base,demo,en-de," in capsys.readouterr().out
    assert main(["report", "--out", f"{tmp_path}/report", "--export", f"{tmp_path}/exported", *tracking]) == 0
    assert (tmp_path / "report" / "report.html").is_file()
    assert state(moved / "runs") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [moved.name, "directory", "exported", "report"]


def test_a_moved_run_is_printed_and_promoted(folder: Path, moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = state(folder / "runs" / "artifacts")
    assert main([*RUN, *tiny_job.flags(folder, tracking__folder=moved / "runs")]) == 0
    assert "finished before" in capsys.readouterr().out
    tracking = ["--tracking.folder", str(moved / "runs")]
    assert main(["promote", NAME, "--name", "own's", *tracking]) == 0
    assert capsys.readouterr().out == "models:/own's/1\n"
    assert translate(moved, capsys, "models:/own's/1", SOURCE) == translate(folder, capsys, NAME, SOURCE)
    assert "cannot be the name" in error_of(["promote", NAME, "--name", "a\nb", *tracking], capsys)
    assert state(folder / "runs" / "artifacts") == original


def test_no_command_takes_lost_files_for_results(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracking = ["--tracking.folder", str(moved / "runs")]
    report = moved / "runs" / "reports" / "runs"
    assert main(["report", *tracking]) == 0
    capsys.readouterr()
    before = state(report)
    run = run_of(moved, 1)
    shutil.rmtree(moved / "runs" / "artifacts")
    with contextlib.closing(sqlite3.connect(moved / "runs" / "mlflow.db")) as connection, connection:
        # Elsewhere than the original folder, which still has the files.
        connection.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, '/artifacts/runs', '/artifacts/gone')")
        connection.execute(
            "UPDATE logged_models SET artifact_location = replace(artifact_location, '/runs/m', '/gone/m')"
        )
    for command in (
        ["report"],
        ["report", "--format", "csv"],
        ["translate", NAME, SOURCE],
        ["promote", NAME, "--name", "n"],
    ):
        error = error_of([*command, *tracking], capsys)
        assert "missing or incomplete" in error
        assert f"{moved}/runs/artifacts/" in error
        assert run.id in error
    assert state(report) == before
    store = Store(TrackingSettings(None, str(moved / "runs")))
    assert list(store.client.search_registered_models()) == []


def test_a_report_that_cannot_be_written_names_the_flag(
    moved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", f"{moved}/runs/reports")

    monkeypatch.setattr("reports.write.all_forms", refuse)
    error = error_of(["report", "--tracking.folder", str(moved / "runs")], capsys)
    assert error == f"bench: {moved}/runs/reports: Permission denied; choose a folder that can be written with --out\n"


class Harmful:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_no_pickle_is_loaded_from_a_store(moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm = tmp_path / "harm"
    artifacts = moved / "runs" / "artifacts" / "runs"
    for weights in artifacts.rglob("weights.pt"):
        torch.save({"weight": Harmful(harm)}, weights)
    for statistics in artifacts.rglob("*.npz"):
        np.savez(statistics, bleu=np.array([Harmful(harm)], dtype=object))
    tracking = ["--tracking.folder", str(moved / "runs")]
    error = error_of(["translate", NAME, SOURCE, *tracking], capsys)
    assert re.match(r"bench: run [0-9a-f]{32} \(.*\): weights\.pt: not the weights of transformer-base", error)
    error_of(["report", *tracking], capsys)
    assert not harm.exists()
