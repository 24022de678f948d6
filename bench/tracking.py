"""Runs in MLflow: written while a job trains, read by reports. The only file that imports mlflow.

One MLflow experiment a suite; in it one parent run, the suite, and one child run a job. A run holds the resolved
configuration (config.yaml and params), data hashes as dataset inputs, learning curves (metrics and curves.parquet),
the final measures (metrics and measures.json), the hypotheses as tables and the weights.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import filelock
import mlflow
import pandas as pd
import torch
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bench.measures import Measure

PARENT = "mlflow.parentRunId"
FINAL = {"FINISHED", "FAILED", "KILLED"}

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.ERROR)


@dataclass
class Tracking:
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


def environment() -> dict[str, str]:
    """What must be known to repeat a run beside its configuration: commit, versions, hardware, threads."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    packages = ("torch", "pytorch-lightning", "mlflow", "optuna", "sacrebleu", "sentencepiece", "pandas")
    return {
        "mlflow.source.git.commit": git("rev-parse", "HEAD"),
        "git.dirty": str(bool(git("status", "--porcelain", "--untracked-files=no"))).lower(),
        "python": platform.python_version(),
        **{f"version.{package}": version(package) for package in packages},
        "hardware.cpu": _cpu_name(),
        "hardware.cores": str(os.cpu_count()),
        "hardware.gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": str(torch.get_num_threads()),
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Job:
    """The open MLflow run of one job. Nothing here waits for the store while a model trains."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.id = client, run_id
        self.waiting: list[Any] = []

    def tag(self, tags: Mapping[str, str]) -> None:
        self.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in tags.items()])

    def params(self, params: Mapping[str, Any]) -> None:
        entries = [Param(key, str(value)[:6000]) for key, value in params.items()]
        for begin in range(0, len(entries), 100):
            self.client.log_batch(self.id, params=entries[begin : begin + 100])

    def curve(self, points: Iterable[tuple[int, str, float]]) -> None:
        """Learning-curve points (update, name, value), written in the background."""
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, update) for update, name, value in points]
        for begin in range(0, len(metrics), 1000):
            chunk = metrics[begin : begin + 1000]
            self.waiting.append(self.client.log_batch(self.id, metrics=chunk, synchronous=False))

    def missing(self, points: Iterable[tuple[int, str, float]]) -> list[tuple[int, str, float]]:
        """Those points of a curve that the store does not hold: a killed process may not have sent its last ones."""
        points = list(points)
        held = {
            (metric.step, metric.key)
            for name in {name for _, name, _ in points}
            for metric in self.client.get_metric_history(self.id, name)
        }
        return [point for point in points if point[:2] not in held]

    def datasets(self, hashes: Mapping[str, str], name: str, profiles: Mapping[str, str]) -> None:
        """Each split of the corpus as a dataset input; the digest is the beginning of its SHA-256."""
        inputs = [
            DatasetInput(
                Dataset(f"{name}/{split}", digest[:32], "local", json.dumps({"sha256": digest}), None, profiles[split]),
                [InputTag("mlflow.data.context", split)],
            )
            for split, digest in hashes.items()
        ]
        self.client.log_inputs(self.id, inputs)

    def measures(self, measures: list[Measure]) -> None:
        """Final numbers: as metrics NAME, NAME_low, NAME_high, and whole (unit, interval, recipe) in measures.json."""
        now = int(time.time() * 1000)
        values = {
            f"{measure.metric}{suffix}": value
            for measure in measures
            for suffix, value in (("", measure.value), ("_low", measure.low), ("_high", measure.high))
            if value is not None
        }
        self.client.log_batch(self.id, metrics=[Metric(key, float(value), now, 0) for key, value in values.items()])
        self.client.log_dict(self.id, {"measures": [asdict(measure) for measure in measures]}, "measures.json")

    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        self.client.log_table(self.id, pd.DataFrame(dict(columns)), name)

    def frame(self, frame: pd.DataFrame, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            frame.to_parquet(path, index=False)
            self.client.log_artifact(self.id, str(path), str(Path(name).parent) if "/" in name else None)

    def text(self, text: str, name: str) -> None:
        self.client.log_text(self.id, text, name)

    def file(self, path: Path, folder: str | None = None) -> None:
        self.client.log_artifact(self.id, str(path), folder)

    def finish(self, status: str) -> None:
        """Waits for what is on its way, then closes the run as FINISHED, FAILED or KILLED."""
        for operation in self.waiting:
            operation.wait()
        self.waiting.clear()
        self.client.set_terminated(self.id, status)


@dataclass(frozen=True)
class TrackedRun:
    """A run as a report reads it."""

    id: str
    name: str
    status: str
    started: datetime
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]

    @classmethod
    def of(cls, run: MlflowRun) -> TrackedRun:
        info, data = run.info, run.data
        started = datetime.fromtimestamp((info.start_time or 0) / 1000, UTC)
        return cls(info.run_id, info.run_name or "", info.status, started, data.tags, data.params, data.metrics)


class Store:
    """An MLflow tracking store.

    Raises:
        ValueError: the store cannot be reached or opened; says where it should be.
    """

    def __init__(self, settings: Tracking) -> None:
        self.settings, self.uri = settings, settings.resolved_uri
        mlflow.set_tracking_uri(self.uri)
        try:
            self.client = self._open_sqlite() if self.uri.startswith("sqlite:///") else MlflowClient(self.uri)
            self.client.search_experiments(max_results=1)
        except (MlflowException, OSError, sqlite3.Error) as error:
            reason = str(error).strip().splitlines()[-1][:200]
            raise ValueError(f"tracking.uri: cannot open {self.uri}: {reason}") from error

    def _open_sqlite(self) -> MlflowClient:
        """The first process makes the tables, with the others waiting: they would get in each other's way."""
        path = Path(self.uri.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            new = not path.exists()
            client = MlflowClient(self.uri)
            client.search_experiments(max_results=1)
            if new:
                with contextlib.closing(sqlite3.connect(path)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")  # persists; readers no longer wait for writers
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
            return self.client.create_experiment(suite, artifact_location=location)
        except MlflowException:  # another process was faster
            found = self.client.get_experiment_by_name(suite)
            if found is None:
                raise
            return found.experiment_id

    def suites(self) -> list[str]:
        """Names of all suites, the one with the newest run first."""
        experiments = {e.experiment_id: e.name for e in self.client.search_experiments()}
        if not experiments:
            return []
        newest: dict[str, int] = {}
        for run in self._search(list(experiments), "tags.kind = 'job'"):
            name = experiments[run.info.experiment_id]
            newest[name] = max(newest.get(name, 0), run.info.start_time or 0)
        return sorted(newest, key=lambda name: -newest[name])

    def parent(self, suite: str, tags: Mapping[str, str]) -> str:
        """The id of the suite's own run, made if need be, with these tags."""
        experiment = self.experiment(suite)
        runs = self._search([experiment], "tags.kind = 'suite'")
        run = runs[0] if runs else self.client.create_run(experiment, tags={"kind": "suite"}, run_name=suite)
        Job(self.client, run.info.run_id).tag({"suite": suite, **tags})
        return run.info.run_id

    def find(self, suite: str, job: str) -> list[TrackedRun]:
        """The runs of a job in a suite, newest first."""
        found = self.client.get_experiment_by_name(suite)
        if found is None:
            return []
        return [TrackedRun.of(run) for run in self._search([found.experiment_id], f"tags.job = '{job}'")]

    def begin(self, suite: str, name: str, tags: Mapping[str, str], parent: str | None = None) -> Job:
        """A new run."""
        every = {"kind": "job", "suite": suite, **tags} | ({PARENT: parent} if parent else {})
        run = self.client.create_run(self.experiment(suite), tags=every, run_name=name)
        return Job(self.client, run.info.run_id)

    def resume(self, run_id: str) -> Job:
        """The same run again, its status set back to RUNNING."""
        self.client.update_run(run_id, "RUNNING")
        return Job(self.client, run_id)

    def runs(self, suite: str) -> list[TrackedRun]:
        """All jobs of a suite, newest first.

        Raises:
            ValueError: there is no such suite; lists those that there are.
        """
        found = self.client.get_experiment_by_name(suite)
        if found is None:
            known = ", ".join(self.suites()) or "none yet"
            raise ValueError(f"--suite: there is no suite {suite!r} in {self.uri}; there are: {known}")
        return [TrackedRun.of(run) for run in self._search([found.experiment_id], "tags.kind = 'job'")]

    def run(self, run_id: str) -> TrackedRun:
        return TrackedRun.of(self.client.get_run(run_id))

    def measures(self, run: TrackedRun) -> list[Measure]:
        """The final numbers of a finished run; none of another."""
        with self._artifact(run, "measures.json") as path:
            return [Measure(**entry) for entry in json.loads(path.read_text())["measures"]] if path else []

    def curves(self, run: TrackedRun) -> pd.DataFrame:
        """Columns update, name, value; empty for a run that has not ended."""
        with self._artifact(run, "curves.parquet") as path:
            return pd.read_parquet(path) if path else pd.DataFrame(columns=["update", "name", "value"])

    def hypotheses(self, run: TrackedRun, test_set: str) -> pd.DataFrame:
        """Columns source, reference, hypothesis."""
        with self._artifact(run, f"hypotheses/{test_set}.json") as path:
            if path is None:
                return pd.DataFrame(columns=["source", "reference", "hypothesis"])
            return pd.DataFrame(**json.loads(path.read_text()))

    def download(self, run: TrackedRun, name: str, folder: Path) -> Path | None:
        """An artifact of a run, copied into `folder`; None if the run has none of that name."""
        with self._artifact(run, name) as path:
            return Path(shutil.copy(path, folder)) if path else None

    @contextlib.contextmanager
    def _artifact(self, run: TrackedRun, name: str) -> Iterator[Path | None]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                yield Path(self.client.download_artifacts(run.id, name, folder))
            except (MlflowException, OSError):
                yield None

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


def serve(store: Store, port: int) -> int:
    """The MLflow UI on this store at 127.0.0.1, until Ctrl-C. Returns its exit code."""
    print(f"MLflow UI on {store.uri}: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    if store.uri.startswith("http"):
        print(f"That store has its own UI: {store.uri}")
        return 0
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # The job runner serves features that are not ours (evaluation by language models) and doubles the start-up.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    try:
        return subprocess.run(command, env=os.environ | quiet, check=False).returncode
    except KeyboardInterrupt:
        return 0
