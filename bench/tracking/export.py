"""Writes exports: the runs of suites and sweeps in a folder. Their layout and their reader are in exported.py."""

from __future__ import annotations

import functools
import glob
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
import pyarrow as pa
import yaml
from mlflow.entities import Experiment
from mlflow.entities import Run as MlflowRun
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from pyarrow import parquet

from bench.system.files import check_inside, fill_file, inside, sha256, write_file
from bench.tracking import logged_model
from bench.tracking.exported import COLUMNS, EXAMPLE, FORMAT, INCOMPLETE_TAG, INDEX, ORIGIN_TAG
from bench.tracking.pages import all_experiments
from bench.tracking.private_paths import public_file, public_params, public_tags
from bench.tracking.reading import FILES_TAG, LEFT_OUT_TAG, TrackedRun, public_address
from bench.tracking.store import Store
from bench.tracking.store_format import FORMAT_TAG, STORE_FORMAT

SHOWN_TABLES = "mlflow.loggedArtifacts"
"""Tag of MLflow with the tables that the UI shows."""

NUMBERS = re.compile(
    r"config\.yaml|measures\.json|curves\.parquet|corpus_stats\.json|statistics/[^/]+\.npz"
    r"|trials\.json|importance\.json|best\.yaml|best_so_far\.json|study\.json"
)
"""Files with numbers and settings but without sentences; every export contains them."""

ARTIFACTS = ("artifacts", "models")
CONTENT = (*(f"{name}.parquet" for name in COLUMNS), *ARTIFACTS)
"""Files and folders of an export besides its index."""

INCOMPLETE = ".incomplete"
"""Folder, in that of an export, into which the next export is written until it is complete."""

GENERATED = "report/"
"""The folder of a suite's run with its report. It is not exported, because an import writes it anew."""


def export(store: Store, folder: Path, suites: Sequence[str], artifacts: bool = False) -> Path:
    """Writes the runs of suites and sweeps into a folder and returns the path of its index.

    An export that the folder holds already stays until the new one is complete. The index is moved last, so that an
    incomplete folder is not taken for an export.

    Args:
        suites: Names of suites and sweeps. Of every other sweep, the studies are exported without their trials,
            because the report of a suite shows what they found.
        artifacts: Also export the files with text of the corpus, and the models.

    Raises:
        ValueError: there is no such suite, the folder holds other files, or an export with `artifacts` would be
            replaced by one without them.
    """
    experiments = {suite: _experiment(store, suite) for suite in suites}
    runs = {suite: _complete_runs(store, one) for suite, one in experiments.items()}
    for sweep in all_experiments(store.client):
        studies = store.search([sweep.experiment_id], "tags.kind = 'study'") if sweep.name not in runs else []
        if studies:
            experiments[sweep.name], runs[sweep.name] = sweep, studies
    _check_folder(folder, artifacts)
    shutil.rmtree(folder / INCOMPLETE, ignore_errors=True)
    try:
        _write(store, folder / INCOMPLETE, experiments, runs, artifacts)
        (folder / INDEX).unlink(missing_ok=True)
        for name in CONTENT:
            if name in ARTIFACTS:
                shutil.rmtree(folder / name, ignore_errors=True)
            if (folder / INCOMPLETE / name).exists():  # files replace those of the export before
                os.replace(folder / INCOMPLETE / name, folder / name)
        os.replace(folder / INCOMPLETE / INDEX, folder / INDEX)
    finally:
        shutil.rmtree(folder / INCOMPLETE, ignore_errors=True)
    return folder / INDEX


def _check_folder(folder: Path, artifacts: bool) -> None:
    """Raises ValueError if an export must not be written into a folder."""
    known = {INDEX, *CONTENT, INCOMPLETE}
    if folder.is_dir() and (foreign := sorted(path.name for path in folder.iterdir() if path.name not in known)):
        raise ValueError(f"{folder}: it contains {foreign[0]!r}; expected an empty folder or an export; choose another")
    if not artifacts and any((folder / name).exists() for name in ARTIFACTS):
        raise ValueError(
            f"{folder}: holds an export with --artifacts, whose texts and models one without them would delete; "
            "add --artifacts, or choose another folder"
        )


def export_run(store: Store, suite: str, run_id: str, folder: Path) -> Path:
    """Exports one job with the run of its suite, without text of the corpus; returns `folder`.

    The folder appears whole or not at all. If it exists, nothing is written: a finished run does not change.
    """
    if (folder / INDEX).is_file():
        return folder
    experiment = _experiment(store, suite)
    found = _complete_runs(store, experiment)
    runs = [run for run in found if run.info.run_id == run_id or run.data.tags.get("kind") == "suite"]
    begin = f".{folder.name}.{re.sub(r'[^A-Za-z0-9-]', '-', socket.gethostname())}."
    # A killed process of this machine may have left its part. Those of other machines may be in progress.
    for left in folder.parent.glob(f"{glob.escape(begin)}*"):
        if not psutil.pid_exists(int(left.suffix.removeprefix("."))):
            shutil.rmtree(left, ignore_errors=True)
    partial = inside(folder.parent, f"{begin}{os.getpid()}")
    try:
        _write(store, partial, {suite: experiment}, {suite: runs}, False)
        os.replace(partial, folder)
    except OSError:
        if not (folder / INDEX).is_file():  # else another process has exported the same run
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write(
    store: Store, folder: Path, experiments: dict[str, Experiment], runs: dict[str, list[MlflowRun]], artifacts: bool
) -> Path:
    """Writes the runs of each experiment into an empty folder and returns the path of its index."""
    folder.mkdir(parents=True, exist_ok=True)
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
    index["sha256"] = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    write_file(folder / INDEX, yaml.safe_dump(index, sort_keys=False, allow_unicode=True))
    return folder / INDEX


def _complete_runs(store: Store, experiment: Experiment) -> list[MlflowRun]:
    """The runs of an experiment, newest first, without those whose import has not ended."""
    found = store.search([experiment.experiment_id], "")
    return [run for run in found if INCOMPLETE_TAG not in run.data.tags]


def exportable(store: Store) -> list[str]:
    """Names of the suites and sweeps of a store that have runs."""
    found = [] if store.is_missing else all_experiments(store.client)
    return [one.name for one in found if FORMAT_TAG in one.tags and store.search([one.experiment_id], "")]


def _experiment(store: Store, suite: str) -> Experiment:
    """The MLflow experiment of a suite or sweep. Raises ValueError if there is none."""
    found = None if store.is_missing else store.client.get_experiment_by_name(suite)
    if found is None:
        names = [] if store.is_missing else [one.name for one in all_experiments(store.client)]
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
