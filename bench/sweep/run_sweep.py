"""Runs a sweep: workers execute the trials of its studies, and MLflow tracks them.

The stem of the sweep's file is the name of its MLflow experiment. In it, each study is a run (tag `kind` is "study")
with the tags `row`, `preset`, `corpus`, `goals`, `trials`, `pairs_granted` (trials x training budget), `pairs_spent`,
`seed`, `complete`, `pruned`, `failed`, `remaining`, `best.run`, `best.job_hash` and `best.KEY` for each setting
searched. Its artifacts are best.yaml (the best settings, as a layer), trials.json (all attempts, in order) and
importance.json. The jobs are its child runs (`kind` "trial", see `job.TrialInfo`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from bench.data import learn_vocabularies
from bench.experiment import search_space
from bench.experiment.fairness import setting_differences
from bench.experiment.job_data import JobData
from bench.experiment.yaml_layers import nested_settings
from bench.measures.selection import CONSTANT_SCORE_TAG
from bench.runs.run_suite import one_per_dataset
from bench.runs.worker import Task, TaskResult
from bench.runs.worker_backend import WorkerBackend
from bench.runs.worker_count import automatic_backend
from bench.runs.worker_pool import open_pool, schedule
from bench.sweep.equal_study import EqualStudy
from bench.sweep.pareto_front import LOSS
from bench.sweep.settings import DIRECTIONS, Direction, Sweep
from bench.sweep.storage import HEARTBEAT_INTERVAL, StorageFailure, open_storage
from bench.sweep.study import Study
from bench.system import formatting, terminal
from bench.system.progress import Status
from bench.tracking import ui_view
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store


class SweepQueue:
    """The jobs of several studies as a `worker_pool.JobQueue`.

    A study with an interrupted job has the next turn, else the one with the fewest jobs: what was interrupted is nearly
    done, and would be lost with the machine.
    """

    def __init__(self, studies: Sequence[Study], suite: str, store: Store, threads: int | None) -> None:
        self.studies = {study.name: study for study in studies}
        self.suite, self.store, self.threads = suite, store, threads
        self.writers = {
            study.name: RunWriter(store.client, store.start_parent(suite, study_tags(study), study=study.name))
            for study in studies
        }

    equal_budgets = True  # pruning only makes trials shorter

    @property
    def remaining(self) -> int:
        return sum(study.remaining for study in self.studies.values())

    def next_task(self) -> Task | None:
        def order(study: Study) -> tuple[bool, int, int]:
            return not study.interrupted, len(study.running), len(study.jobs)

        for study in sorted(self.studies.values(), key=order):
            if study.remaining and (task := study.next_task(self.suite, self.writers[study.name].id, self.threads)):
                return task
        return None

    def on_status(self, task: Task, status: Status) -> bool:
        return self._study_of(task).on_status(task, status)

    def on_result(self, task: Task, result: TaskResult) -> str:
        study = self._study_of(task)
        description = study.on_result(task, result, self.store)
        study.save_finished()
        log_progress(study, self.suite, self.writers[study.name], self.store)
        return description

    def _study_of(self, task: Task) -> Study:
        assert task.trial
        return self.studies[task.trial.study]

    @contextmanager
    def sending_heartbeats(self) -> Iterator[None]:
        """While the block runs, a thread sends the heartbeats of all running attempts."""
        done = threading.Event()

        def send() -> None:
            while not done.wait(HEARTBEAT_INTERVAL):
                for study in self.studies.values():
                    with suppress(*StorageFailure):  # an attempt is lost only after several missing heartbeats
                        study.send_heartbeats()

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found for one row.

    Attributes:
        preset: Value of the first goal at the settings of the preset; None if that trial is not complete.
        best: Value of the first goal at the best settings; None if no trial is complete and within the limits.
        job_counts: Final state -> number of jobs; "remaining" -> jobs that have not ended.
    """

    study: Study
    preset: float | None
    best: float | None
    job_counts: dict[str, int]

    @classmethod
    def of(cls, study: Study) -> SweepResult:
        preset, best = study.preset_trial(), study.best_trials()
        return cls(study, preset.values[0] if preset else None, best[0].values[0] if best else None, study.job_counts())


