"""Imports the runs of exports into a store. What is there already is left as it is, so an import can be repeated."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun

from bench.system.files import inside
from bench.system.visible_text import visible
from bench.tracking import logged_model, ui_view
from bench.tracking.export import origin_of, with_experiments, with_ids
from bench.tracking.exported import EXAMPLE, INCOMPLETE_TAG, INDEX, ORIGIN_TAG, Export, ExportedRun
from bench.tracking.joined import JoinedReader
from bench.tracking.reading import JOBS_TAG, LEFT_OUT_TAG, TrackedRun
from bench.tracking.retry import log_datasets
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import DESCRIPTION_TAG, PARENT_TAG, Store

PARENTS = ("suite", "study")
"""Kinds of runs that a store has once for each suite or study: they are joined with those of the same name."""


@dataclass(frozen=True)
class ImportResult:
    """What an import did.

    Attributes:
        added: Number of runs that are new in the store.
        present: Number of runs that the store had already.
        suites: Names of the suites of the exports that have jobs.
    """

    added: int
    present: int
    suites: Sequence[str]


def import_runs(store: Store, exports: Sequence[Export]) -> ImportResult:
    """Adds the runs of exports to a store.

    Run ids are those of the new store, everywhere: in links to parents, in tags and in files. A run that the store has
    already, from an export or because it was made here, is left as it is, unless it was imported and the export has
    more of it: its end, or files that were left out. A run whose import was interrupted keeps its id, which other runs
    may name already, and is written again. Of a run that is in several exports, that of the newest export is taken.

    Raises:
        ValueError: a file of an export is not readable, or an experiment of the store has another format.
    """
    exports = sorted(exports, key=lambda export: max(map(_start, export.exported.values()), default=0), reverse=True)
    newest_of = {name: export for export in reversed(exports) for name in export.experiments}
    merge = _Merge(store)
    for name in newest_of:
        merge.experiment(name, exports)
    in_links = {
        export.folder: {export.experiment_id(name): store.experiment_id(name) for name in export.experiments}
        for export in exports
    }

    def replacing(export: Export) -> Callable[[str], str]:
        return lambda text: with_experiments(with_ids(text, merge.ids), in_links[export.folder])

    for one, export in (*merge.added, *merge.more):
        _fill(store, merge.ids[one.run.id], one, export, _final_status(one, exports), replacing(export))
    for name, export in newest_of.items():
        _set_views(store, name, export, replacing(export))
        _describe_suite(store, name, exports, replacing(export))
    suites = dict.fromkeys(suite for export in exports for suite in export.suites())
    return ImportResult(len(merge.added), len(merge.seen) - len(merge.added), list(suites))


class _Merge:
    """Which run of a store stands for which exported run. Runs that the store lacks are created, still empty.

    Attributes:
        ids: Id of an exported run -> id of the run in the store.
        seen: Ids of the exported runs.
        added: Exported runs that are new in the store, or whose import was interrupted, each with its export.
        more: Exported runs that the store has, but not all of them.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ids, self.seen = dict[str, str](), set[str]()
        self.added, self.more = list[tuple[ExportedRun, Export]](), list[tuple[ExportedRun, Export]]()

    def experiment(self, name: str, exports: Sequence[Export]) -> None:
        """Takes the runs of one experiment. Of a run that is in several exports, that of the first one is taken."""
        experiment = self.store.experiment_id(name)
        here = {origin_of(run): run for run in self.store.search([experiment], "")}
        self.ids |= {origin: run.info.run_id for origin, run in here.items()}
        parents: dict[tuple[str, str], str] = {}  # kind and study -> the run that was created for it
        for one, export in ((one, source) for source in exports for one in source.exported.values()):
            if one.experiment != name or one.run.id in self.seen:
                continue
            self.seen.add(one.run.id)
            known = here.get(one.run.id)
            if known and INCOMPLETE_TAG not in known.data.tags:
                if _has_more(self.store, one, known, export):
                    self.more.append((one, export))
                continue
            parent = one.run.tags.get("kind", ""), one.run.tags.get("study", "")
            if known is None and (same := parents.get(parent) or _same_parent(self.store, name, one.run)):
                self.ids[one.run.id] = same
                continue
            self.ids[one.run.id] = known.info.run_id if known else _create(self.store, experiment, one)
            self.added.append((one, export))
            if parent[0] in PARENTS:
                parents[parent] = self.ids[one.run.id]


SUITE_TAGS = ("question", "command", "rows", "baseline", "about", "tuning", JOBS_TAG)
"""Tags of the run of a suite that describe the whole table."""


def _describe_suite(store: Store, name: str, exports: Sequence[Export], replace: Callable[[str], str]) -> None:
    """Describes an imported suite by its run with the most rows: the newest export may be of a part of the suite."""
    of_suite = [export for export in exports if name in export.suites()]
    described = JoinedReader(of_suite).parent_run(name) if of_suite else None
    here = store.parent_run(name)
    if described is None or here is None or ORIGIN_TAG not in here.tags:  # it was made here
        return
    if len(described.tags.get("rows", "").split(",")) >= len(here.tags.get("rows", "").split(",")):
        tags = {key: replace(described.tags[key]) for key in SUITE_TAGS if key in described.tags}
        RunWriter(store.client, here.id).tag({key: visible(value) for key, value in tags.items()})


def _start(one: ExportedRun) -> float:
    return one.run.started.timestamp()


