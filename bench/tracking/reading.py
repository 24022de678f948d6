"""What a report reads of a run, wherever the run is kept: an MLflow store, or a folder that a store was exported to."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from pyarrow import parquet

from bench.measures import quality
from bench.measures.measure import Measure
from bench.measures.quality import Statistics


@dataclass(frozen=True)
class TrackedRun:
    """A run as a report reads it.

    Attributes:
        artifacts: Address of its files.
    """

    id: str
    name: str
    status: str
    started: datetime
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    artifacts: str = ""


class Reader(Protocol):
    """Runs and their files.

    Attributes:
        uri: Where they are.
    """

    uri: str

    def suites(self) -> list[str]:
        """Names of all suites, the one with the newest run first."""
        ...

    def runs(self, suite: str) -> list[TrackedRun]:
        """All jobs of a suite, newest first. Raises ValueError if there is no such suite."""
        ...

    def own(self, suite: str) -> TrackedRun | None:
        """The suite's own run, the parent of its jobs."""
        ...

    def experiment(self, suite: str) -> str:
        """The id of a suite's MLflow experiment."""
        ...

    def artifact(self, run: TrackedRun, name: str) -> AbstractContextManager[Path | None]:
        """A file of a run, there while the block runs; None if the run has none of that name."""
        ...

    def files(self, run: TrackedRun, folder: str) -> list[str]:
        """Names of a run's files in a folder."""
        ...

    def studies(self, suite: str | None = None) -> list[TrackedRun]:
        """The studies of a sweep, or of all sweeps, newest first; none if there are none."""
        ...

    def measures(self, run: TrackedRun) -> list[Measure]:
        """The final numbers of a run that has been judged; none of another."""
        with self.artifact(run, "measures.json") as path:
            try:
                return [Measure(**entry) for entry in json.loads(path.read_text())["measures"]] if path else []
            except json.JSONDecodeError:  # half-written by a process that was killed
                return []

    def curves(self, run: TrackedRun) -> pd.DataFrame:
        """Columns update, name, value; empty for a run that has not ended."""
        with self.artifact(run, "curves.parquet") as path:
            if path is None:
                return pd.DataFrame(columns=["update", "name", "value"])
            return parquet.ParquetFile(path).read(use_threads=False).to_pandas()  # half the time of pandas' own way

    def hypotheses(self, run: TrackedRun, test_set: str) -> pd.DataFrame:
        """Columns source, reference, hypothesis."""
        with self.artifact(run, f"hypotheses/{test_set}.json") as path:
            if path is None:
                return pd.DataFrame(columns=["source", "reference", "hypothesis"])
            return pd.DataFrame(**json.loads(path.read_text()))

    def statistics(self, run: TrackedRun, test_set: str) -> list[Statistics]:
        """Of every metric of quality; none of a run that kept none."""
        with self.artifact(run, f"statistics/{test_set}.npz") as path:
            return quality.read(path) if path else []

    def document(self, run: TrackedRun, name: str) -> dict[str, Any]:
        """A JSON file of a run; empty if there is none."""
        with self.artifact(run, name) as path:
            return json.loads(path.read_text()) if path else {}