def run_sweep(
    path: Path,
    sweep: Sweep,
    rows: Sequence[str],
    preset: str,
    flags: Sequence[str],
    backend: WorkerBackend | Literal["auto"],
    storage: str | None = None,
    max_seconds: float | None = None,
) -> list[SweepResult]:
    """Searches for the settings of every row until each has had its trials. The same command continues a sweep.

    The finished trials of an equal search are written to the preset's file after each job, so that a kill loses none.

    Args:
        path: The file of the sweep.
        flags: Settings from the command line; they are fixed and not searched.
        backend: Starts the workers; auto: workers of this machine, as many as suit the jobs.
        storage: URL of the Optuna storage; None for a SQLite file beside the runs.
        max_seconds: No job starts after this time.

    Raises:
        ValueError: a setting is invalid, or the storage cannot be reached; no job was started.
        Interrupted: a signal was received; every job in progress is saved.
    """
    kind = EqualStudy if sweep.rows else Study
    studies = [kind(sweep, row, preset, flags) for row in dict.fromkeys(rows)]
    bases = [study.base for study in studies]
    if backend == "auto":
        backend = automatic_backend(bases * sweep.trials)
    backend.check(bases)
    for line in setting_differences(bases):
        terminal.say(f"not equal: {line}")
    for line in dict.fromkeys(_selection_line(study) for study in studies):
        terminal.say(line)
    store = Store(bases[0].tracking)  # first: a store of another format is refused before anything is written
    for base in one_per_dataset(bases):
        # Here, once, so that the workers need not learn the same vocabulary at the same time.
        learn_vocabularies.save_to_cache(JobData.of(base).vocabularies)
    opened = open_storage(storage, bases[0].tracking.path)
    try:
        for study in studies:
            study.open(opened)
            study.save_finished()  # those that an earlier command had no time to write
        jobs = SweepQueue(studies, path.stem, store, backend.threads_per_job())
        _set_view(store, path.stem, studies)
        status = "KILLED"
        try:
            with jobs.sending_heartbeats(), open_pool(backend) as pool:
                completed = schedule(jobs, pool, max_seconds)
            failed = any(study.job_counts()["FAILED"] for study in studies)
            status = "KILLED" if not completed else "FAILED" if failed else "FINISHED"
        finally:
            for study in studies:
                writer = jobs.writers[study.name]
                log_progress(study, path.stem, writer, store)
                writer.table(attempts_table(study), "trials.json")
                writer.text(json.dumps(study.importance(), indent=1), "importance.json")
                writer.finish(status)
    except StorageFailure as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ValueError(
            f"--storage: the database no longer answers: {reason}; start it and run the same command again to continue"
        ) from error
    return [SweepResult.of(study) for study in studies]


def _set_view(store: Store, suite: str, studies: Sequence[Study]) -> None:
    """Sets the view of the sweep in the MLflow UI: its goals, and every setting that a study searches."""
    goals: dict[str, Direction] = {goal: DIRECTIONS[goal] for study in studies for goal in study.sweep.goals}
    settings = list(dict.fromkeys(key for study in studies for key in study.space))
    text = ui_view.sweep_description(next(iter(goals)), store.experiment_id(suite))
    store.set_view(suite, "sweep", ui_view.sweep_view(goals, settings), text)


def print_results(results: Sequence[SweepResult]) -> None:
    """Prints the value of the first goal at the preset and at the best settings of each row, and the best settings."""
    columns = [("row", "left"), ("goal", "left"), ("preset", "right"), ("best", "right"), ("complete", "right")]
    columns += [("pruned", "right"), ("failed", "right"), ("remaining", "right"), ("pairs", "right")]
    rows, lines = [], []
    for result in results:
        study, row = result.study, result.study.base.row
        best = next(iter(study.best_trials()), None)
        if best:
            values = ", ".join(f"{key.rpartition('.')[2]} {_format_value(v)}" for key, v in best.params.items())
            lines.append(f"best {row}: {values}")
        if (value := study.constant_goal()) is not None:
            lines.append(
                f"warning: {row}: {study.sweep.goals[0]} is {formatting.quantity(value)} in every complete trial, so "
                "it could not select one; the lowest validation loss did"
            )
        goals = ["none" if value is None else formatting.quantity(value) for value in (result.preset, result.best)]
        counts = [str(count) for count in result.job_counts.values()]
        budget = f" of {study.tuning_budget:,}" if study.tuning_budget else ""
        rows.append([row, study.sweep.goals[0], *goals, *counts, f"{study.pairs_spent:,.0f}{budget}"])
    terminal.table(columns, rows)
    for line in lines:
        terminal.say(line)


