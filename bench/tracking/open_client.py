"""Opens MLflow clients: of a server, of a SQLite file, and of a copy of a SQLite file that only reads it."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import cast

import filelock
from mlflow.tracking import MlflowClient

from bench.system.files import fill_file, remove_partial_files
from bench.tracking.retry import MAX_OUTAGE_SECONDS, RetryingClient, retry_until
from bench.tracking.store_folder import FolderClient, StoreFolder, copy_database, sqlite_uri

logger = logging.getLogger("bench.tracking")

FIRST_REQUEST_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Limits of the first request to a server, so that an unreachable server is reported within seconds."""


def open_server(uri: str, wait: bool) -> MlflowClient:
    """Returns a client of a server that has answered once; its later calls wait for the server.

    Args:
        wait: If the server does not answer, wait for it for MAX_OUTAGE_SECONDS at most, instead of raising at once.
    """
    previous = {key: os.environ.get(key) for key in FIRST_REQUEST_LIMITS}
    os.environ.update(FIRST_REQUEST_LIMITS)
    deadline = time.monotonic() + (MAX_OUTAGE_SECONDS if wait else 0)
    try:
        client = MlflowClient(uri)
        retry_until(lambda: client.search_experiments(max_results=1), lambda: deadline)
    finally:
        os.environ.update({key: value for key, value in previous.items() if value is not None})
        for key in (key for key, value in previous.items() if value is None):
            del os.environ[key]
    return cast(MlflowClient, RetryingClient(client))


def open_folder(folder: StoreFolder, uri: str) -> MlflowClient:
    """Returns a client of a SQLite file, which is created if it does not exist.

    A lock prevents several processes from creating the tables at the same time.
    """
    path = folder.database
    path.parent.mkdir(parents=True, exist_ok=True)
    folder.check_database()
    with filelock.FileLock(f"{path}.lock"):
        if not path.exists():
            # Created under another name and renamed: a process that is killed here leaves no incomplete tables.
            remove_partial_files(path.parent, path.name)
            fill_file(path, lambda new: FolderClient(sqlite_uri(new), folder).search_experiments(max_results=1))
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # persists; readers no longer wait for writers
        client = FolderClient(uri, folder)
        client.search_experiments(max_results=1)
        if former := folder.update_addresses(path):
            logger.warning("the store was moved from %s to %s: its recorded addresses are updated", former, folder.path)
    return client


def open_copy(folder: StoreFolder, copies: Path) -> MlflowClient:
    """Returns a client of a copy of a SQLite file, made in the folder `copies`. The file itself is only read."""
    copy = copy_database(folder.database, copies)
    client = FolderClient(sqlite_uri(copy), folder)
    client.search_experiments(max_results=1)
    folder.update_addresses(copy)
    return client
