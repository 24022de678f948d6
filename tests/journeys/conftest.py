"""Fixtures of the journeys."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job


@pytest.fixture(scope="session")
def tracking_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Makes a tracking folder with an empty store.

    MLflow needs seconds to create its tables, so they are created once and copied. Journeys that are about a new store
    begin with a folder that does not exist.
    """
    template = tmp_path_factory.mktemp("store")
    Store(TrackingSettings(f"sqlite:///{template}/mlflow.db", str(template))).suites()

    def make(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(template / "mlflow.db", folder / "mlflow.db")
        return folder

    return make


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    tiny_job.write_corpus(folder)
    return folder
