"""Helpers of the tests of the command line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job

RUN = ("run", str(tiny_job.FILE))
DEMO = str(tiny_job.FILE.parent / "demo.yaml")
NAME = "transformer-base files-en-de demo s1"
"""The name of the finished run."""


def flags_here(folder: Path, **changed: object) -> list[str]:
    """Flags of the tiny job with the corpus in `folder`, tracked in the current folder."""
    return tiny_job.flags(folder, tracking__folder="runs", **changed)


def flags_in_shared_store(folder: Path, seed: int, **changed: object) -> list[str]:
    """The same flags with another seed, tracked in the store of the finished run, because a new one takes seconds."""
    return flags_here(folder, seed=seed, tracking__uri=f"sqlite:///{folder}/runs/mlflow.db", **changed)


def runs_of(folder: Path) -> list[TrackedRun]:
    return Store(TrackingSettings(None, str(folder / "runs"))).runs("runs")


def run_of(folder: Path, seed: int) -> TrackedRun:
    (run,) = (run for run in runs_of(folder) if run.tags["seed"] == str(seed))
    return run


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command with invalid input. Checks that it is one line and that the command wrote no file."""
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("bench: ")
    assert message.count("\n") == 1, message
    assert sorted(Path.cwd().rglob("*")) == before
    assert not Path("runs").exists()
    return message


class StandardInput:
    """A standard input that contains bytes and is not a terminal."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


def translate(
    folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0
) -> tuple[list[str], str]:
    """The output lines and the errors of `bench translate`."""
    capsys.readouterr()
    assert main(["translate", *arguments, "--tracking.folder", str(folder / "runs")]) == code
    printed = capsys.readouterr()
    return printed.out.split("\n")[:-1], printed.err
