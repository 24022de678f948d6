"""The open MLflow run of a job: what is written while it trains, and when it has been judged."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from bench.measures import quality
from bench.measures.measure import Measure
from bench.measures.quality import Statistics
from bench.tracking import logged_model
from bench.tracking.retry import BackgroundWriter


class RunWriter:
    """The open MLflow run of one job. Nothing here waits for the store while a model trains."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.id = client, run_id
        self.backlog = BackgroundWriter(lambda metrics: client.log_batch(run_id, metrics=metrics))

    def tag(self, tags: Mapping[str, str]) -> None:
        self.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in tags.items()])

    def params(self, params: Mapping[str, Any]) -> None:
        """Those that the run does not have: one that was killed while it was described keeps what it began with."""
        held = self.client.get_run(self.id).data.params
        entries = [Param(key, str(value)[:6000]) for key, value in params.items() if key not in held]
        for begin in range(0, len(entries), 100):
            self.client.log_batch(self.id, params=entries[begin : begin + 100])

    def curve(self, points: Iterable[tuple[int, str, float]]) -> None:
        """Learning-curve points (update, name, value), in the background; a store that is away gets them later."""
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, update) for update, name, value in points]
        for begin in range(0, len(metrics), 1000):
            self.backlog.put(metrics[begin : begin + 1000])

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
        """Final numbers: whole (unit, interval, recipe) in measures.json, and as metrics NAME, NAME_low, NAME_high.

        Called again, after a kill, it adds the metrics that are missing.
        """
        now = int(time.time() * 1000)
        points = [
            (0, f"{measure.metric}{suffix}", float(value))
            for measure in measures
            for suffix, value in (("", measure.value), ("_low", measure.low), ("_high", measure.high))
            if value is not None
        ]
        self.client.log_dict(self.id, {"measures": [asdict(measure) for measure in measures]}, "measures.json")
        run = self.client.get_run(self.id)
        held = run.data.metrics
        model = logged_model.find(self.client, self.id)
        inputs = run.inputs.dataset_inputs if run.inputs else []
        digests = {each.dataset.name.rpartition("/")[2]: each.dataset for each in inputs}

        def metric(update: int, name: str, value: float) -> Metric:
            dataset = digests.get(name.partition("/")[0])  # scores of a test set belong to model and data set
            of = (dataset.name, dataset.digest) if dataset else (None, None)
            return Metric(name, value, now, update, model.model_id if model else None, *of)

        metrics = [metric(*point) for point in points if point[1] not in held]
        if metrics:
            self.client.log_batch(self.id, metrics=metrics)

    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """A table that the MLflow UI can show. MLflow's own log_table appends to what a killed process left."""
        content = pd.DataFrame(dict(columns)).to_json(orient="split", index=False)
        assert content is not None  # pandas returns the text where it is given no path
        self.client.log_text(self.id, content, name)
        shown = json.loads(self.client.get_run(self.id).data.tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": name, "type": "table"}
        if entry not in shown:
            self.tag({"mlflow.loggedArtifacts": json.dumps([*shown, entry])})

    def frame(self, frame: pd.DataFrame, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            frame.to_parquet(path, index=False)
            self.client.log_artifact(self.id, str(path), str(Path(name).parent) if "/" in name else None)

    def statistics(self, statistics: Sequence[Statistics], test_set: str) -> None:
        """What scores, intervals and paired tests are made of, so that a report need not score the text again."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{test_set}.npz"
            quality.write(path, statistics)
            self.client.log_artifact(self.id, str(path), "statistics")

    def text(self, text: str, name: str) -> None:
        self.client.log_text(self.id, text, name)

    def file(self, path: Path, folder: str | None = None) -> None:
        self.client.log_artifact(self.id, str(path), folder)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While the block runs, load of processor, memory, disk, network and GPU as MLflow's system metrics."""
        monitor = SystemMetricsMonitor(self.id, resume_logging=True, tracking_uri=self.client.tracking_uri)
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def model(self, folder: Path, example: str, beam: int) -> None:
        """The whole translator in `folder` becomes the run's LoggedModel, to which `measures` links its scores."""
        logged_model.keep(self.client, self.id, folder, example, beam)

    def flush(self) -> None:
        """Waits until all points of the curves are in the store; raises MlflowException if it stays away."""
        self.backlog.flush()

    def finish(self, status: str) -> None:
        """Waits for what is on its way, then closes the run as FINISHED, FAILED or KILLED."""
        self.flush()
        self.client.set_terminated(self.id, status)
