"""The MLflow store: where it is, how runs are created in it, and how reports and resumed jobs read them."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mlflow.entities import Metric
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.exc import SQLAlchemyError

from bench.system.files import inside
from bench.system.visible_text import visible
from bench.tracking import logged_model, open_client, ui_view
from bench.tracking.pages import all_experiments, all_runs
from bench.tracking.reading import PLAN_TAG, MissingFile, Reader, TrackedRun, where
from bench.tracking.retry import is_outage
from bench.tracking.run_writer import RunWriter
from bench.tracking.store_folder import ARTIFACTS, StoreFolder, sqlite_file, sqlite_uri
from bench.tracking.store_format import FORMAT_TAG, STORE_FORMAT, check_experiments, check_format, named

for name in ("mlflow", "alembic"):  # after the import of mlflow, which sets its own level
    logging.getLogger(name).setLevel(logging.ERROR)

PARENT_TAG = "mlflow.parentRunId"
DESCRIPTION_TAG = "mlflow.note.content"
TRAINING_VIEW = "custom_model_development"  # the UI calls it "Model training"; its default view is for chat traces

StoreFailure = (MlflowException, SQLAlchemyError, sqlite3.Error)
"""Exceptions that the methods of Store and RunWriter raise if the store cannot be read or written."""


@dataclass
class TrackingSettings:
    """Where runs are stored.

    Attributes:
        uri: MLflow tracking URI; null for the environment variable MLFLOW_TRACKING_URI, else a SQLite file in `folder`.
            The artifacts of a SQLite file are in the folder `artifacts` beside it.
        folder: Folder of checkpoints, vocabularies, and of the store and its artifacts unless `uri` names another.
    """

    uri: str | None = None
    folder: str = "runs"

    @property
    def path(self) -> Path:
        return Path(self.folder).resolve()

    @property
    def resolved_uri(self) -> str:
        return self.uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(self.path / "mlflow.db")


@functools.lru_cache(maxsize=4096)
def _artifact_repository(artifact_uri: str, tracking_uri: str) -> ArtifactRepository:
    """The files of a run. Through the run id instead, MLflow would ask the store for their address at every access."""
    return get_artifact_repository(artifact_uri, tracking_uri=tracking_uri)


def quote(value: str) -> str:
    """Returns the value in quotation marks, for a query of MLflow.

    MLflow cannot escape a character, so a value with both kinds of quotation marks or a backslash gives "": leave it
    out of the query and compare the results yourself.
    """
    return next((f"{mark}{value}{mark}" for mark in ("'", '"') if mark not in value and "\\" not in value), "")


def to_tracked_run(run: MlflowRun) -> TrackedRun:
    """Converts an MLflow run into the form that reports read."""
    info, data = run.info, run.data
    started = datetime.fromtimestamp((info.start_time or 0) / 1000, UTC)
    name, artifacts = info.run_name or "", info.artifact_uri or ""
    ended = datetime.fromtimestamp(info.end_time / 1000, UTC) if info.end_time else None
    return TrackedRun(info.run_id, name, info.status, started, data.tags, data.params, data.metrics, artifacts, ended)


class Store(Reader):
    """An MLflow tracking store.

    Args:
        settings: Where the store is.
        wait: If a server does not answer, wait for it for MAX_OUTAGE_SECONDS at most, instead of raising at once. For
            workers, whose driver has reached the store before.
        read_only: Read a SQLite file through a temporary copy, which needs no write access and changes nothing in its
            folder. What is written to the run of such a store is lost, except files of runs.

    Raises:
        ValueError: the store cannot be reached or opened, or holds runs in another format than STORE_FORMAT.
    """

    def __init__(self, settings: TrackingSettings, wait: bool = False, read_only: bool = False) -> None:
        self.settings, self.uri, self.wait, self.read_only = settings, settings.resolved_uri, wait, read_only
        self.database = sqlite_file(self.uri)
        self.folder = StoreFolder(self.database, settings.path) if self.database else None
        if not self.is_missing:
            _ = self.client

    @staticmethod
    def can_write(settings: TrackingSettings) -> bool:
        """Whether this process may write the store; always true of a server, which decides itself."""
        file = sqlite_file(settings.resolved_uri)
        return file is None or not file.exists() or (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))

    @property
    def is_missing(self) -> bool:
        """Whether the SQLite file does not exist yet. The first write creates it; reading creates nothing."""
        return self.database is not None and not self.database.exists()

    @functools.cached_property
    def client(self) -> MlflowClient:
        try:
            client = self._open()
            check_experiments(client, self.uri)
        except (*StoreFailure, OSError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            fix = "check the file and its permissions" if self.folder else "start the server"
            raise ValueError(
                f"tracking.uri: cannot open {self.uri}: {reason}; {fix}, or choose another store"
            ) from error
        return client

    def _open(self) -> MlflowClient:
        if self.folder is None:
            return open_client.open_server(self.uri, self.wait)
        if not self.read_only:
            return open_client.open_folder(self.folder, self.uri)
        copies = Path(tempfile.mkdtemp(prefix="attention-ladder-"))
        weakref.finalize(self, shutil.rmtree, copies, ignore_errors=True)
        return open_client.open_copy(self.folder, copies)

    def experiment_id(self, suite: str) -> str:
        """The id of a suite's MLflow experiment, which is created if it does not exist.

        Raises:
            ValueError: an experiment of this name was deleted and has another format, or the name cannot be that of a
                folder.
        """
        found = self.client.get_experiment_by_name(suite)
        if found is None:
            location = inside(self.folder.path, ARTIFACTS, suite).as_uri() if self.folder else None
            tags = {"mlflow.experimentKind": TRAINING_VIEW, FORMAT_TAG: str(STORE_FORMAT)}
            try:
                return self.client.create_experiment(suite, location, tags)
            except MlflowException:  # another process has created it in the meantime
                found = self.client.get_experiment_by_name(suite)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            advice = "give the suite's file another name, or remove the experiment for good with mlflow gc"
            check_format(found.tags.get(FORMAT_TAG), f"{named(suite, self.uri)} was deleted and", advice)
            self.client.restore_experiment(found.experiment_id)
        elif FORMAT_TAG not in found.tags:  # created by somebody else; `check_experiments` has found no runs of ours
            self.client.set_experiment_tag(found.experiment_id, FORMAT_TAG, str(STORE_FORMAT))
        return found.experiment_id

    def suites(self) -> list[str]:
        """Names of all suites, the one with the newest run first."""
        if self.is_missing:
            return []
        experiments = {e.experiment_id: e.name for e in all_experiments(self.client)}
        if not experiments:
            return []
        newest: dict[str, int] = {}
        for run in self.search(list(experiments), "tags.kind = 'job'"):
            name = experiments[run.info.experiment_id]
            newest[name] = max(newest.get(name, 0), run.info.start_time or 0)
        return sorted(newest, key=lambda name: -newest[name])

    def start_parent(self, suite: str, tags: Mapping[str, str], study: str = "") -> str:
        """Sets the parent run of a suite, or of a study of a sweep, to RUNNING and adds tags; returns its id.

        The run is created if it does not exist.
        """
        parent = self.parent_run(suite, study)
        if parent is None:
            kind = {"kind": "study", "study": study} if study else {"kind": "suite"}
            parent = self._tracked(self._create_run(suite, study or suite, kind))
        self.client.update_run(parent.id, "RUNNING")
        RunWriter(self.client, parent.id).tag({"suite": suite, **tags})
        return parent.id

    def set_view(self, suite: str, kind: ui_view.Kind, view: str, description: str) -> None:
        """Sets the view of a suite or sweep in the MLflow UI, and the description of its experiment (Markdown)."""
        experiment = self.experiment_id(suite)
        for key, value in ((ui_view.tag(kind), view), (DESCRIPTION_TAG, visible(description))):
            self.client.set_experiment_tag(experiment, key, value)

    def summarize(self, parent: str, metrics: Mapping[str, float], description: str) -> None:
        """Writes metrics and a description (Markdown) to the run of a suite."""
        writer = RunWriter(self.client, parent)
        now = int(time.time() * 1000)
        self.client.log_batch(parent, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])
        writer.tag({DESCRIPTION_TAG: description})

    def describe_parent(self, parent: str, tags: Mapping[str, str], content: str, name: str) -> None:
        """Adds tags and a file to the run of a suite."""
        writer = RunWriter(self.client, parent)
        writer.text(content, name)
        writer.record_files()
        writer.tag(tags)

    def log_plan(self, parent: str, planned_s: float | None, took_s: float | None) -> None:
        """Records in the run of a suite how long its command was predicted to take and has taken, in seconds.

        None is a number that is not known, or not yet.
        """
        RunWriter(self.client, parent).tag({PLAN_TAG: json.dumps({"planned_s": planned_s, "took_s": took_s})})

    def log_to_parent(self, suite: str, folder: Path, name: str) -> None:
        """Copies the content of `folder` into the folder `name` of the artifacts of a suite's parent run."""
        parent = self.parent_run(suite)
        if parent:
            self.client.log_artifacts(parent.id, str(folder), name)

    def parent_run(self, suite: str, study: str = "") -> TrackedRun | None:
        """The run of a suite, or of a study of a sweep, that is the parent of its jobs; None if there is none."""
        found = None if self.is_missing else self.client.get_experiment_by_name(suite)
        tags = {"kind": "study", "study": study} if study else {"kind": "suite"}
        return next(iter(self._with_tags([found.experiment_id], tags)), None) if found else None

    def studies(self, suite: str | None = None) -> list[TrackedRun]:
        """The studies of one sweep, or of all sweeps, newest first."""
        if self.is_missing:
            return []
        named = [self.client.get_experiment_by_name(suite)] if suite else all_experiments(self.client)
        sweeps = [experiment.experiment_id for experiment in named if experiment]
        return self._with_tags(sweeps, {"kind": "study"}) if sweeps else []

    def log_file(self, run: TrackedRun, file: Path, folder: str) -> None:
        """Copies a file to the artifacts of a run and changes nothing else of the run."""
        self.client.log_artifact(run.id, str(file), folder)

    def trials(self, sweep: str, study: str) -> list[TrackedRun]:
        """The jobs of a study, newest first."""
        return self._with_tags([self.experiment_id(sweep)], {"kind": "trial", "study": study})

    def end(self, run_id: str, status: str) -> None:
        """Ends a parent run as FINISHED, FAILED (a job failed) or KILLED."""
        self.client.set_terminated(run_id, status)

    def find(self, suite: str, job_hash: str) -> list[TrackedRun]:
        """The runs of a job in a suite, newest first."""
        found = None if self.is_missing else self.client.get_experiment_by_name(suite)
        if found is None:
            return []
        return self._with_tags([found.experiment_id], {"job_hash": job_hash})

    def begin(self, suite: str, name: str, tags: Mapping[str, str], parent: str | None = None) -> RunWriter:
        """Creates a run for a job."""
        every = {"kind": "job", "suite": suite, **tags} | ({PARENT_TAG: parent} if parent else {})
        shown = {key: visible(value) for key, value in every.items()}
        return RunWriter(self.client, self._create_run(suite, name, shown).info.run_id)

    def _create_run(self, suite: str, name: str, tags: dict[str, str]) -> MlflowRun:
        """Creates one run, even if a server created it, died before it answered, and was asked again.

        MLflow would keep a run for each request. All of them have the same start time in milliseconds, name and tags.
        The first by id is kept, so that two processes that do this in the same millisecond mostly keep the same one.
        """
        experiment, now = self.experiment_id(suite), int(time.time() * 1000)
        created = self.client.create_run(experiment, now, tags, name)
        same = [
            run
            for run in self.search([experiment], f"attributes.start_time = {now}")
            if run.info.run_name == name and tags.items() <= run.data.tags.items()
        ]
        kept, *others = sorted(same, key=lambda run: run.info.run_id) or [created]
        for other in others:
            self.client.delete_run(other.info.run_id)
        return kept

    def resume(self, run_id: str) -> RunWriter:
        """Opens an existing run again: sets its status to RUNNING and removes the reason of its earlier end."""
        self.client.update_run(run_id, "RUNNING")
        if "reason" in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, "reason")
        return RunWriter(self.client, run_id)

    def runs(self, suite: str) -> list[TrackedRun]:
        """All jobs of a suite, newest first.

        Raises:
            ValueError: there is no such suite; the message lists the existing ones.
        """
        found = None if self.is_missing else self.client.get_experiment_by_name(suite)
        if found is None:
            known = ", ".join(self.suites()) or "none yet"
            raise ValueError(f"--suite: there is no suite {suite!r} in {self.uri}; there are: {known}")
        return self._with_tags([found.experiment_id], {"kind": "job"})

    def run(self, run_id: str) -> TrackedRun:
        return self._tracked(self.client.get_run(run_id))

    def download(self, run: TrackedRun, name: str, folder: Path) -> Path | None:
        """Copies an artifact of a run into `folder`; returns None if the run has no artifact of that name.

        Raises:
            MissingFile: the run has recorded an artifact of that name.
        """
        with self.file(run, name) as path:
            return Path(shutil.copy(path, folder)) if path else None

    def download_translator(self, run: TrackedRun, folder: Path) -> Path | None:
        """Copies the translator of a run into a folder below `folder`; returns None if the run has no model.

        Raises:
            MissingFile: the run has a model, but its files are gone.
        """
        return logged_model.download(self.client, run.id, folder, self.locate)

    def promote(self, run: TrackedRun, name: str) -> str:
        """Registers a run's model and returns its URI.

        Raises:
            ValueError: there is no model, its files are gone, or the name is bad.
        """
        return logged_model.promote(self.client, run.id, name, self.locate)

    def registered_run(self, reference: str) -> TrackedRun:
        """The run of models:/NAME/VERSION. Raises ValueError if there is no such model."""
        return self.run(logged_model.registered_run_id(self.client, reference))

    @contextlib.contextmanager
    def artifact(self, run: TrackedRun, name: str) -> Iterator[Path | None]:
        if run.artifacts.startswith("file:"):  # on this machine: neither a copy nor a request to the store is needed
            path = Path(local_file_uri_to_path(run.artifacts)) / name
            yield path if path.is_file() else None
            return
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = Path(_artifact_repository(run.artifacts, self.uri).download_artifacts(name, folder))
            except (MlflowException, OSError) as error:
                if isinstance(error, MlflowException) and is_outage(error):
                    raise  # not known to be missing
                path = None
            yield path

    def list_files(self, run: TrackedRun, folder: str) -> list[str]:
        found = self._list_files(run, folder)
        for name in sorted(run.files):
            if name.rpartition("/")[0] == folder and name.rpartition("/")[2] not in found:
                raise MissingFile(where(run, name), f"{run.id} ({run.name})")
        return found

    def _list_files(self, run: TrackedRun, folder: str) -> list[str]:
        if run.artifacts.startswith("file:"):
            path = Path(local_file_uri_to_path(run.artifacts)) / folder
            return sorted(file.name for file in path.iterdir()) if path.is_dir() else []
        try:
            files = _artifact_repository(run.artifacts, self.uri).list_artifacts(folder)
            return sorted(Path(file.path).name for file in files)
        except MlflowException as error:
            if is_outage(error):
                raise
            return []

    def locate(self, address: str) -> str:
        """The address at which files are now, for the address that was recorded when they were written."""
        return self.folder.locate(address) if self.folder else address

    def _tracked(self, run: MlflowRun) -> TrackedRun:
        tracked = to_tracked_run(run)
        return replace(tracked, artifacts=self.locate(tracked.artifacts))

    def _with_tags(self, experiments: list[str], tags: Mapping[str, str]) -> list[TrackedRun]:
        """All active runs that have the given values of tags, newest first."""
        query = " and ".join(f"tags.{key} = {quoted}" for key, value in tags.items() if (quoted := quote(value)))
        found = (self._tracked(run) for run in self.search(experiments, query))
        return [run for run in found if tags.items() <= run.tags.items()]

    def search(self, experiments: list[str], query: str) -> list[MlflowRun]:
        """All active runs that match a query, newest first."""
        return list(all_runs(self.client, experiments, query))
