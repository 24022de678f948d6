"""A snapshot: a folder with everything that a report reads of a suite. A report made from it has the same bytes.

snapshot.json       the suites: experiment id in MLflow, parent run, jobs; and the address of the server, if any
RUN/...             the files of each run that a report reads
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from bench.system.files import inside, write_file
from bench.tracking.reading import Reader, TrackedRun, public_address

INDEX = "snapshot.json"
FORMAT = 2


class Snapshot(Reader):
    """Reads the runs of a suite from a snapshot.

    Raises:
        ValueError: the folder is not a snapshot, or another version of this program wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            version = index["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"--from: {folder} has no readable {INDEX}; make one with bench report --export FOLDER"
            ) from error
        if version != FORMAT:
            raise ValueError(
                f"--from: {folder} has format {version}, but this version reads format {FORMAT}; export it again"
            )
        self.uri: str = index["uri"]
        self._suites: dict[str, dict[str, Any]] = index["suites"]
        self._studies: list[dict[str, Any]] = index["studies"]

    def suites(self) -> list[str]:
        return list(self._suites)

    def runs(self, suite: str) -> list[TrackedRun]:
        return [_run(entry) for entry in self._suite(suite)["runs"]]

    def parent_run(self, suite: str) -> TrackedRun | None:
        entry = self._suite(suite)["own"]
        return _run(entry) if entry else None

    def experiment_id(self, suite: str) -> str:
        return self._suite(suite)["experiment"]

    def studies(self, suite: str | None = None) -> list[TrackedRun]:
        return [_run(entry) for entry in self._studies]

    def list_files(self, run: TrackedRun, folder: str) -> list[str]:
        artifacts = inside(self.folder, run.id, *PurePosixPath(folder).parts)
        return sorted(path.name for path in artifacts.iterdir()) if artifacts.is_dir() else []

    def _suite(self, suite: str) -> dict[str, Any]:
        if suite not in self._suites:
            known = ", ".join(self._suites)
            raise ValueError(f"--suite: there is no suite {suite!r} in {self.folder}; there are: {known}")
        return self._suites[suite]

    @contextlib.contextmanager
    def artifact(self, run: TrackedRun, name: str) -> Iterator[Path | None]:
        path = inside(self.folder, run.id, *PurePosixPath(name).parts)
        yield path if path.is_file() else None


class Recorder(Reader):
    """Reads through another reader and records what was read, so that `export` can write it as a snapshot."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.uri = reader, reader.uri
        self.artifacts_read: dict[tuple[str, str], TrackedRun] = {}
        self.suites_read: dict[str, None] = {}

    def suites(self) -> list[str]:
        return self.reader.suites()

    def runs(self, suite: str) -> list[TrackedRun]:
        self.suites_read[suite] = None
        return self.reader.runs(suite)

    def parent_run(self, suite: str) -> TrackedRun | None:
        return self.reader.parent_run(suite)

    def experiment_id(self, suite: str) -> str:
        return self.reader.experiment_id(suite)

    def studies(self, suite: str | None = None) -> list[TrackedRun]:
        return self.reader.studies(suite)

    def list_files(self, run: TrackedRun, folder: str) -> list[str]:
        return self.reader.list_files(run, folder)

    def artifact(self, run: TrackedRun, name: str) -> contextlib.AbstractContextManager[Path | None]:
        self.artifacts_read[run.id, name] = run
        return self.reader.artifact(run, name)

    def export(self, folder: Path) -> Path:
        """Writes everything that was read into a folder and returns the path of its index.

        The index is written last, so that an incomplete folder is not taken for a snapshot.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        for (_, name), run in self.artifacts_read.items():
            with self.reader.artifact(run, name) as path:
                if path is not None:
                    to = inside(folder, run.id, *PurePosixPath(name).parts)
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, to)
        index = {
            "format": FORMAT,
            "uri": public_address(self.uri),  # no path of this machine
            "studies": [_entry(study) for study in self.reader.studies()],
            "suites": {suite: self._entry(suite) for suite in self.suites_read},
        }
        write_file(folder / INDEX, json.dumps(index, indent=1))
        return folder / INDEX

    def _entry(self, suite: str) -> dict[str, Any]:
        own = self.reader.parent_run(suite)
        return {
            "experiment": self.reader.experiment_id(suite),
            "own": _entry(own) if own else None,
            "runs": [_entry(run) for run in self.reader.runs(suite)],
        }


def _entry(run: TrackedRun) -> dict[str, Any]:
    tags = {key: value for key, value in run.tags.items() if not key.startswith(("mlflow.user", "mlflow.source.name"))}
    return asdict(run) | {"started": run.started.isoformat(), "tags": tags, "artifacts": ""}


def _run(entry: dict[str, Any]) -> TrackedRun:
    started: Any = datetime.fromisoformat(entry["started"])
    return TrackedRun(**(entry | {"started": started}))
