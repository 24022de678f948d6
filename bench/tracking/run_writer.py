"""Writes the MLflow run of a job: learning curves while it trains, and final numbers after its evaluation."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from bench.measures import metric_registry, quality
from bench.measures.measure import Measure
from bench.measures.quality import Statistics
from bench.system import terminal
from bench.system.visible_text import visible
from bench.tracking import logged_model
from bench.tracking.reading import FILES_TAG
from bench.tracking.retry import BackgroundWriter, log_datasets


class RunWriter:
    """Writes one MLflow run. While a model trains, nothing waits for the store: curves are sent by a thread."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.id = client, run_id
        self.written = set[str]()  # names of files
        self.background = BackgroundWriter(lambda metrics: client.log_batch(run_id, metrics=metrics))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Sets tags. Unsafe characters are made visible: PostgreSQL, for one, stores no NUL."""
        self.client.log_batch(self.id, tags=[RunTag(key, visible(value)) for key, value in tags.items()])

    def params(self, params: Mapping[str, Any]) -> None:
        """Logs the params that the run does not have yet. MLflow does not allow changing a param of a resumed run."""
        existing = self.client.get_run(self.id).data.params
        entries = [Param(key, visible(str(value))[:6000]) for key, value in params.items() if key not in existing]
        for begin in range(0, len(entries), 100):
            self.client.log_batch(self.id, params=entries[begin : begin + 100])

    def curve(self, points: Iterable[tuple[int, str, float]]) -> None:
        """Sends points of learning curves (update, name, value) by the thread; an unreachable store gets them later."""
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, update) for update, name, value in points]
        for begin in range(0, len(metrics), 1000):
            self.background.put(metrics[begin : begin + 1000])

    def missing_points(self, points: Iterable[tuple[int, str, float]]) -> list[tuple[int, str, float]]:
        """The points that the store does not have. A killed process may not have sent its last ones."""
        points = list(points)
        existing = {
            (metric.step, metric.key)
            for name in {name for _, name, _ in points}
            for metric in self.client.get_metric_history(self.id, name)
        }
        return [point for point in points if point[:2] not in existing]

    def datasets(self, hashes: Mapping[str, str], name: str, profiles: Mapping[str, str]) -> None:
        """Logs each split of the corpus as a dataset input of the run.

        Args:
            hashes: Split -> SHA-256, as 64 hexadecimal digits. The first 32 become the digest.
            name: Name of the corpus.
            profiles: Split -> its profile, as JSON.
        """
        inputs = [
            DatasetInput(
                Dataset(f"{name}/{split}", digest[:32], "local", json.dumps({"sha256": digest}), None, profiles[split]),
                [InputTag("mlflow.data.context", split)],
            )
            for split, digest in hashes.items()
        ]
        log_datasets(self.client, self.id, inputs)

    def measures(self, measures: list[Measure]) -> None:
        """Writes the final numbers: all of them to the table measures.json, and the main ones as MLflow metrics.

        The main ones are those with `in_mlflow` in the metric registry: the UI makes a column and a chart of every
        metric. If the process was killed here before, another call adds only the missing metrics.
        """
        now = int(time.time() * 1000)
        points = [
            (0, measure.metric, float(measure.value))
            for measure in measures
            if measure.value is not None and metric_registry.metric(measure.metric).in_mlflow
        ]
        rows = [asdict(measure) for measure in measures]
        self.table({part.name: [row[part.name] for row in rows] for part in fields(Measure)}, "measures.json")
        run = self.client.get_run(self.id)
        existing = run.data.metrics
        model = logged_model.find(self.client, self.id)
        inputs = run.inputs.dataset_inputs if run.inputs else []
        datasets = {each.dataset.name.rpartition("/")[2]: each.dataset for each in inputs}

        def metric(update: int, name: str, value: float) -> Metric:
            dataset = datasets.get(name.partition("/")[0])  # links the scores of a test set to that data set
            link = (dataset.name, dataset.digest) if dataset else (None, None)
            return Metric(name, value, now, update, model.model_id if model else None, *link)

        metrics = [metric(*point) for point in points if point[1] not in existing]
        if metrics:
            self.client.log_batch(self.id, metrics=metrics)

    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """Writes a table that the MLflow UI can show. Unsafe characters in its texts are made visible.

        MLflow's log_table is not used, because it would append to the table that a killed process left.
        """
        shown_columns = {
            heading: [visible(value) if isinstance(value, str) else value for value in values]
            for heading, values in columns.items()
        }
        # Not by pandas, which writes 15 digits of a number at most.
        rows = [list(row) for row in zip(*shown_columns.values(), strict=True)]
        self.client.log_text(self.id, json.dumps({"columns": list(shown_columns), "data": rows}), name)
        shown = json.loads(self.client.get_run(self.id).data.tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": name, "type": "table"}
        if entry not in shown:
            self.tag({"mlflow.loggedArtifacts": json.dumps([*shown, entry])})

    def frame(self, frame: pd.DataFrame, name: str) -> None:
        """Writes a data frame as a Parquet file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            frame.to_parquet(path, index=False)
            self.client.log_artifact(self.id, str(path), str(Path(name).parent) if "/" in name else None)
        self.written.add(name)

    def statistics(self, statistics: Sequence[Statistics], test_set: str) -> None:
        """Writes the sentence statistics of a test set, from which reports compute intervals and paired tests."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{test_set}.npz"
            quality.write(path, statistics)
            self.client.log_artifact(self.id, str(path), "statistics")
        self.written.add(f"statistics/{test_set}.npz")

    def text(self, text: str, name: str) -> None:
        self.client.log_text(self.id, text, name)
        self.written.add(name)

    def record_files(self) -> None:
        """Adds the names of the files written so far to a tag of the run, so that readers notice if one is gone."""
        if self.written:
            recorded = self.client.get_run(self.id).data.tags.get(FILES_TAG, "[]")
            self.tag({FILES_TAG: json.dumps(sorted({*json.loads(recorded), *self.written}))})

    @contextlib.contextmanager
    def system_metrics(self) -> Iterator[None]:
        """While the block runs, logs the load of CPU, memory and GPU as MLflow system metrics.

        What the machine does not tell (a sandbox without /proc) is not logged, nor are disk and network, which say
        nothing about a training.
        """
        try:
            monitor = SystemMetricsMonitor(self.id, resume_logging=True, tracking_uri=self.client.tracking_uri)
        except (OSError, AttributeError, RuntimeError, psutil.Error) as error:  # it reads the network first
            terminal.say(f"  the load of the machine is not recorded: {type(error).__name__}: {error}")
            yield
            return
        shown = [each for each in monitor.monitors if not isinstance(each, (DiskMonitor, NetworkMonitor))]
        monitor.monitors = [each for each in shown if _can_read(each)]
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def model(self, folder: Path, example: str, beam: int) -> None:
        """Logs the translator in `folder` as the LoggedModel of the run, to which `measures` links its scores."""
        logged_model.log_model(self.client, self.id, folder, example, beam)

    def flush(self) -> None:
        """Waits until the store has all points of the curves. Raises MlflowException if it stays unreachable."""
        self.background.flush()

    def finish(self, status: str) -> None:
        """Waits until the store has everything, then ends the run as FINISHED, FAILED or KILLED."""
        self.flush()
        self.record_files()
        self.client.set_terminated(self.id, status)


def _can_read(monitor: BaseMetricsMonitor) -> bool:
    """Whether a monitor can read its metrics here. If not, its thread would end with a traceback."""
    try:
        monitor.collect_metrics()
    except Exception as error:  # of psutil, NVML or the system; none of them is worth a run
        terminal.say(f"  {type(monitor).__name__}: not recorded: {type(error).__name__}: {error}")
        return False
    monitor.clear_metrics()
    return True