def _selection_line(study: Study) -> str:
    """What selects trials, and a warning if the file names a goal that cannot."""
    chosen = study.selection
    line = f"the validation score on {study.base.corpus_name} is {chosen.reason}"
    if "validation_bleu" in study.sweep.goals and chosen.score != "bleu":
        line += "; warning: the goal validation_bleu cannot tell trials apart there, use the goal validation_score"
    return line


def _format_value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# --- the MLflow run of a study ----------------------------------------------------------------------------------------


def study_tags(study: Study) -> dict[str, str]:
    """The tags of a study that do not change while it runs."""
    sweep, base = study.sweep, study.base
    return {
        "study": study.name,
        "row": base.row,
        "preset": base.preset,
        "corpus": base.corpus_name,
        "goals": ", ".join(sweep.goals),
        "limits": json.dumps(sweep.limits),
        "sampler": sweep.sampler.name,
        "pruner": sweep.pruner.name if study.prunes else "none",
        **study.selection.tags,
        "seed": str(base.seed),
        "trials": str(sweep.trials),
        "pairs_granted": str(study.tuning_budget or ""),
    }


def log_progress(study: Study, suite: str, writer: RunWriter, store: Store) -> None:
    """Writes the job counts and the best trial so far to the run of the study."""
    counts = study.job_counts()
    tags = {state.lower(): str(count) for state, count in counts.items()} | {"pairs_spent": f"{study.pairs_spent:.0f}"}
    constant = study.constant_goal()
    tags[CONSTANT_SCORE_TAG] = "" if constant is None else f"{constant:g}"  # more trials may differ
    best_trials = study.best_trials()
    if best_trials:
        best = best_trials[0]
        job_hash = best.user_attrs["job_hash"]
        runs = store.find(suite, job_hash)
        goals = dict(zip(study.sweep.goals, best.values, strict=True))
        tags |= {f"best.{key}": str(value) for key, value in best.params.items()}
        tags |= {"best.job_hash": job_hash, "best.run": runs[0].id if runs else ""}
        link = f"#/experiments/{store.experiment_id(suite)}/runs/{tags['best.run']}"
        ended = sum(counts.values()) - counts["remaining"]
        writer.curve([(ended, f"best/{goal}", value) for goal, value in goals.items()])
        scores = ", ".join(f"{goal} {_format_value(value)}" for goal, value in goals.items())
        settings = "".join(f"\n| `{key}` | {_format_value(value)} |" for key, value in best.params.items())
        tags["mlflow.note.content"] = (
            f"**{study.base.about.name}**, {study.base.corpus_name}, preset {study.base.preset}: {ended} of "
            f"{study.sweep.trials} trials.\n\nBest: [trial {best.number}]({link}), {scores}.\n\n"
            f"| setting | best |\n|---|---|{settings}"
        )
        # What flags have fixed belongs to the best values: they were found together.
        settings = {**search_space.fixed_settings(study.base, study.flags), **best.params}
        writer.text(yaml.safe_dump(nested_settings(settings), sort_keys=False), "best.yaml")
    writer.tag(tags)


def attempts_table(study: Study) -> dict[str, list[object]]:
    """The columns of a table of all attempts of a study, in order."""
    attempts, best = study.attempts(), study.best_trials()
    metrics = dict.fromkeys((study.selection.metric, LOSS, *study.sweep.goals))
    trial_numbers = {job_hash: job.trial_number for job_hash, job in study.jobs.items()}
    return {
        "attempt": [trial.number for trial in attempts],
        "trial": [trial_numbers[trial.user_attrs["job_hash"]] for trial in attempts],
        "job_hash": [trial.user_attrs["job_hash"] for trial in attempts],
        "state": [trial.state.name for trial in attempts],
        "reason": [trial.user_attrs.get("reason", "") for trial in attempts],
        "pairs": [trial.user_attrs.get("pairs") for trial in attempts],
        **{metric: [(t.user_attrs.get("values") or {}).get(metric) for t in attempts] for metric in metrics},
        "settings": [json.dumps(trial.params) for trial in attempts],
        "best": [trial in best for trial in attempts],
    }
