"""Imports the runs of an export into a store. What is there already is left as it is, so an import can be repeated."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun

from bench.system.files import inside
from bench.tracking import logged_model, ui_view
from bench.tracking.export import ORIGIN_TAG, Export, ExportedRun, origin_of, with_ids
from bench.tracking.reading import TrackedRun
from bench.tracking.store import DESCRIPTION_TAG, PARENT_TAG, Store

INCOMPLETE_TAG = "attention_ladder.importing"
"""Tag of a run whose import has begun and not ended."""

PARENTS = ("suite", "study")
"""Kinds of runs that a store has once for each suite or study: they are joined with those of the same name."""


@dataclass(frozen=True)
class ImportResult:
    """What an import did.

    Attributes:
        added: Number of runs that are new in the store.
        present: Number of runs that the store had already.
        suites: Names of the suites of the export that have jobs.
    """

    added: int
    present: int
    suites: Sequence[str]


def import_runs(store: Store, export: Export) -> ImportResult:
    """Adds the runs of an export to a store.

    Run ids are those of the new store, everywhere: in links to parents, in tags and in files. A run that the store has
    already, from this export or because it was made here, is left as it is. A run whose import was interrupted keeps
    its id, which other runs may name already, and is written again.

    Raises:
        ValueError: a file of the export is not readable, or an experiment of the store has another format.
    """
    ids, added = {}, []
    for name in export.experiments:
        experiment = store.experiment_id(name)
        here = {origin_of(run): run for run in store.search([experiment], "")}
        for one in (run for run in export.exported.values() if run.experiment == name):
            known = here.get(one.run.id)
            same = known.info.run_id if known else _same_parent(store, name, one.run)
            ids[one.run.id] = same or _create(store, experiment, one)
            if same is None or (known and INCOMPLETE_TAG in known.data.tags):
                added.append(one)
    for one in added:
        _fill(store, ids[one.run.id], one, export, ids)
    for name in export.experiments:
        _set_views(store, name, export, ids)
    return ImportResult(len(added), len(ids) - len(added), export.suites())


def _same_parent(store: Store, suite: str, run: TrackedRun) -> str | None:
    """The store's own parent run that stands for an exported one; None if there is none, or `run` is no parent."""
    if run.tags.get("kind") not in PARENTS:
        return None
    found = store.parent_run(suite, run.tags.get("study", ""))
    return found.id if found else None


def _create(store: Store, experiment: str, one: ExportedRun) -> str:
    """Creates an empty run, marked as incomplete, and returns its id."""
    started = int(one.run.started.timestamp() * 1000)
    tags = {INCOMPLETE_TAG: "true", ORIGIN_TAG: one.run.id}
    run: MlflowRun = store.client.create_run(experiment, started, tags, one.run.name)
    return run.info.run_id


def _fill(store: Store, run_id: str, one: ExportedRun, export: Export, ids: dict[str, str]) -> None:
    """Writes everything of an exported run into the run `run_id`, and marks it as complete."""
    client = store.client
    tags = {key: with_ids(value, ids) for key, value in one.run.tags.items()}
    if tags.get(PARENT_TAG) not in (None, *ids.values()):
        tags.pop(PARENT_TAG, None)  # its parent is not part of the export
    params = [Param(key, value) for key, value in one.run.params.items()]
    for begin in range(0, len(params), 100):
        client.log_batch(run_id, params=params[begin : begin + 100])
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    inputs = [
        DatasetInput(
            Dataset(line["name"], line["digest"], line["kind"], line["source"], None, line["profile"]),
            [InputTag("mlflow.data.context", line["context"])],
        )
        for line in one.datasets
    ]
    if inputs:
        client.log_inputs(run_id, inputs)
    model = _import_model(store, run_id, export.model(one.run))
    points = [
        Metric(
            *(line[name] for name in ("key", "value", "time", "step")),
            model_id=model if line["of_model"] else None,
            dataset_name=line["dataset"],
            dataset_digest=line["digest"],
        )
        for line in one.history
    ]
    for begin in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[begin : begin + 1000])
    with tempfile.TemporaryDirectory() as temporary:
        _write_files(Path(temporary), one, export, ids)
        client.log_artifacts(run_id, temporary)
    # A run that was still running at its origin has ended for this store: nobody continues it here.
    status = one.run.status if one.run.status in ("FINISHED", "FAILED", "KILLED") else "KILLED"
    client.set_terminated(run_id, status, one.ended)
    client.delete_tag(run_id, INCOMPLETE_TAG)


def _write_files(folder: Path, one: ExportedRun, export: Export, ids: dict[str, str]) -> None:
    """Writes the files of an exported run into `folder`, with the run ids of the new store."""
    for path, content in one.files.items():
        to = inside(folder, *path.split("/"))
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.suffix in (".json", ".yaml"):
            content = with_ids(content.decode("utf-8"), ids).encode("utf-8")
        to.write_bytes(content)
    for path, file in export.other_files(one.run):
        to = inside(folder, *path.split("/"))
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)


def _import_model(store: Store, run_id: str, folder: Path | None) -> str | None:
    """Creates the LoggedModel of a run from the files in `folder`; returns its id, or None if there is no folder."""
    if folder is None:
        return None
    client = store.client
    run = client.get_run(run_id)
    if known := logged_model.find_or_clear(client, run):
        return known.model_id
    about = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    model = logged_model.create(client, run)
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "model"
        shutil.copytree(folder, copy)
        about |= {"run_id": run_id, "model_id": model.model_id, "artifact_path": model.artifact_location}
        (copy / "MLmodel").write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")
        logged_model.complete(client, model, run_id, copy)
    return model.model_id


def _set_views(store: Store, name: str, export: Export, ids: dict[str, str]) -> None:
    """Gives an experiment the views and the description that it had, if it has none, with the ids of the new store."""
    experiment = store.client.get_experiment(store.experiment_id(name))
    views = {ui_view.tag(kind) for kind in ui_view.QUERIES}
    tags: dict[str, str] = export.experiments[name]["tags"]
    for key in {*views, DESCRIPTION_TAG} & tags.keys() - experiment.tags.keys():
        old, new = (ui_view.page(identifier) for identifier in (export.experiment_id(name), experiment.experiment_id))
        store.client.set_experiment_tag(experiment.experiment_id, key, with_ids(tags[key], ids).replace(old, new))
