"""A sweep from its command to its runs: the studies of its rows, done by workers and told to MLflow.

In the MLflow experiment that bears the name of the sweep's file, each study is a run (tag `kind` is "study") with the
tags `row`, `preset`, `corpus`, `goals`, `trials`, `pairs_granted` (trials x training budget), `pairs_spent`, `seed`,
`complete`, `pruned`, `failed`, `best.run`, `best.job_hash` and a `best.KEY_VARIABLE` for each setting searched. Its artifacts
are best.yaml (the best settings, as a layer), trials.json (all attempts, in order) and importance.json.
The jobs are its children (`kind` "tuning", see `job.TrialInfo`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.data import vocabulary
from bench.experiment import search_space
from bench.experiment.fairness import unequal
from bench.experiment.job_data import JobData
from bench.runs.suite import one_per_dataset
from bench.runs.worker import Task, TaskResult
from bench.runs.worker_pool import WorkerBackend, open_pool, schedule
from bench.sweep.settings import Sweep
from bench.sweep.storage import HEARTBEAT_INTERVAL, StorageFailure, open_storage
from bench.sweep.study import Study
from bench.system import terminal
from bench.system.progress import Status
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store


class SweepQueue:
    """The jobs of several studies as `workers.schedule` takes them, the study that has had least first."""

    def __init__(self, studies: Sequence[Study], suite: str, store: Store, threads: int | None) -> None:
        self.studies = {study.name: study for study in studies}
        self.suite, self.store, self.threads = suite, store, threads
        self.parents = {
            study.name: RunWriter(store.client, store.parent(suite, facts(study), study=study.name))
            for study in studies
        }

    @property
    def left(self) -> int:
        return sum(study.left for study in self.studies.values())

    def take(self) -> Task | None:
        for study in sorted(self.studies.values(), key=lambda study: (len(study.open), len(study.jobs))):
            if study.left and (task := study.take(self.suite, self.parents[study.name].id, self.threads)):
                return task
        return None

    def told(self, task: Task, status: Status) -> bool:
        return self._of(task).told(task, status)

    def ended(self, task: Task, end: TaskResult) -> str:
        study = self._of(task)
        said = study.tell(task, end, self.store)
        record(study, self.suite, self.parents[study.name], self.store)
        return said

    def _of(self, task: Task) -> Study:
        assert task.tuning
        return self.studies[task.tuning.study]

    @contextmanager
    def beating(self) -> Iterator[None]:
        """While the block runs, every open attempt gives signs of life."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(HEARTBEAT_INTERVAL):
                for study in self.studies.values():
                    with suppress(*StorageFailure):  # the next one may come through
                        study.all_beat()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found for a row: the goal at the preset's settings (None if that trial did not end) and at the best
    ones, and how its jobs ended.
    """

    study: Study
    preset: float | None
    best: float | None
    states: dict[str, int]

    @classmethod
    def of(cls, study: Study) -> SweepResult:
        preset, best_trials = study.preset_trial(), study.best_trials()
        return cls(
            study,
            preset.values[0] if preset else None,
            best_trials[0].values[0] if best_trials else None,
            study.states(),
        )


def run_sweep(
    path: Path,
    sweep: Sweep,
    rows: Sequence[str],
    preset: str,
    flags: Sequence[str],
    place: WorkerBackend,
    storage: str | None = None,
    max_seconds: float | None = None,
) -> list[SweepResult]:
    """Tries the settings of every row until each has had its trials; the same command continues.

    Raises:
        ValueError: a setting is wrong, or the storage cannot be reached; nothing has been run.
        Interrupted: a signal came; every open job is saved.
    """
    studies = [Study(sweep, row, preset, flags) for row in dict.fromkeys(rows)]
    bases = [study.base for study in studies]
    place.check(bases)
    for line in unequal(bases):
        terminal.say(f"not equal: {line}")
    for base in one_per_dataset(bases):
        vocabulary.save_to_cache(JobData.of(base).vocabularies)  # workers find it made
    store = Store(bases[0].tracking)
    opened = open_storage(storage, bases[0].tracking.path)
    try:
        for study in studies:
            study.begin(opened)
        jobs = SweepQueue(studies, path.stem, store, place.threads())
        status = "KILLED"
        try:
            with jobs.beating(), open_pool(place) as workers:
                whole = schedule(jobs, workers, max_seconds)
            failed = any(study.states()["FAILED"] for study in studies)
            status = "KILLED" if not whole else "FAILED" if failed else "FINISHED"
        finally:
            for study in studies:
                job = jobs.parents[study.name]
                record(study, path.stem, job, store)
                job.table(table(study), "trials.json")
                job.text(json.dumps(study.importance(), indent=1), "importance.json")
                job.finish(status)
    except StorageFailure as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ValueError(f"--storage: it no longer answers, the same command continues: {reason}") from error
    return [SweepResult.of(study) for study in studies]


def show(found: Sequence[SweepResult]) -> None:
    """Prints what was found, beside the preset, and the settings of the best."""
    columns = [("row", "left"), ("goal", "left"), ("preset", "right"), ("best", "right")]
    columns += [("complete", "right"), ("pruned", "right"), ("failed", "right"), ("left", "right"), ("pairs", "right")]
    rows, settings = [], []
    for one in found:
        name, best = one.study.base.row, next(iter(one.study.best_trials()), None)
        if best:
            values = ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in best.params.items())
            settings.append(f"best {name}: {values}")
        numbers = ["none" if value is None else terminal.quantity(value) for value in (one.preset, one.best)]
        counts = [str(count) for count in one.states.values()]
        tuning_budget = f" of {one.study.tuning_budget:,}" if one.study.tuning_budget else ""
        spent = f"{one.study.spent:,.0f}{tuning_budget}"
        rows.append([name, one.study.sweep.goals[0], *numbers, *counts, spent])
    terminal.table(columns, rows)
    for line in settings:
        terminal.say(line)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# --- the study's own run ----------------------------------------------------------------------------------------------


def facts(study: Study) -> dict[str, str]:
    """Tags of what a study is."""
    sweep, base = study.sweep, study.base
    return {
        "study": study.name,
        "row": base.row,
        "preset": base.preset,
        "corpus": base.corpus_name,
        "goals": ", ".join(sweep.goals),
        "limits": json.dumps(sweep.limits),
        "sampler": sweep.sampler.name,
        "pruner": sweep.pruner.name if sweep.prunes else "none",
        "seed": str(base.seed),
        "trials": str(sweep.trials),
        "pairs_granted": str(study.tuning_budget or ""),
    }


def record(study: Study, suite: str, job: RunWriter, store: Store) -> None:
    """Writes to the study's run how far it is and what is best by now."""
    states = study.states()
    tags = {state.lower(): str(count) for state, count in states.items()} | {"pairs_spent": f"{study.spent:.0f}"}
    best_trials = study.best_trials()
    if best_trials:
        best = best_trials[0]
        runs = store.find(suite, best.user_attrs["job_hash"])
        goals = dict(zip(study.sweep.goals, best.values, strict=True))
        tags |= {f"best.{key}": str(value) for key, value in best.params.items()}
        tags |= {"best.job_hash": best.user_attrs["job_hash"], "best.run": runs[0].id if runs else ""}
        where = f"#/experiments/{store.experiment(suite)}/runs/{tags['best.run']}"
        ended = sum(states.values()) - states["left"]
        job.curve([(ended, f"best/{goal}", value) for goal, value in goals.items()])
        found = ", ".join(f"{goal} {_short(value)}" for goal, value in goals.items())
        settings = "".join(f"\n| `{key}` | {_short(value)} |" for key, value in best.params.items())
        tags["mlflow.note.content"] = (
            f"**{study.base.about.name}**, {study.base.corpus_name}, preset {study.base.preset}: {ended} of "
            f"{study.sweep.trials} trials.\n\nBest: [trial {best.number}]({where}), {found}.\n\n"
            f"| setting | best |\n|---|---|{settings}"
        )
        job.text(yaml.safe_dump(search_space.layer(best.params), sort_keys=False), "best.yaml")
    job.tag(tags)


def table(study: Study) -> dict[str, list[object]]:
    """All attempts of a study in their order, a column each fact."""
    attempts = study.attempts()
    first = {job: known.first for job, known in study.jobs.items()}
    return {
        "attempt": [trial.number for trial in attempts],
        "trial": [first[trial.user_attrs["job_hash"]] for trial in attempts],
        "job_hash": [trial.user_attrs["job_hash"] for trial in attempts],
        "state": [trial.state.name for trial in attempts],
        "reason": [trial.user_attrs.get("reason", "") for trial in attempts],
        "pairs": [trial.user_attrs.get("pairs") for trial in attempts],
        "validation_bleu": [max(trial.intermediate_values.values(), default=None) for trial in attempts],
        **{goal: [(t.user_attrs.get("values") or {}).get(goal) for t in attempts] for goal in study.sweep.goals},
        "settings": [json.dumps(trial.params) for trial in attempts],
        "best": [trial in study.best_trials() for trial in attempts],
    }
