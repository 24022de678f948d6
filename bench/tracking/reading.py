"""The interface through which reports read runs, from an MLflow store or from a folder that a store was exported to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import pandas as pd
from pyarrow import parquet

from bench.measures import quality
from bench.measures.measure import Measure
from bench.measures.quality import Statistics
from bench.tracking.private_paths import public_text
from bench.tracking.speeds import Speeds

FILES_TAG = "attention_ladder.files"
"""Tag of a run that holds, as JSON, the names of the files that it has written to the store."""


LEFT_OUT_TAG = "attention_ladder.left_out"
"""Tag of a run that holds, as JSON, the names of its files that an export left out."""


PLAN_TAG = "plan"
"""Tag of the run of a suite that holds, as JSON, the predicted and the real seconds of its last command."""


JOBS_TAG = "jobs"
"""Tag of the run of a suite that holds the first JOB_DIGITS digits of the hash of each job of its last command."""

JOB_DIGITS = 8


STUDY_TAG = "study_of_scaling"
"""Tag of the run of a scaling study. The runs of suites do not have it."""

STUDY_FILE = "study.json"
"""File of the run of a scaling study: its rules, its sizes, and the job hash of each of its runs."""


class MissingFile(ValueError):
    """A file is gone that a run has written to the store."""

    def __init__(self, path: str, run: str) -> None:
        super().__init__(
            f"{path}: the file is missing or incomplete, although run {run} wrote it to the store; restore the "
            "file, or run the job again (bench run and bench suite have --again)"
        )


@dataclass(frozen=True)
class TrackedRun:
    """A run in the form that reports read.

    Attributes:
        artifacts: URI of its files.
        ended: When it ended; None while it runs, or if unknown. A resumed run includes the time between its processes.
    """

    id: str
    name: str
    status: str
    started: datetime
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    artifacts: str = ""
    ended: datetime | None = None

    @property
    def files(self) -> frozenset[str]:
        """Names of files that the run is known to have written. Runs of earlier versions have recorded only some."""
        tables: list[dict[str, str]] = json.loads(self.tags.get("mlflow.loggedArtifacts", "[]"))
        known = {*json.loads(self.tags.get(FILES_TAG, "[]")), *(table["path"] for table in tables)}
        if self.status == "FINISHED" and self.tags.get("kind") in ("job", "trial"):
            known |= {"measures.json"}
            known |= {"curves.parquet"} if any(name.startswith("train/") for name in self.metrics) else set()
        return frozenset(known)


class Reader(Protocol):
    """Reads runs and their files.

    Attributes:
        uri: Where the runs are stored.
    """

    uri: str

    def suites(self) -> list[str]:
        """Names of all suites, the one with the newest run first."""
        ...

    def runs(self, suite: str) -> list[TrackedRun]:
        """All jobs of a suite, newest first. Raises ValueError if there is no such suite."""
        ...

    def parent_run(self, suite: str) -> TrackedRun | None:
        """The run of the suite, which is the parent of its jobs; None if there is none."""
        ...

    def experiment_id(self, suite: str) -> str:
        """The id of a suite's MLflow experiment."""
        ...

    def artifact(self, run: TrackedRun, name: str) -> AbstractContextManager[Path | None]:
        """A file of a run, available while the block runs; None if the run has no file of that name."""
        ...

    def list_files(self, run: TrackedRun, folder: str) -> list[str]:
        """Names of the files of a run in a folder of its artifacts, sorted."""
        ...

    def studies(self, suite: str | None = None) -> list[TrackedRun]:
        """The studies of one sweep, or of all sweeps, newest first."""
        ...

    @contextlib.contextmanager
    def file(self, run: TrackedRun, name: str) -> Iterator[Path | None]:
        """As `artifact`, for a file that the run may have written.

        Raises:
            MissingFile: the run has recorded that it wrote the file. A report without it would look as if nothing had
                been measured.
        """
        with self.artifact(run, name) as path:
            if path is None and name in run.files:
                raise MissingFile(where(run, name), f"{run.id} ({run.name})")
            yield path

    def measures(self, run: TrackedRun) -> list[Measure]:
        """The final numbers of a run; empty if it has not been evaluated. Their provenance has no absolute paths."""
        table = self.read_json(run, "measures.json")
        found = [Measure(**dict(zip(table["columns"], row, strict=True))) for row in table.get("data", [])]
        return [replace(each, provenance=public_text(each.provenance)) for each in found]

    def speeds_of(self, suite: str) -> Speeds | None:
        """The times that replace those of the runs of a suite, because all rows were measured together."""
        return None

    def curves(self, run: TrackedRun) -> pd.DataFrame:
        """The learning curves, with the columns update, name and value; empty if training has not ended."""
        with self.file(run, "curves.parquet") as path:
            if path is None:
                return pd.DataFrame(columns=["update", "name", "value"])
            # Half the time of pandas.read_parquet.
            return parquet.ParquetFile(path).read(use_threads=False).to_pandas()

    def hypotheses(self, run: TrackedRun, test_set: str) -> pd.DataFrame:
        """The translations of a test set; columns source, reference and hypothesis; empty if there are none."""
        table = self.read_json(run, f"hypotheses/{test_set}.json")
        return pd.DataFrame(**table) if table else pd.DataFrame(columns=["source", "reference", "hypothesis"])

    def statistics(self, run: TrackedRun, test_set: str) -> list[Statistics]:
        """The sentence statistics of every quality metric on a test set; empty if the run has none."""
        with self.file(run, f"statistics/{test_set}.npz") as path:
            return quality.read(path) if path else []

    def read_json(self, run: TrackedRun, name: str) -> dict[str, Any]:
        """The content of a JSON file of a run; empty if the run has none, or was killed while it wrote the file.

        Raises:
            MissingFile: the file of a finished run is gone or incomplete.
        """
        with self.file(run, name) as path:
            try:
                return json.loads(path.read_text(encoding="utf-8")) if path else {}
            except ValueError:
                if run.status == "FINISHED":
                    raise MissingFile(where(run, name), f"{run.id} ({run.name})") from None
                return {}


def public_address(address: str) -> str:
    """The address of a server without user name and password; empty for a path on this machine."""
    if not address.startswith(("http://", "https://")):
        return ""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def where(run: TrackedRun, name: str) -> str:
    """The file of a run, as messages name it."""
    local = run.artifacts.startswith("file://")
    return f"{unquote(run.artifacts.removeprefix('file://')) if local else run.artifacts or run.id}/{name}"