def _final_status(one: ExportedRun, exports: Sequence[Export]) -> str:
    """The status of a run in the new store, where nobody continues one that was still running at its origin.

    A suite whose jobs have all finished is finished: results of a suite are exported while it runs.
    """
    if one.run.status in ("FINISHED", "FAILED", "KILLED"):
        return one.run.status
    of_suite = (
        other.run for export in exports for other in export.exported.values() if one.experiment == other.experiment
    )
    jobs = {run.status for run in of_suite if run.tags.get("kind") == "job"}
    return "FINISHED" if one.run.tags.get("kind") == "suite" and jobs == {"FINISHED"} else "KILLED"


def _has_more(store: Store, one: ExportedRun, known: MlflowRun, export: Export) -> bool:
    """Whether an export has more of an imported run than the store: its end, or files that were left out before."""
    if ORIGIN_TAG not in known.data.tags:
        return False  # it was made here
    if one.run.status == "FINISHED" and known.info.status in ("FAILED", "KILLED"):
        return True
    if one.run.status != known.info.status:
        return False
    if LEFT_OUT_TAG in known.data.tags and LEFT_OUT_TAG not in one.run.tags:
        return True
    return bool(export.model(one.run)) and logged_model.find(store.client, known.info.run_id) is None


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


def _fill(
    store: Store, run_id: str, one: ExportedRun, export: Export, status: str, replace: Callable[[str], str]
) -> None:
    """Writes everything of an exported run into the run `run_id`, and marks it as complete."""
    client = store.client
    tags = {key: replace(value) for key, value in one.run.tags.items()}
    if one.run.tags.get(PARENT_TAG) not in export.exported:
        tags.pop(PARENT_TAG, None)  # its parent is not part of the export
    params = [Param(key, value) for key, value in one.run.params.items()]
    for begin in range(0, len(params), 100):
        client.log_batch(run_id, params=params[begin : begin + 100])
    tags = {key: visible(value) for key, value in tags.items()}
    for begin in range(0, len(tags), 100):
        client.log_batch(run_id, tags=[RunTag(*tag) for tag in list(tags.items())[begin : begin + 100]])
    inputs = [
        DatasetInput(
            Dataset(line["name"], line["digest"], line["kind"], line["source"], None, line["profile"]),
            [InputTag("mlflow.data.context", line["context"])],
        )
        for line in one.datasets
    ]
    if inputs:
        log_datasets(client, run_id, inputs)
    model = _import_model(store, run_id, one, export)
    points = [
        Metric(
            *(line[name] for name in ("key", "value", "time", "step")),
            model_id=model if line["of_model"] else None,
            dataset_name=line["dataset"] if model else None,
            dataset_digest=line["digest"] if model else None,
        )
        for line in one.history
    ]
    for begin in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[begin : begin + 1000])
    with tempfile.TemporaryDirectory() as temporary:
        _write_files(Path(temporary), one, export, replace)
        client.log_artifacts(run_id, temporary)
    client.set_terminated(run_id, status, one.ended)
    present = client.get_run(run_id).data.tags
    for key in {LEFT_OUT_TAG, INCOMPLETE_TAG} & (present.keys() - tags.keys()):
        client.delete_tag(run_id, key)


def _write_files(folder: Path, one: ExportedRun, export: Export, replace: Callable[[str], str]) -> None:
    """Writes the files of an exported run into `folder`, with the run ids of the new store."""
    for path, content in one.files.items():
        to = inside(folder, *path.split("/"))
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.suffix in (".json", ".yaml"):
            try:
                content = replace(content.decode("utf-8")).encode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{export.folder}/files.parquet: {one.run.id}/{path}: {error}; export again"
                ) from error
        to.write_bytes(content)
    for path, file in export.other_files(one.run):
        to = inside(folder, *path.split("/"))
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)


def _import_model(store: Store, run_id: str, one: ExportedRun, export: Export) -> str | None:
    """Packs the translator of an exported run as the LoggedModel of the run; returns its id, or None without one.

    The code of the model is that of this program: `mlflow models serve` executes it, so it does not come from others.

    Raises:
        ValueError: a file of the translator or a setting is missing, or a file was changed.
    """
    files = {path.name: path for path in export.model(one.run)}
    if not files:
        return None
    for name in (*logged_model.TRANSLATOR_FILES, EXAMPLE):
        if name not in files:
            raise ValueError(f"{export.folder / INDEX}: models/{one.run.id}/{name} is missing; export the runs again")
    beam = one.run.params.get("decoding.beam", "")
    if absent := [key for key in logged_model.COPIED_TAGS if key not in one.run.tags]:
        raise ValueError(f"{export.folder}/runs.parquet: {one.run.id} has no tag {absent[0]!r}; export the runs again")
    if not beam.isdecimal():
        raise ValueError(
            f"{export.folder}/runs.parquet: {one.run.id}: decoding.beam: {beam!r} is no number; export again"
        )
    example = files.pop(EXAMPLE).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        for name, path in files.items():
            shutil.copyfile(path, inside(Path(temporary), name))
        return logged_model.log_model(store.client, run_id, Path(temporary), example, int(beam))


def _set_views(store: Store, name: str, export: Export, replace: Callable[[str], str]) -> None:
    """Gives an experiment the views and the description that it had, if it has none, with the ids of the new store."""
    experiment = store.client.get_experiment(store.experiment_id(name))
    views = {ui_view.tag(kind) for kind in ui_view.QUERIES}
    tags: dict[str, str] = export.experiments[name]["tags"]
    for key in {*views, DESCRIPTION_TAG} & tags.keys() - experiment.tags.keys():
        store.client.set_experiment_tag(experiment.experiment_id, key, visible(replace(tags[key])))
