"""The MLflow store: where it is, how it is opened, and its runs as reports and resumed jobs read them."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import filelock
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.exc import SQLAlchemyError

from bench.system.files import fill_file, remove_partial_files
from bench.tracking import logged_model
from bench.tracking.reading import Reader, TrackedRun
from bench.tracking.retry import PATIENCE, RetryingClient, patiently
from bench.tracking.run_writer import RunWriter

PARENT = "mlflow.parentRunId"
TRAINING_VIEW = "custom_model_development"  # what the UI calls "Model training"; its default view is for chat traces
FINAL = {"FINISHED", "FAILED", "KILLED"}
PROBE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""The first question to a server, with which its absence is found out in seconds."""

StoreFailure = (MlflowException, SQLAlchemyError, sqlite3.Error)
"""What the methods of Store and Job raise when the store does not take or give."""


@dataclass
class TrackingSettings:
    """Where runs are kept.

    Attributes:
        uri: MLflow tracking URI; null for the environment variable MLFLOW_TRACKING_URI, else a SQLite file in `folder`.
        folder: Folder of checkpoints, vocabularies, and of the store and its artifacts unless `uri` names another.
    """

    uri: str | None = None
    folder: str = "runs"

    @property
    def path(self) -> Path:
        return Path(self.folder).resolve()

    @property
    def resolved_uri(self) -> str:
        return self.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.path / 'mlflow.db'}"


@functools.lru_cache(maxsize=4096)
def _files(address: str, uri: str) -> ArtifactRepository:
    """The files of a run. Asked for by its id instead, MLflow would ask the store for their address each time."""
    return get_artifact_repository(address, tracking_uri=uri)


def tracked(run: MlflowRun) -> TrackedRun:
    """An MLflow run as a report reads it."""
    info, data = run.info, run.data
    started = datetime.fromtimestamp((info.start_time or 0) / 1000, UTC)
    name, files = info.run_name or "", info.artifact_uri or ""
    return TrackedRun(info.run_id, name, info.status, started, data.tags, data.params, data.metrics, files)


