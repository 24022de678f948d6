"""A store in a folder: a SQLite file and, beside it, the folder `artifacts` with the files of its runs.

MLflow records absolute addresses of these files in the database. Here they are found relative to the database, so that
the folder can be renamed, moved and copied, and used under two paths at the same time (on a host and in a container).
The folder may come from somebody else: nothing is written outside of it, whatever its database says.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import time
from pathlib import Path

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.db.utils import create_sqlalchemy_engine
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from bench.system.files import check_inside, inside

ARTIFACTS = "artifacts"

LAYOUT = re.compile(rf"/{ARTIFACTS}/[^/]+(/([0-9a-f]{{32}}|models/m-[0-9a-f]{{32}})/artifacts)?/?$")
"""The end of a recorded path: the files of a suite, of one of its runs, or of one of its logged models."""

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that hold addresses of files."""

COPY_ATTEMPTS = 50
COPY_RETRY_SECONDS = 0.1


def sqlite_uri(file: Path) -> str:
    """The URI of a SQLite file. Characters that mean something in a URI, such as % and ?, are quoted."""
    return URL.create("sqlite", database=str(file)).render_as_string()


def sqlite_file(uri: str) -> Path | None:
    """The SQLite file of a URI; None if it is the URI of something else."""
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        return None
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def copy_database(file: Path, folder: Path) -> Path:
    """Copies a SQLite file, with what its writers have not yet moved from its log into it; returns the copy.

    It needs no write access, takes no lock and leaves no file beside the database, which opening it would do: a
    database in WAL mode is opened by writing its index (`-shm`). A writer may add to the log meanwhile; the copy is
    repeated only if the database file itself was changed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it changed during every attempt.
    """
    copy, file = folder / "mlflow.db", file.resolve()  # the log is beside the file that a link names
    for _ in range(COPY_ATTEMPTS):
        before = os.stat(file)
        for suffix in ("", "-wal", "-journal"):
            target = f"{copy}{suffix}"
            try:
                shutil.copyfile(f"{file}{suffix}", target)
            except FileNotFoundError:
                if not suffix:
                    raise
                Path(target).unlink(missing_ok=True)
        after = os.stat(file)
        if (before.st_mtime_ns, before.st_size, before.st_ino) == (after.st_mtime_ns, after.st_size, after.st_ino):
            return copy
        time.sleep(COPY_RETRY_SECONDS)
    raise ValueError(f"{file} changes too fast to be read; run the same command again, or stop the writing processes")


class StoreFolder:
    """Where the files of a store's runs are, and where they may be written.

    Args:
        database: The SQLite file.
        tracking_folder: A second folder that may be written: stores of earlier versions, whose database was named by
            its URI, have their files there.
    """

    def __init__(self, database: Path, tracking_folder: Path) -> None:
        self.database, self.path = database, database.parent.resolve()
        self.writable = (self.path, tracking_folder)

    def check_database(self) -> None:
        """Raises ValueError if the database is a link to a file elsewhere, which writing would change."""
        for name in (self.database.name, f"{self.database.name}.lock"):
            inside(self.path, name)

    def locate(self, address: str) -> str:
        """The address at which the files of a suite, a run or a model are, for the address that was recorded.

        It is beside the database, unless only the recorded address exists. Both may exist: the recorded one then
        belongs to the folder that this one was copied from.
        """
        if not address.startswith("file:"):
            return address
        recorded = local_file_uri_to_path(address)
        found = LAYOUT.search(recorded)
        if not found:
            return address
        here = self.path / found[0].strip("/")
        return here.as_uri() if os.path.exists(here) or not os.path.exists(recorded) else address

    def locate_for_writing(self, address: str) -> str:
        """As `locate`, for writing. Raises ValueError if the address leads out of the folders that may be written."""
        located = self.locate(address)
        if not located.startswith("file:"):
            raise ValueError(
                f"{self.path}: its database says that files are at {located}, which is no file: address beside it; "
                "nothing is written there; export the runs with the program that made this store"
            )
        check_inside(Path(local_file_uri_to_path(located)), *self.writable)
        return located

    def update_addresses(self, database: Path) -> str:
        """Corrects the addresses that a database records, for tools that read them (the MLflow UI, mlflow models).

        Args:
            database: The SQLite file of the store, or a copy of it.

        Returns:
            The former folder of the store; empty if all addresses were right.
        """
        own = f"{(self.path / ARTIFACTS).as_uri()}/"
        former = ""
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            for table, column in ADDRESSES:
                query = f"SELECT rowid, {column} FROM {table} WHERE substr({column}, 1, ?) <> ?"
                for row, address in connection.execute(query, (len(own), own)).fetchall():
                    located = self.locate(address)
                    if located != address:
                        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (located, row))
                        former = former or LAYOUT.sub("", local_file_uri_to_path(address))
        return former


class FolderClient(MlflowClient):
    """An MlflowClient that writes files where `StoreFolder` finds them, not to the address that MLflow recorded."""

    def __init__(self, uri: str, folder: StoreFolder) -> None:
        _prepare_engines(uri)
        super().__init__(uri)
        self.folder = folder

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Also called by `log_text` and `log_dict`."""
        address = self.folder.locate_for_writing(self.get_run(run_id).info.artifact_uri or "")
        get_artifact_repository(address).log_artifact(local_path, artifact_path)

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        address = self.folder.locate_for_writing(self.get_run(run_id).info.artifact_uri or "")
        get_artifact_repository(address).log_artifacts(local_dir, artifact_path)

    def log_model_artifacts(self, model_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        address = self.folder.locate_for_writing(self.get_logged_model(model_id).artifact_location)
        get_artifact_repository(address).log_artifacts(local_dir, artifact_path)


def _prepare_engines(uri: str) -> None:
    """Creates the database engines of an MlflowClient.

    MLflow would create them too, but first it takes the URI for a path and creates its parent folder: for a folder
    named "50%", whose URI contains "50%25", that would be a second, empty folder.
    """
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as ModelStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as RunStore

    for store in (RunStore, ModelStore):
        engines = store._engine_map  # pyright: ignore[reportPrivateUsage]
        if uri not in engines:
            engines[uri] = create_sqlalchemy_engine(uri)
