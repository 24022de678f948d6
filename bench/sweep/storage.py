"""The database in which Optuna stores its studies."""

from __future__ import annotations

import contextlib
import sqlite3
import warnings
from pathlib import Path

import filelock
import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from bench.system.files import inside
from bench.tracking.store_folder import sqlite_uri

HEARTBEAT_INTERVAL = 10
"""Seconds between two heartbeats of an attempt. After three times as many without one, its worker counts as lost."""

StorageFailure = (StorageInternalError, SQLAlchemyError)
"""Exceptions that a storage raises if it does not answer."""


def open_storage(url: str | None, folder: Path) -> optuna.storages.RDBStorage:
    """Opens the storage of studies, and creates it if it does not exist.

    Args:
        url: A SQLAlchemy URL; None for the SQLite file optuna.db in `folder`.

    Raises:
        ValueError: the storage cannot be reached or opened. The message does not contain the password.
    """
    file = inside(folder, "optuna.db")
    url = url or sqlite_uri(file)
    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):  # a URL that cannot be read may contain a password anywhere
        raise ValueError(
            "--storage: is not a database URL; write one such as postgresql+psycopg://user@host/name"
        ) from None
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are experimental
            if url == sqlite_uri(file):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(
                    filelock.FileLock(f"{file}.lock")
                )  # several drivers must not create the tables at the same time
                with contextlib.closing(sqlite3.connect(file)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
            return optuna.storages.RDBStorage(
                url, heartbeat_interval=HEARTBEAT_INTERVAL, grace_period=3 * HEARTBEAT_INTERVAL
            )
    except ImportError as error:
        driver = str(error).splitlines()[0]
        raise ValueError(
            f"--storage: {shown}: {driver}; install it: .venv/bin/pip install --editable '.[cluster]'"
        ) from error
    except (SQLAlchemyError, sqlite3.Error, StorageInternalError, RuntimeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ValueError(
            f"--storage: cannot open {shown}: {reason}; start the database, or name another one"
        ) from error
