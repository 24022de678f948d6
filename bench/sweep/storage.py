"""Where Optuna keeps its studies."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import warnings
from pathlib import Path

import filelock
import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

logging.getLogger("optuna").setLevel(logging.ERROR)

HEARTBEAT = 10
"""Seconds between two signs of life of an attempt; after three times as many without one it has lost its worker."""

StorageFailure = (StorageInternalError, SQLAlchemyError)
"""What a storage raises that does not answer."""


def open_storage(url: str | None, folder: Path) -> optuna.storages.RDBStorage:
    """The storage of studies, made if need be: a SQLite file in `folder`, or what `url` names.

    Raises:
        ValueError: it cannot be reached or opened; says why, without the password.
    """
    file = folder / "optuna.db"
    url = url or f"sqlite:///{file}"
    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        raise ValueError(f"--storage: {url!r} is no address such as postgresql+psycopg://user@host/name") from None
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", ExperimentalWarning)  # of heartbeats
            if url == f"sqlite:///{file}":
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(filelock.FileLock(f"{file}.lock"))  # of several drivers one makes the tables
                with contextlib.closing(sqlite3.connect(file)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
            return optuna.storages.RDBStorage(url, heartbeat_interval=HEARTBEAT, grace_period=3 * HEARTBEAT)
    except ImportError as error:
        driver = str(error).splitlines()[0]
        raise ValueError(f"--storage: {shown}: {driver}; .venv/bin/pip install --editable '.[cluster]'") from error
    except (SQLAlchemyError, sqlite3.Error, StorageInternalError, RuntimeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ValueError(f"--storage: cannot open {shown}: {reason}; start it, or choose another") from error
