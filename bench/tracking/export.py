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
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import yaml
from mlflow.entities import Experiment
from mlflow.entities import Run as MlflowRun
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from pyarrow import parquet

from bench.system.files import check_inside, fill_file, inside, write_file
from bench.tracking import logged_model
from bench.tracking.private_paths import public_file, public_params, public_tags
from bench.tracking.reading import FILES_TAG, LEFT_OUT_TAG, MissingFile, Reader, TrackedRun, public_address
from bench.tracking.store import FORMAT_TAG, STORE_FORMAT, Store

FORMAT = 1
"""Version of the layout. What is in it has the version STORE_FORMAT."""

INDEX = "export.yaml"
ORIGIN_TAG = "attention_ladder.origin"
"""Tag of an imported run that holds its id in the store where it was made."""

INCOMPLETE_TAG = "attention_ladder.importing"
"""Tag of a run whose import has begun and not ended."""

SHOWN_TABLES = "mlflow.loggedArtifacts"
"""Tag of MLflow with the tables that the UI shows."""

EXAMPLE = "example.txt"
"""File of a model with its input example, a source sentence."""

NUMBERS = re.compile(
    r"config\.yaml|measures\.json|curves\.parquet|corpus_stats\.json|statistics/[^/]+\.npz"
    r"|trials\.json|importance\.json|best\.yaml|best_so_far\.json"
)
"""Files with numbers and settings but without sentences; every export contains them."""

GENERATED = "report/"
"""The folder of a suite's run with its report. It is not exported, because an import writes it anew."""

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


def export(store: Store, folder: Path, suites: Sequence[str], artifacts: bool = False) -> Path:
    """Writes the runs of suites and sweeps into a folder and returns the path of its index.

    The index is written last, so that an incomplete folder is not taken for an export.

    Args:
        suites: Names of suites and sweeps. Of every other sweep, the studies are exported without their trials,
            because the report of a suite shows what they found.
        artifacts: Also export the files with text of the corpus, and the models.

    Raises:
        ValueError: there is no such suite, or the folder holds other files.
    """
    experiments = {suite: _experiment(store, suite) for suite in suites}
    runs = {suite: _complete_runs(store, one) for suite, one in experiments.items()}
    for sweep in store.client.search_experiments():
        studies = store.search([sweep.experiment_id], "tags.kind = 'study'") if sweep.name not in runs else []
        if studies:
            experiments[sweep.name], runs[sweep.name] = sweep, studies
    return _write(store, folder, experiments, runs, artifacts)


