"""The results of a suite: a folder that grows over machines, with an export of each finished run.

Each export has a folder of its own, named by job and run, so that several machines can add to the results through git
without conflicts. An export has no text of the corpus and no weights, so ensembles are evaluated before their members
are exported.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.experiment.job_data import corpus_of
from bench.experiment.spec import Experiment
from bench.measures.other_code import is_from_other_code
from bench.runs.job import JobResult
from bench.runs.metadata import corpus_hashes
from bench.system import terminal
from bench.system.files import inside
from bench.tracking import logged_model
from bench.tracking.export import export_run
from bench.tracking.exported import INDEX, Export, holds_exports, read_exports, results_folder
from bench.tracking.joined import join
from bench.tracking.reading import Reader, TrackedRun
from bench.tracking.speeds import Speeds
from bench.tracking.store import Store

IN_RESULTS = "in the results"
"""State of a job whose run is in the results of its suite."""

MAX_BYTES = 200_000
"""Size from which an export of one run is too large to be committed with the others of a table."""


@dataclass(frozen=True)
class Results:
    """The exports of a suite that are in its folder of results."""

    suite: str
    folder: Path
    exports: list[Export]

    @classmethod
    def of(cls, path: Path, results: str, export: bool = False) -> Results | None:
        """The results of the suite in the file `path`; None if it names none.

        Args:
            results: Its setting `results`, relative to the folder of the file. The folder need not exist yet.
            export: Whether finished jobs are to be added.

        Raises:
            ValueError: jobs are to be added but the suite names no results, or an export is not readable.
        """
        if not results:
            if export:
                raise ValueError(
                    f"{path}: results: is not set, but --export adds each finished job to them; name a folder, such as "
                    f"results: ../reports/results/{path.stem}/runs, or remove --export"
                )
            return None
        folder = results_folder(Path(os.path.normpath(path.parent / results)))
        if export and (folder / INDEX).is_file():
            raise ValueError(
                f"{folder}: is one export, so --export cannot add others to it; move it into a folder of its own "
                "in there"
            )
        return cls(path.stem, folder, _read(folder, path.stem))

    def _finished_runs(self) -> list[TrackedRun]:
        """All finished runs, the oldest first."""
        runs = [run for export in self.exports for run in export.runs(self.suite) if run.status == "FINISHED"]
        return sorted(runs, key=lambda run: run.started)

    def _folders(self, job_hash: str) -> list[Path]:
        """The exports of the finished runs of a job."""
        return [
            export.folder
            for export in self.exports
            for run in export.runs(self.suite)
            if run.status == "FINISHED" and run.tags.get("job_hash", "") == job_hash
        ]

    def show(self, experiments: Sequence[Experiment]) -> list[JobResult]:
        """Prints which jobs are in the results and which remain; returns the results of the former.

        Runs that other code made are marked.
        """
        jobs = {each.job_hash: each for each in experiments}
        found = {
            job_hash: run
            for run in self._finished_runs()
            if (job_hash := run.tags.get("job_hash", "")) in jobs and _is_of_text(run, jobs[job_hash])
        }
        terminal.say(f"{len(found)} of {len(experiments)} jobs are in the results {self.folder}")
        if len(found) < len(experiments):
            columns = [("job", "left"), ("state", "left"), ("run", "left")]
            terminal.table(columns, [_line(each, found.get(each.job_hash)) for each in experiments])
        return [JobResult(each, found[each.job_hash], [], IN_RESULTS) for each in experiments if each.job_hash in found]

    def check_members(self, missing: Sequence[Experiment], in_results: Collection[str], store: Store) -> None:
        """Raises ValueError if a missing ensemble has a member that is in the results and has no weights here."""
        for ensemble in missing:
            absent = [
                member
                for member in ensemble.members
                if member.job_hash in in_results and not _has_weights(member, store, self.suite)
            ]
            if absent:
                names = ", ".join(member.name for member in absent)
                folders = ", ".join(str(folder) for member in absent for folder in self._folders(member.job_hash))
                raise ValueError(
                    f"{ensemble.name}: needs the weights of its members {names}, which are in the results without "
                    "weights; evaluate it on the machine that trained them, or train them here: remove "
                    f"{folders}, or repeat all jobs with --again"
                )


def joined(store: Store | None, path: Path, results: str) -> Reader:
    """The runs of the store, if there is one, and of the results of the suite in the file `path` as they are now."""
    kept = Results.of(path, results)
    speeds = Speeds.read(kept.folder) if kept else None
    return join([*([store] if store else []), *(kept.exports if kept else [])], [speeds] if speeds else [])


def _read(folder: Path, suite: str) -> list[Export]:
    """The exports of a suite in a folder; none if the folder does not exist yet or holds none."""
    return [one for one in (read_exports([folder]) if holds_exports(folder) else []) if suite in one.suites()]


def _is_of_text(run: TrackedRun, experiment: Experiment) -> bool:
    """Whether a run is of the text as it is now: files may change under the same name, and a job hash has no paths.

    Where the files are absent nothing can be compared, and no other run can be made.
    """
    corpus = experiment.corpus
    files = [*(corpus.train or []), *(corpus.val or []), *(corpus.test or [])]
    if not files or not all(Path(file).exists() for file in files):
        return True
    hashes = corpus_hashes(corpus_of(experiment))
    return run.tags.get("data", hashes) == hashes


def _line(experiment: Experiment, run: TrackedRun | None) -> list[str]:
    if run is None:
        return [experiment.name, "to do", ""]
    other = ", made by other code" if is_from_other_code(run.tags) else ""
    return [experiment.name, f"{IN_RESULTS}{other}", run.id[:8]]


def _has_weights(experiment: Experiment, store: Store, suite: str) -> bool:
    run = next(iter(store.find(suite, experiment.job_hash)), None)
    return bool(run and run.status == "FINISHED" and logged_model.find(store.client, run.id))


def folder_name(run: TrackedRun) -> str:
    """The name of the folder of a run in the results. It has the run id, so two machines never write the same one."""
    corpus, preset, row, seed = (run.tags.get(key, "") for key in ("corpus", "preset", "row", "seed"))
    return f"{row}-{corpus}-{preset}-s{seed}-{run.id[:12]}"


class Exporter:
    """Adds finished jobs to the results: a member of an ensemble after the ensemble has ended.

    Args:
        experiments: The jobs that are to be run.
    """

    def __init__(self, results: Results, store: Store, experiments: Sequence[Experiment]) -> None:
        self.results, self.store = results, store
        self.known = {run for export in results.exports for run in export.exported}
        ensembles = [each for each in experiments if each.members]
        self.members_of = {each.job_hash: {member.job_hash for member in each.members} for each in ensembles}
        self.held: dict[str, JobResult] = {}

    def add(self, result: JobResult) -> None:
        """Exports a job that has ended, and the members that waited for it. Does nothing for a failed job."""
        job = result.experiment.job_hash
        self.members_of.pop(job, None)
        self.held[job] = result
        waited_for = set[str]().union(*self.members_of.values())
        # The ensemble first: if this process is killed in between, its members can still be exported by the next one,
        # while members in the results without their ensemble would have to be trained again.
        for ready in sorted((job for job in self.held if job not in waited_for), key=lambda each: each != job):
            self._export(self.held.pop(ready))

    def _export(self, result: JobResult) -> None:
        run = result.run
        if run is None or run.id in self.known:
            return
        folder = inside(self.results.folder, folder_name(run))
        export_run(self.store, self.results.suite, run.id, folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        large = f", more than {MAX_BYTES // 1000} kB" if size > MAX_BYTES else ""
        terminal.say(f"  exported to {folder} ({size / 1000:.0f} kB{large})")
