"""Exports: the runs of suites and sweeps in a folder, which other stores import and reports read.

export.yaml         versions of the format, address of the server if there was one, and the experiments with their tags
runs.parquet        one line for each run: experiment, name, status, times, tags and params
metrics.parquet     one line for each point of an MLflow metric: value, update, time and data set
datasets.parquet    one line for each data set of a run
files.parquet       files with the numbers of each run, as they are: measures, curves, sentence statistics, settings
artifacts/RUN/      only on request: all other files, which contain sentences of the corpus
models/RUN/         only on request: trained models, without the code and the description that MLflow adds

A run has the id that it had in the store where it was made, also after it was moved several times. Without the last two
folders an export has no text of the corpus. Of paths of the machine only the last part is kept (private_paths.py).
export.yaml has the SHA-256 of every other file.
"""

from __future__ import annotations

import contextlib
import functools
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import parquet

from bench.system.files import inside, sha256
from bench.tracking.reading import MissingFile, Reader, TrackedRun
from bench.tracking.store_format import STORE_FORMAT

FORMAT = 1
"""Version of the layout. What is in it has the version STORE_FORMAT."""

INDEX = "export.yaml"
ORIGIN_TAG = "attention_ladder.origin"
"""Tag of an imported run that holds its id in the store where it was made."""

INCOMPLETE_TAG = "attention_ladder.importing"
"""Tag of a run whose import has begun and not ended."""

EXAMPLE = "example.txt"
"""File of a model with its input example, a source sentence."""

TEXT, WHOLE, TEXTS = pa.string(), pa.int64(), pa.map_(pa.string(), pa.string())
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "runs": {"run": TEXT, "experiment": TEXT, "name": TEXT, "status": TEXT, "started": WHOLE, "ended": WHOLE}
    | {"tags": TEXTS, "params": TEXTS},
    "metrics": {"run": TEXT, "key": TEXT, "value": pa.float64(), "step": WHOLE, "time": WHOLE}
    | {"dataset": TEXT, "digest": TEXT, "of_model": pa.bool_()},
    "datasets": dict.fromkeys(("run", "name", "digest", "kind", "source", "profile", "context"), TEXT),
    "files": {"run": TEXT, "path": TEXT, "content": pa.binary()},
}
"""Table -> its columns. Times are milliseconds since 1970."""


OPTIONAL = ("ended", "dataset", "digest", "profile")
"""Columns that may have no value."""

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class ExportedRun:
    """A run of an export, with all that an import needs.

    Attributes:
        run: As reports read it; its id is that of its origin.
        ended: In milliseconds since 1970; None if it has not ended.
        history: The points of its metrics, lines of metrics.parquet.
        datasets: Its data sets, lines of datasets.parquet.
        files: Path -> content, of its files in files.parquet.
    """

    run: TrackedRun
    experiment: str
    ended: int | None
    history: list[dict[str, Any]]
    datasets: list[dict[str, Any]]
    files: dict[str, bytes]