def export_run(store: Store, suite: str, run_id: str, folder: Path) -> Path:
    """Exports one job with the run of its suite, without text of the corpus; returns `folder`.

    The folder appears whole or not at all. If it exists, nothing is written: a finished run does not change.
    """
    if (folder / INDEX).is_file():
        return folder
    experiment = _experiment(store, suite)
    found = _complete_runs(store, experiment)
    runs = [run for run in found if run.info.run_id == run_id or run.data.tags.get("kind") == "suite"]
    partial = inside(folder.parent, f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)  # a killed process left it
    try:
        _write(store, partial, {suite: experiment}, {suite: runs}, False)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write(
    store: Store, folder: Path, experiments: dict[str, Experiment], runs: dict[str, list[MlflowRun]], artifacts: bool
) -> Path:
    """Writes the runs of each experiment into a folder and returns the path of its index."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {INDEX, *(f"{name}.parquet" for name in COLUMNS), "artifacts", "models"}
    if foreign := sorted(path.name for path in folder.iterdir() if path.name not in known):
        raise ValueError(f"{folder}: it contains {foreign[0]!r}; expected an empty folder or an export; choose another")
    (folder / INDEX).unlink(missing_ok=True)
    for name in ("artifacts", "models"):
        shutil.rmtree(folder / name, ignore_errors=True)
    origins = {run.info.run_id: origin_of(run) for of_suite in runs.values() for run in of_suite}
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for suite, of_suite in runs.items():
        for run in of_suite:
            _add_run(lines, store, suite, run, folder if artifacts else None, origins)
    for name, columns in COLUMNS.items():
        table = pa.Table.from_pylist(lines[name], pa.schema(columns))
        write = functools.partial(parquet.write_table, table, compression="zstd")
        fill_file(folder / f"{name}.parquet", write)
    index = {
        "format": FORMAT,
        "store_format": STORE_FORMAT,
        "server": public_address(store.uri),  # no path of this machine
        "artifacts": artifacts,
        "experiments": [{"name": one.name, "id": one.experiment_id, "tags": one.tags} for one in experiments.values()],
    }
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    index["sha256"] = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    write_file(folder / INDEX, yaml.safe_dump(index, sort_keys=False, allow_unicode=True))
    return folder / INDEX


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _complete_runs(store: Store, experiment: Experiment) -> list[MlflowRun]:
    """The runs of an experiment, newest first, without those whose import has not ended."""
    found = store.search([experiment.experiment_id], "")
    return [run for run in found if INCOMPLETE_TAG not in run.data.tags]


def exportable(store: Store) -> list[str]:
    """Names of the suites and sweeps of a store that have runs."""
    found = [] if store.is_missing else store.client.search_experiments()
    return [one.name for one in found if FORMAT_TAG in one.tags and store.search([one.experiment_id], "")]


def _experiment(store: Store, suite: str) -> Experiment:
    """The MLflow experiment of a suite or sweep. Raises ValueError if there is none."""
    found = None if store.is_missing else store.client.get_experiment_by_name(suite)
    if found is None:
        names = [] if store.is_missing else [one.name for one in store.client.search_experiments()]
        raise ValueError(
            f"--suite: there is no suite or sweep {suite!r} in {store.uri}; there are: {', '.join(names) or 'none yet'}"
        )
    return found


def origin_of(run: MlflowRun) -> str:
    """The id of a run in the store where it was made."""
    return run.data.tags.get(ORIGIN_TAG, run.info.run_id)


def with_experiments(text: str, experiments: dict[str, str]) -> str:
    """A text in which the experiments of links inside the UI are replaced. Links to a server keep its ids."""
    link = r"(?<![\w/])#/experiments/(\d+)(?!\d)"
    return re.sub(link, lambda found: f"#/experiments/{experiments.get(found[1], found[1])}", text)


def with_ids(text: str, ids: dict[str, str]) -> str:
    """A text in which every known run id is replaced. Longer hexadecimal numbers, such as hashes, stay as they are."""
    return re.sub(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", lambda found: ids.get(found[0], found[0]), text)


def _add_run(
    lines: dict[str, list[dict[str, Any]]],
    store: Store,
    suite: str,
    run: MlflowRun,
    folder: Path | None,
    origins: dict[str, str],
) -> None:
    """Adds a run to the lines of the tables, and its other files and its model to `folder` unless that is None."""
    tracked, origin = store.run(run.info.run_id), origins[run.info.run_id]
    left_out: list[str] = json.loads(tracked.tags.get(LEFT_OUT_TAG, "[]"))
    for path in _list_files(tracked, store):
        with store.file(tracked, path) as file:
            if file is None or path.startswith(GENERATED):
                continue
            if NUMBERS.fullmatch(path):
                lines["files"].append({"run": origin, "path": path, "content": public_file(file.read_bytes(), path)})
            elif folder:
                to = inside(folder, "artifacts", origin, *PurePosixPath(path).parts)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to)
            else:
                left_out.append(path)
    if folder:
        _copy_model(store, tracked, inside(folder, "models", origin))
    public = public_tags(tracked.tags)
    tags = {key: with_ids(value, origins) for key, value in public.items() if key != ORIGIN_TAG}
    tags |= _tags_without(tags, left_out)
    info = run.info
    lines["runs"].append(
        {"run": origin, "experiment": suite, "name": tracked.name, "status": info.status}
        | {
            "started": info.start_time or 0,
            "ended": info.end_time,
            "tags": tags,
            "params": public_params(tracked.params),
        }
    )
    # A point of the history does not tell to which model and data set it is linked, but the model does.
    model = logged_model.find(store.client, info.run_id)
    links = {(one.key, one.timestamp, one.step): one for one in (model.metrics or () if model else ())}
    for key in tracked.metrics:
        for point in store.client.get_metric_history(info.run_id, key):
            link = links.get((key, point.timestamp, point.step))
            lines["metrics"].append(
                {"run": origin, "key": key, "value": point.value, "step": point.step, "time": point.timestamp}
                | {"dataset": link and link.dataset_name, "digest": link and link.dataset_digest}
                | {"of_model": link is not None}
            )
    for each in run.inputs.dataset_inputs if run.inputs else []:
        data = each.dataset
        context = next((tag.value for tag in each.tags if tag.key == "mlflow.data.context"), "")
        lines["datasets"].append(
            {"run": origin, "name": data.name, "digest": data.digest, "kind": data.source_type, "source": data.source}
            | {"profile": data.profile, "context": context}
        )


def _tags_without(tags: dict[str, str], left_out: Sequence[str]) -> dict[str, str]:
    """The tags that name the files of a run, without those that are left out."""
    if not left_out:
        return {}
    tables = [entry for entry in json.loads(tags.get(SHOWN_TABLES, "[]")) if entry["path"] not in left_out]
    files = [name for name in json.loads(tags.get(FILES_TAG, "[]")) if name not in left_out]
    return {
        SHOWN_TABLES: json.dumps(tables),
        FILES_TAG: json.dumps(files),
        LEFT_OUT_TAG: json.dumps(sorted(set(left_out))),
    }


def _list_files(run: TrackedRun, store: Store, folder: str = "") -> Iterator[str]:
    """The paths of all files of a run, and of those that it has recorded but that are gone."""
    repository = get_artifact_repository(run.artifacts, tracking_uri=store.client.tracking_uri)

    def below(folder: str) -> Iterator[str]:
        for entry in repository.list_artifacts(folder or None):
            if entry.is_dir:
                yield from below(entry.path)
            else:
                yield entry.path

    yield from sorted({*below(folder), *run.files})


def _copy_model(store: Store, run: TrackedRun, to: Path) -> None:
    """Copies the translator of a run, if it has a model, and the example sentence of the model."""
    with tempfile.TemporaryDirectory() as temporary:
        translator = store.download_translator(run, Path(temporary))
        if translator is None:
            return
        to.mkdir(parents=True)
        for file in sorted(translator.iterdir()):
            if file.name == "config.yaml":
                (to / file.name).write_bytes(public_file(file.read_bytes(), file.name))
            else:
                check_inside(file, translator)
                shutil.copyfile(file, inside(to, file.name))
    (to / EXAMPLE).write_text(logged_model.read_example(store.client, run.id, store.locate), encoding="utf-8")


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
            index = yaml.safe_load((folder / INDEX).read_text(encoding="utf-8"))
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
        if _sha256(path) != self.hashes.get(name):
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

    Raises:
        ValueError: a folder is no export and holds none, or another version wrote it.
    """
    found: list[Export] = []
    for folder in folders:
        inner = sorted(folder.glob(f"*/{INDEX}")) if not (folder / INDEX).is_file() else []
        found += [Export(path.parent) for path in inner] or [Export(folder)]
    return found
