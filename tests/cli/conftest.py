"""Fixtures of the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli.main import main
from tests.helpers import quick_evaluation, tiny_job, tracking_folder
from tests.helpers.command_line import RUN


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny corpus and a store with one finished run on it."""
    folder = tmp_path_factory.mktemp("cli")
    tiny_job.write_corpus(folder)
    tracking_folder.create(folder / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with quick_evaluation.without_timings(), tracking_folder.fast_writes():
            assert main([*RUN, *tiny_job.flags(folder)]) == 0
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_evaluation.without_timings(), tracking_folder.fast_writes():
        yield


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, in which `runs` would appear, and an environment without settings."""
    directory = tmp_path / "directory"
    directory.mkdir()
    monkeypatch.chdir(directory)
    for name in ("MLFLOW_TRACKING_URI", "MULTI30K"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