class Store(Reader):
    """An MLflow tracking store.

    `known` says that it has been reached before, by who asks for work on it: then it is waited for, PATIENCE seconds
    at most, instead of being an error at once.

    Raises:
        ValueError: the store cannot be reached or opened; says where it should be.
    """

    def __init__(self, settings: TrackingSettings, known: bool = False) -> None:
        self.settings, self.uri, self.known = settings, settings.resolved_uri, known
        self.file = Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None
        if not self.new:
            _ = self.client

    @property
    def new(self) -> bool:
        """Whether there is no store yet. It is made when something is written: a question leaves nothing behind."""
        return self.file is not None and not self.file.exists()

    @functools.cached_property
    def client(self) -> MlflowClient:
        try:
            return self._open_sqlite(self.file) if self.file else self._open_server()
        except (*StoreFailure, OSError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise ValueError(
                f"tracking.uri: cannot open {self.uri}: {reason}; start the server, or choose another store"
            ) from error

    def _open_server(self) -> MlflowClient:
        patient = {key: os.environ.get(key) for key in PROBE}
        os.environ.update(PROBE)
        deadline = time.monotonic() + (PATIENCE if self.known else 0)
        try:
            client = MlflowClient(self.uri)
            patiently(lambda: client.search_experiments(max_results=1), lambda: deadline)
        finally:
            os.environ.update({key: value for key, value in patient.items() if value is not None})
            for key in (key for key, value in patient.items() if value is None):
                del os.environ[key]
        return cast(MlflowClient, RetryingClient(client))  # it was there: from now on it is waited for

    def _open_sqlite(self, path: Path) -> MlflowClient:
        """The first process makes the tables, with the others waiting: they would get in each other's way."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if not path.exists():
                # Created beside and renamed: a process that is killed meanwhile leaves no incomplete tables.
                remove_partial_files(path.parent, path.name)
                fill_file(path, lambda new: MlflowClient(f"sqlite:///{new}").search_experiments(max_results=1))
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # persists; readers no longer wait for writers
            client = MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    def experiment(self, suite: str) -> str:
        """The id of a suite's MLflow experiment, made if need be."""
        found = self.client.get_experiment_by_name(suite)
        if found:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return found.experiment_id
        local = self.uri.startswith("sqlite:///")
        location = (self.settings.path / "artifacts" / suite).as_uri() if local else None
        try:
            return self.client.create_experiment(suite, location, {"mlflow.experimentKind": TRAINING_VIEW})
        except MlflowException:  # another process was faster
            found = self.client.get_experiment_by_name(suite)
            if found is None:
                raise
            return found.experiment_id

    def suites(self) -> list[str]:
        """Names of all suites, the one with the newest run first."""
        if self.new:
            return []
        experiments = {e.experiment_id: e.name for e in self.client.search_experiments()}
        if not experiments:
            return []
        newest: dict[str, int] = {}
        for run in self._search(list(experiments), "tags.kind = 'job'"):
            name = experiments[run.info.experiment_id]
            newest[name] = max(newest.get(name, 0), run.info.start_time or 0)
        return sorted(newest, key=lambda name: -newest[name])

    def parent(self, suite: str, tags: Mapping[str, str], study: str = "") -> str:
        """The id of the suite's own run, or that of a sweep's study, made if need be, with these tags."""
        own = self.own(suite, study)
        if own is None:
            kind = {"kind": "study", "study": study} if study else {"kind": "suite"}
            own = tracked(self.client.create_run(self.experiment(suite), tags=kind, run_name=study or suite))
        run_id = own.id
        self.client.update_run(run_id, "RUNNING")
        RunWriter(self.client, run_id).tag({"suite": suite, **tags})
        return run_id

    def attach(self, suite: str, folder: Path, name: str) -> None:
        """Copies what is in a folder to the artifacts of a suite's own run."""
        own = self.own(suite)
        if own:
            self.client.log_artifacts(own.id, str(folder), name)

    def own(self, suite: str, study: str = "") -> TrackedRun | None:
        """The suite's own run, the parent of its jobs; or that of a sweep's study."""
        query = f"tags.kind = 'study' and tags.study = '{study}'" if study else "tags.kind = 'suite'"
        runs = self._search([self.experiment(suite)], query)
        return tracked(runs[0]) if runs else None

    def studies(self, suite: str | None = None) -> list[TrackedRun]:
        """The studies of a sweep, or of all sweeps, newest first; none if there are none."""
        if self.new:
            return []
        named = [self.client.get_experiment_by_name(suite)] if suite else self.client.search_experiments()
        sweeps = [experiment.experiment_id for experiment in named if experiment]
        return [tracked(run) for run in self._search(sweeps, "tags.kind = 'study'")] if sweeps else []

    def add(self, run: TrackedRun, file: Path, folder: str) -> None:
        """Copies a file to the artifacts of a run, which stays as it is otherwise."""
        self.client.log_artifact(run.id, str(file), folder)

    def trials(self, sweep: str, study: str) -> list[TrackedRun]:
        """The jobs of a study, newest first."""
        query = f"tags.kind = 'tuning' and tags.study = '{study}'"
        return [tracked(run) for run in self._search([self.experiment(sweep)], query)]

    def end(self, run_id: str, status: str) -> None:
        """Closes a suite's own run as FINISHED, FAILED (a job failed) or KILLED."""
        self.client.set_terminated(run_id, status)

    def find(self, suite: str, job: str) -> list[TrackedRun]:
        """The runs of a job in a suite, newest first."""
        found = None if self.new else self.client.get_experiment_by_name(suite)
        if found is None:
            return []
        return [tracked(run) for run in self._search([found.experiment_id], f"tags.job_hash = '{job}'")]

    def begin(self, suite: str, name: str, tags: Mapping[str, str], parent: str | None = None) -> RunWriter:
        """A new run."""
        every = {"kind": "job", "suite": suite, **tags} | ({PARENT: parent} if parent else {})
        run = self.client.create_run(self.experiment(suite), tags=every, run_name=name)
        return RunWriter(self.client, run.info.run_id)

    def resume(self, run_id: str) -> RunWriter:
        """The same run again, its status set back to RUNNING."""
        self.client.update_run(run_id, "RUNNING")
        if "reason" in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, "reason")
        return RunWriter(self.client, run_id)

    def runs(self, suite: str) -> list[TrackedRun]:
        """All jobs of a suite, newest first.

        Raises:
            ValueError: there is no such suite; lists those that there are.
        """
        found = None if self.new else self.client.get_experiment_by_name(suite)
        if found is None:
            known = ", ".join(self.suites()) or "none yet"
            raise ValueError(f"--suite: there is no suite {suite!r} in {self.uri}; there are: {known}")
        return [tracked(run) for run in self._search([found.experiment_id], "tags.kind = 'job'")]

    def run(self, run_id: str) -> TrackedRun:
        return tracked(self.client.get_run(run_id))

    def download(self, run: TrackedRun, name: str, folder: Path) -> Path | None:
        """An artifact of a run, copied into `folder`; None if the run has none of that name."""
        with self.artifact(run, name) as path:
            return Path(shutil.copy(path, folder)) if path else None

    def translator(self, run: TrackedRun, into: Path) -> Path | None:
        """The folder of a run's translator, copied to below `into`; None if the run has no model."""
        return logged_model.fetch(self.client, run.id, into)

    def promote(self, run: TrackedRun, name: str) -> str:
        """Registers a run's model; returns its address. Raises ValueError if there is none or the name is bad."""
        return logged_model.promote(self.client, run.id, name)

    def registered(self, reference: str) -> TrackedRun:
        """The run of models:/NAME/VERSION. Raises ValueError if there is no such model."""
        return self.run(logged_model.run_of(self.client, reference))

    @contextlib.contextmanager
    def artifact(self, run: TrackedRun, name: str) -> Iterator[Path | None]:
        if run.artifacts.startswith("file:"):  # on this machine: nothing to copy, no question to the store
            path = Path(local_file_uri_to_path(run.artifacts)) / name
            yield path if path.is_file() else None
            return
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = Path(_files(run.artifacts, self.uri).download_artifacts(name, folder))
            except (MlflowException, OSError):
                path = None
            yield path

    def files(self, run: TrackedRun, folder: str) -> list[str]:
        if run.artifacts.startswith("file:"):
            place = Path(local_file_uri_to_path(run.artifacts)) / folder
            return sorted(path.name for path in place.iterdir()) if place.is_dir() else []
        try:
            return sorted(Path(file.path).name for file in _files(run.artifacts, self.uri).list_artifacts(folder))
        except MlflowException:
            return []

    def _search(self, experiments: list[str], query: str) -> list[MlflowRun]:
        runs: list[MlflowRun] = []
        token = None
        while token is not None or not runs:
            page = self.client.search_runs(
                experiments, query, ViewType.ACTIVE_ONLY, 1000, ["attributes.start_time DESC"], token
            )
            runs += page
            token = page.token
            if not token:
                break
        return runs