def _text(value: object) -> str:
    """The value, which must be a text. Raises TypeError if it is not."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {_text(key): _text(each) for key, each in value.items()}


class Export(Reader):
    """Reads the runs of an export. It is data that somebody else may have made: nothing in it is executed.

    Raises:
        ValueError: the folder is not an export, or another version of this program wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = yaml.load((folder / INDEX).read_text(encoding="utf-8"), yaml.CSafeLoader)
            versions = index["format"], index["store_format"]
            self.uri = _text(index["server"])
            self.hashes = _texts(index["sha256"]) if versions == (FORMAT, STORE_FORMAT) else {}
            self.experiments = {
                _text(one["name"]): {"id": _text(one["id"]), "tags": _texts(one["tags"])}
                for one in index["experiments"]
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
            raise ValueError(f"{folder} has no readable {INDEX}; make one with bench store export FOLDER") from error
        if versions != (FORMAT, STORE_FORMAT):
            raise ValueError(
                f"{folder / INDEX}: has format {versions[0]} with runs of format {versions[1]}, but this version reads "
                f"format {FORMAT} with runs of format {STORE_FORMAT}; export the runs again"
            )

    def check(self, path: Path) -> Path:
        """Returns the path of a file of the export.

        Raises:
            ValueError: the file is incomplete or was changed, or it is a link that leads out of the folder.
        """
        name = path.relative_to(self.folder).as_posix()
        inside(self.folder, *name.split("/"))
        if sha256(path) != self.hashes.get(name):
            raise ValueError(
                f"{path}: incomplete or changed: its SHA-256 is not that in {INDEX}; copy it or export the runs again"
            )
        return path

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / f"{name}.parquet"
        try:
            self.check(path)
            table = parquet.ParquetFile(path).read(use_threads=False).select(list(COLUMNS[name]))
            if empty := [each for each in COLUMNS[name] if each not in OPTIONAL and table[each].null_count]:
                raise KeyError(f"{empty[0]}: a value is missing")
            return table.cast(pa.schema(COLUMNS[name])).to_pylist(maps_as_pydicts="strict")
        except (OSError, KeyError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0][:200]
            raise ValueError(
                f"{path}: not readable as a table of an export: {reason}; export the runs again"
            ) from error

    @functools.cached_property
    def exported(self) -> dict[str, ExportedRun]:
        """Run id -> the run, in the order of the store."""
        found: dict[str, ExportedRun] = {}
        for line in self._lines("runs"):
            if not re.fullmatch("[0-9a-f]{32}", line["run"] or ""):
                raise ValueError(
                    f"{self.folder}/runs.parquet: {line['run']!r} is not the id of a run; export the runs again"
                )
            if line["status"] not in STATUSES or line["experiment"] not in self.experiments:
                raise ValueError(
                    f"{self.folder}/runs.parquet: the run {line['run']} has an unknown status or experiment: "
                    f"{line['status']!r}, {line['experiment']!r}; export the runs again"
                )
            try:
                started = datetime.fromtimestamp(line["started"] / 1000, UTC)
                ended = datetime.fromtimestamp(line["ended"] / 1000, UTC) if line["ended"] else None
            except (ValueError, OverflowError, OSError) as error:
                raise ValueError(f"{self.folder}/runs.parquet: times: {error}; export the runs again") from error
            texts = line["tags"], line["params"], {}
            run = TrackedRun(line["run"], line["name"], line["status"], started, *texts, ended=ended)
            found[run.id] = ExportedRun(run, line["experiment"], line["ended"], [], [], {})
        for name in ("metrics", "datasets", "files"):
            for line in self._lines(name):
                if line["run"] not in found:
                    raise ValueError(f"{self.folder}/{name}.parquet: the run {line['run']!r} is not in runs.parquet")
                run = found[line["run"]]
                if name == "files":
                    inside(self.folder, *line["path"].split("/"))
                    run.files[line["path"]] = line["content"]
                else:
                    (run.history if name == "metrics" else run.datasets).append(line)
        for one in found.values():
            in_order = sorted(one.history, key=lambda point: (point["step"], point["time"]))
            one.run.metrics.update({point["key"]: point["value"] for point in in_order})
        return found

    def _of(self, suite: str, kind: str) -> list[TrackedRun]:
        """The runs of one kind in an experiment, newest first."""
        runs = [
            one.run for one in self.exported.values() if one.experiment == suite and one.run.tags.get("kind") == kind
        ]
        return sorted(runs, key=lambda run: run.started, reverse=True)

    def suites(self) -> list[str]:
        newest = {name: jobs[0].started for name in self.experiments if (jobs := self._of(name, "job"))}
        return sorted(newest, key=lambda name: newest[name], reverse=True)

    def runs(self, suite: str) -> list[TrackedRun]:
        if suite not in self.experiments:
            known = ", ".join(self.suites())
            raise ValueError(f"--suite: there is no suite {suite!r} in {self.folder}; there are: {known}")
        return self._of(suite, "job")

    def parent_run(self, suite: str) -> TrackedRun | None:
        return next(iter(self._of(suite, "suite")), None)

    def experiment_id(self, suite: str) -> str:
        return str(self.experiments[suite]["id"])

    def studies(self, suite: str | None = None) -> list[TrackedRun]:
        names = [suite] if suite else list(self.experiments)
        found = [study for name in names for study in self._of(name, "study")]
        return sorted(found, key=lambda study: study.started, reverse=True)

    def list_files(self, run: TrackedRun, folder: str) -> list[str]:
        found = {path for path in self.exported[run.id].files if path.rpartition("/")[0] == folder}
        below = inside(self.folder, "artifacts", run.id, *PurePosixPath(folder).parts)
        found |= {f"{folder}/{path.name}" for path in below.iterdir()} if below.is_dir() else set()
        for path in run.files:
            if path.rpartition("/")[0] == folder and path not in found:
                raise MissingFile(f"{self.folder}/artifacts/{run.id}/{path}", f"{run.id} ({run.name})")
        return sorted(path.rpartition("/")[2] for path in found)

    @contextlib.contextmanager
    def artifact(self, run: TrackedRun, name: str) -> Iterator[Path | None]:
        content = self.exported[run.id].files.get(name)
        if content is None:
            path = inside(self.folder, "artifacts", run.id, *PurePosixPath(name).parts)
            yield self.check(path) if path.is_file() else None
            return
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / PurePosixPath(name).name
            path.write_bytes(content)
            yield path

    def other_files(self, run: TrackedRun) -> Iterable[tuple[str, Path]]:
        """(path among the artifacts of the run, file) of the files that are not in files.parquet."""
        root = inside(self.folder, "artifacts", run.id)
        for path in sorted(root.rglob("*")) if root.is_dir() else []:
            if path.is_file():
                parts = path.relative_to(root).parts
                yield "/".join(parts), self.check(path)

    def model(self, run: TrackedRun) -> list[Path]:
        """The files of the run's model; empty if the export has none."""
        names = [name for name in self.hashes if name.startswith(f"models/{run.id}/")]
        return [self.check(inside(self.folder, *name.split("/"))) for name in names]


def read_exports(folders: Sequence[Path]) -> list[Export]:
    """The exports in some folders, each of which is an export, or holds one in each of its folders (by name).

    They may also be in the folder `runs` of a folder, as in reports/results.

    Raises:
        ValueError: a folder is no export and holds none, or another version wrote it.
    """
    found: list[Export] = []
    for folder in map(results_folder, folders):
        inner = [] if (folder / INDEX).is_file() else _inner_exports(folder)
        found += [_opened(path, (path / INDEX).stat().st_mtime_ns) for path in inner] or [Export(folder)]
    return found


@functools.lru_cache(maxsize=1024)
def _opened(folder: Path, written_ns: int) -> Export:
    """An export as it was written at this time: a suite reads its results for the missing jobs and for its table."""
    return Export(folder)


def holds_exports(folder: Path) -> bool:
    """Whether a folder is an export or holds one in one of its folders."""
    return (folder / INDEX).is_file() or bool(_inner_exports(folder))


def _inner_exports(folder: Path) -> list[Path]:
    """The folders in a folder that are exports, without hidden ones, which are not complete."""
    return [path.parent for path in sorted(folder.glob(f"*/{INDEX}")) if not path.parent.name.startswith(".")]


def results_folder(folder: Path) -> Path:
    """The folder in which exports are searched: `folder`, or its folder `runs` if only that holds exports."""
    return folder / "runs" if not holds_exports(folder) and holds_exports(folder / "runs") else folder
