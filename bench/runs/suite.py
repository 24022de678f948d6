"""Many experiments, one table: every row of a suite on every corpus with every seed.

A suite's file names its rows and what they share; its name is the file's stem and the MLflow experiment. What is
finished is skipped, what was interrupted continues, what fails is said and does not stop the others.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.data import vocabulary
from bench.experiment.fairness import unequal
from bench.experiment.job_data import JobData
from bench.experiment.spec import Experiment, architectures, joined, read_typed, repeating, resolve
from bench.experiment.yaml_layers import choose
from bench.runs import best_settings
from bench.runs.job import JobResult, reason_of, run
from bench.runs.worker import Task, TaskResult
from bench.runs.worker_pool import ATTEMPTS, WorkerBackend, pool, schedule
from bench.system import terminal
from bench.tracking.store import Store


@dataclass
class Suite:
    """A table to be made.

    Attributes:
        question: What the table is to answer, in one sentence.
        rows: Row ids, in the order of the table.
        preset: The preset of every row.
        corpora: Corpora, one a direction; empty for the preset's own.
        seeds: Seeds of every row.
        baseline: Row that the others are compared with; the last one if empty.
        settings: Settings of every row, above its own (groups such as training, decoding, text, corpus).
        sweeps: Row -> the sweep whose best settings it takes, above its own and below `settings`.
    """

    question: str = ""
    rows: list[str] = field(default_factory=list)
    preset: str = "demo"
    corpora: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [1])
    baseline: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    sweeps: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Suite:
        """Raises ValueError, one line, for an unknown key, a wrong type or an unknown row."""
        suite = read_typed(path, cls)
        known = list(architectures())
        for row in [*suite.rows, *([suite.baseline] if suite.baseline else []), *suite.sweeps]:
            choose("row", row, known, path)
        if not suite.rows:
            raise ValueError(f"{path}: rows: names no row; there are: {', '.join(known)}")
        if not suite.seeds:
            raise ValueError(f"{path}: seeds: names no seed; leave it out for seed 1")
        return suite

    def experiments(
        self, flags: Sequence[str], best: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[Experiment]:
        """Every job of the suite, a corpus after the other; ensembles come last, behind all of their members.

        `best` are the settings that sweeps found for rows; an ensemble takes those of its members.
        """
        files, best = architectures(), best or {}
        layers = [{"corpus": {"name": name}} for name in self.corpora] or [{}]
        rows = [
            resolve(
                files[row],
                preset=self.preset,
                row=row,
                suite=[best.get(row) or best.get(joined(files[row], row)) or {}, self.settings, layer, {"seed": seed}],
                flags=flags,
            )
            for layer in layers
            for seed in self.seeds
            for row in self.rows
        ]
        ensembles = [experiment for experiment in rows if experiment.members]
        singles = [experiment for experiment in rows if not experiment.members]
        singles += [member for ensemble in ensembles for member in ensemble.members]
        return list({experiment.job_hash: experiment for experiment in [*singles, *ensembles]}.values())


def finished(store: Store, suite: str, experiment: Experiment) -> bool:
    return any(run.status == "FINISHED" for run in store.find(suite, experiment.job_hash)[:1])


def distinct(experiments: Sequence[Experiment]) -> list[Experiment]:
    """One experiment for each different text."""
    found: dict[str, Experiment] = {}
    for experiment in experiments:
        found.setdefault(repr((experiment.corpus, experiment.text, experiment.training.batch_tokens)), experiment)
    return list(found.values())


BUSY = 10.0
"""Seconds until a job that another process has in its hands is asked for again; then it may have finished it."""


class SuiteQueue:
    """The jobs of a suite as `workers.schedule` takes them. An ensemble waits for its members."""

    def __init__(self, experiments: Sequence[Experiment], suite: str, parent: str, again: bool, threads: int | None):
        self.suite, self.parent, self.again, self.threads = suite, parent, again, threads
        self.waiting = list(experiments)
        self.order = [experiment.job_hash for experiment in experiments]
        self.outcomes: dict[str, JobResult] = {}
        self.losses: dict[str, int] = {}
        self.begun = set[str]()  # jobs that have a run of this command
        self.asked_again: dict[str, float] = {}  # when a job that another process had in its hands is tried again

    @property
    def left(self) -> int:
        return len(self.order) - len(self.outcomes)

    def take(self) -> Task | None:
        open_jobs = set(self.order) - self.outcomes.keys()
        for experiment in self.waiting:
            waits = time.monotonic() < self.asked_again.get(experiment.job_hash, 0.0)
            if not waits and open_jobs.isdisjoint(member.job_hash for member in experiment.members):
                self.waiting.remove(experiment)
                machine = experiment.machine
                shared = replace(machine, threads=machine.threads or self.threads)
                again = self.again and experiment.job_hash not in self.begun  # a lost job goes on
                return Task(replace(experiment, machine=shared), self.suite, self.parent, again)
        return None

    def told(self, task: Task, status: object) -> bool:
        self.begun.add(task.experiment.job_hash)
        return False

    def ended(self, task: Task, end: TaskResult) -> str:
        experiment = task.experiment
        if end.outcome:
            self.outcomes[experiment.job_hash] = end.outcome
            return said(end.outcome)
        if end.state == "stopped":
            self.waiting.insert(0, experiment)
            return end.reason
        if end.state == "busy":
            self.asked_again[experiment.job_hash] = time.monotonic() + BUSY
            self.waiting.append(experiment)
            return f"{end.reason}; asked again in {BUSY:.0f} s"
        if end.state == "lost":
            self.losses[experiment.job_hash] = self.losses.get(experiment.job_hash, 0) + 1
            if self.losses[experiment.job_hash] < ATTEMPTS:
                self.waiting.insert(0, experiment)
                return f"{end.reason}; goes on with another"
        self.outcomes[experiment.job_hash] = JobResult(experiment, None, [], "failed")
        return f"failed: {end.reason}"


def said(outcome: JobResult) -> str:
    """An outcome in a few words."""
    values = {measure.metric: measure.value for measure in outcome.measures}
    bleu = next((value for name, value in values.items() if name.endswith("/bleu")), None)
    scored = f", {bleu:.1f} BLEU" if bleu is not None else ""
    return f"{outcome.state}{scored}"


def run_suite(
    path: Path,
    suite: Suite,
    flags: Sequence[str],
    again: bool,
    place: WorkerBackend | None = None,
    max_seconds: float | None = None,
) -> tuple[list[JobResult], bool]:
    """Runs every job of the suite that is not finished: one after the other in this process, or by workers at `place`.

    No job begins after `max_seconds`. Gives what became of the jobs, and whether all have come to an end.

    Raises:
        ValueError: a setting is wrong; nothing has been run.
        Interrupted: a signal came; what ran is saved.
    """
    experiments = suite.experiments(flags)
    name = path.stem
    if place:
        place.check(experiments)
    # Workers start while their driver opens the store, which a new one takes seconds for, and reads the text.
    with pool(place, len(experiments)) if place else contextlib.nullcontext() as workers:
        store = Store(experiments[0].tracking)
        corpora = dict.fromkeys(experiment.corpus_name for experiment in experiments)
        found = best_settings.find(suite.sweeps, suite.preset, corpora, store)
        if found:
            experiments = suite.experiments(flags, {row: best.layer for row, best in found.items()})
            best_settings.check_seeds(found, experiments)
        for line in unequal(experiments):
            terminal.say(f"not equal: {line}")
        to_do = [experiment for experiment in experiments if again or not finished(store, name, experiment)]
        for experiment in distinct(to_do):
            job_data = JobData.of(experiment)  # can be made, or there is one line and nothing on the disk
            if workers:  # they find it made: they would get in each other's way
                vocabulary.keep(job_data.vocabularies)
        description = (
            f"{suite.question}\n\nRows: {', '.join(suite.rows)}. Preset: {suite.preset}. Seeds: {suite.seeds}."
        )
        about = {each.row: {"name": each.about.name, "year": str(each.about.year)} for each in experiments}
        tags = {
            "mlflow.note.content": description,
            "question": suite.question,
            "command": repeating(path, suite.seeds, flags),
            "rows": ",".join(suite.rows),
            "baseline": suite.baseline or suite.rows[-1],
            "about": json.dumps({row: about[row] for row in suite.rows}),  # of rows that may never begin
        }
        parent = store.parent(name, tags)
        single = dict.fromkeys(experiment.row for experiment in experiments if not experiment.members)
        ensembles = {each.row: each.members[0].row for each in experiments if each.members}
        best_settings.record(found, list(single), ensembles, parent, store)
        status = "KILLED"
        try:
            if workers:
                jobs = SuiteQueue(experiments, name, parent, again, workers.place.threads())
                schedule(jobs, workers, max_seconds)
                outcomes = list(jobs.outcomes.values())
            else:
                outcomes = _in_turn(experiments, store, name, parent, again, max_seconds)
            whole = len(outcomes) == len(experiments)
            failed = any(outcome.run is None for outcome in outcomes)
            status = "KILLED" if not whole else "FAILED" if failed else "FINISHED"
        finally:
            store.end(parent, status)
    if not whole:
        left = len(experiments) - len(outcomes)
        terminal.say(f"the time is up: {left} of {len(experiments)} jobs are left; the same command continues")
    return outcomes, whole


def _in_turn(
    experiments: Sequence[Experiment], store: Store, suite: str, parent: str, again: bool, max_seconds: float | None
) -> list[JobResult]:
    begin, outcomes = time.monotonic(), []
    for number, experiment in enumerate(experiments, 1):
        if max_seconds is not None and time.monotonic() - begin >= max_seconds:
            break
        terminal.say(f"[{number}/{len(experiments)}] {experiment.name}")
        try:
            outcomes.append(run(experiment, store, suite, parent=parent, again=again))
        except Exception as error:  # one row's failure must not cost the others; it is said, tracked and counted
            terminal.say(f"  failed: {reason_of(error)}")
            outcomes.append(JobResult(experiment, None, [], "failed"))
    return outcomes
