"""Tracking folders with empty databases.

MLflow and Optuna need seconds to create their tables, so they are created once in a test session and then copied.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from bench.sweep.storage import open_storage
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job

DATABASES = ("mlflow.db", "optuna.db")


@functools.cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="databases-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with fast_writes():
        # The URI is passed, because MLflow writes the URI of the last store to the environment.
        _ = Store(TrackingSettings(f"sqlite:///{folder}/mlflow.db", str(folder))).client
        open_storage(None, folder)
    for name in DATABASES:
        with contextlib.closing(sqlite3.connect(folder / name)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the file alone is complete
    return folder


def create(folder: Path) -> Path:
    """Creates a tracking folder with empty databases; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in DATABASES:
        shutil.copy(_template() / name, folder / name)
    return folder


def new_store(folder: Path) -> Store:
    """An empty store. Its address is explicit, because MLflow writes the last store's address into the environment."""
    create(folder)
    return Store(TrackingSettings(f"sqlite:///{folder}/mlflow.db", str(folder)))


def create_with_corpus(folder: Path) -> Path:
    """Writes the tiny corpus to `folder`, and creates an empty store in `folder`/runs; returns `folder`."""
    tiny_job.write_corpus(folder)
    create(folder / "runs")
    return folder


@contextlib.contextmanager
def fast_writes() -> Iterator[None]:
    """While the block runs, SQLite does not wait until data is on the disk, which only a power failure would need."""

    def on_connect(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", on_connect)
    try:
        yield
    finally:
        event.remove(Engine, "connect", on_connect)
