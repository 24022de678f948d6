"""The hyperparameter search of one row: its Optuna study, and the jobs that it tries."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from bench.experiment import search_space
from bench.experiment.job_data import corpus_of, selection_of
from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.experiment.yaml_layers import nested_settings
from bench.measures.measure import Measure
from bench.measures.selection import DEFAULT_TOKENIZER, is_constant
from bench.runs.job import TrialInfo, fail_run
from bench.runs.metadata import corpus_hashes
from bench.runs.worker import Task, TaskResult
from bench.runs.worker_pool import MAX_ATTEMPTS
from bench.sweep.job_attempts import LOST_WORKER, UNFINISHED, JobAttempts
from bench.sweep.pareto_front import LOSS, pareto_front
from bench.sweep.settings import DIRECTIONS, Direction, Sweep
from bench.sweep.storage import HEARTBEAT_INTERVAL
from bench.system import terminal
from bench.system.facts import COMMIT, code_state
from bench.system.progress import Status
from bench.tracking.store import Store
from bench.tracking.store_format import STORE_FORMAT, check_format

MAX_DUPLICATES = 20
"""Consecutive duplicate samples after which the search space counts as exhausted."""


class Study:
    """The hyperparameter search of one row.

    Attributes:
        name: Name of the study. It ends with a hash of everything that its trials share, including the search space.
        base: The experiment with the settings of the preset and the seed of the sweep.
        selection: The validation score of its jobs, which prunes, is the goal validation_score, and decides ties.
        jobs: Job hash -> its attempts, as the storage had them at the last `refresh`.
        space: The settings that are searched.
        preset_values: The settings of the first trial.
    """

    failures_since: datetime | None = None
    """Time before which attempts that failed do not end their job; None if all do."""

    may_draw_again = True
    """Whether another trial is drawn if the settings of a new one have been tried before."""

    def __init__(self, sweep: Sweep, row: str, preset: str, flags: Sequence[str]) -> None:
        self.sweep, self.flags, self.file = sweep, flags, row_files()[row]
        self.base = self.first_experiment(preset, row)
        if self.base.members:
            raise ValueError(f"--row {row}: an ensemble has the settings of its members; sweep {self.base.ensemble.of}")
        self.selection = selection_of(self.base)
        self.sweep = sweep.for_selection(self.selection)
        self.space = self.read_space()
        self.preset_values = self.first_values()
        shared: list[object] = [self.base.job_hash, self.sweep.goals, sweep.limits]
        if self.selection.tokenizer != DEFAULT_TOKENIZER:  # the script of the text may have told it
            shared.append(self.selection.tokenizer)
        if self.base.corpus.train:  # files may change under the same name; all other text has fixed content
            shared.append(corpus_hashes(corpus_of(self.base)))
        common = json.dumps(shared)
        self.name = f"{self.base.name} {search_space.space_hash(self.space, common)}"
        self.jobs: dict[str, JobAttempts] = {}
        self.running: dict[int, optuna.Trial] = {}  # attempts of this driver
        self.reported: dict[int, int] = {}  # running attempt -> number of validations reported to Optuna
        self.pairs_seen: dict[int, int] = {}  # running attempt -> sentence pairs
        self.duplicates = 0  # consecutive samples that had been tried before
        self.refreshed_at = 0.0  # time.monotonic()
        self.retry_at = 0.0

    @property
    def prunes(self) -> bool:
        """Whether the pruner may stop a job: only if the validation score is the one goal."""
        return self.sweep.goals == [self.selection.metric]

    def first_experiment(self, preset: str, row: str) -> Experiment:
        """The job of the first trial, which has the settings of the preset."""
        return self._resolve(preset, row, {})

    def experiment(self, values: Mapping[str, Any]) -> Experiment:
        """The job with these values of the settings that are searched."""
        return self._resolve(self.base.preset, self.base.row, values)

    def _resolve(self, preset: str, row: str, values: Mapping[str, Any]) -> Experiment:
        layers = [{"seed": self.sweep.seed}, nested_settings(values)]
        return resolve(self.file, preset=preset, row=row, suite=layers, flags=self.flags)

    def read_space(self) -> search_space.Space:
        """The space in the row's file, without the settings that a flag has fixed."""
        space = search_space.read_space(self.file, self.base.preset, self.base.row)
        return search_space.without_fixed(space, self.flags)

    def first_values(self) -> dict[str, Any]:
        """The values of the first trial: those of the preset."""
        return search_space.preset_values(self.space, self.base)

    def open(self, storage: optuna.storages.RDBStorage) -> None:
        """Opens the study, or creates it with the settings of the preset as its first trial.

        Raises:
            ValueError: the study exists and was written in another format.
        """
        directions: list[Direction] = [DIRECTIONS[goal] for goal in self.sweep.goals]
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if self.prunes:
            pruner = self.sweep.pruner.create(optuna.pruners, "pruner")
        self.storage = storage
        self.optuna_study = optuna.create_study(
            storage=storage, pruner=pruner, study_name=self.name, directions=directions, load_if_exists=True
        )
        trials = len(self.optuna_study.get_trials(deepcopy=False))
        stored_format = self.optuna_study.user_attrs.get("format")
        if stored_format is None and not trials:
            self.optuna_study.set_user_attr("format", STORE_FORMAT)
        else:
            check_format(stored_format, f"--storage: the study {self.name!r}", "choose another --storage")
        # If a resumed study gave its sampler the first seed again, it would draw the first settings again.
        seed = self.sweep.seed + trials
        self.optuna_study.sampler = self.sweep.sampler.create(optuna.samplers, "sampler", seed=seed)
        self.refresh()
        self.add_first_trials()

    def add_first_trials(self) -> None:
        """Makes the settings of the preset the first trial, unless it exists."""
        waiting = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if self.base.job_hash not in self.jobs and not waiting:
            self.optuna_study.enqueue_trial(self.preset_values)

    # --- next tasks -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Reads the jobs from the storage. Attempts of other drivers without a recent heartbeat count as lost."""
        self.refreshed_at = time.monotonic()
        self.send_heartbeats()  # first, so that this driver's own attempts survive if the machine was suspended
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.optuna_study)
        jobs: dict[str, JobAttempts] = {}
        for trial in self.optuna_study.get_trials(deepcopy=False):
            job_hash = trial.user_attrs.get("job_hash")
            if job_hash and self.is_wanted(job_hash):
                new = JobAttempts(trial.number, [], self.failures_since)
                jobs.setdefault(job_hash, new).attempts.append(trial)
        self.jobs = jobs

    @property
    def remaining(self) -> int:
        """Number of jobs that have not ended, including those that have not started."""
        planned = self.sweep.trials if self.duplicates < MAX_DUPLICATES else len(self.jobs)
        ended = sum(job.state is not None for job in self.jobs.values())
        return max(0, planned - ended)

    @property
    def interrupted(self) -> list[str]:
        """Hashes of the jobs that were started, have not ended, and are not in progress."""
        return [key for key, job in self.jobs.items() if job.state is None and not job.in_progress]

    def next_task(self, suite: str, parent: str, threads: int | None) -> Task | None:
        """The next attempt at a job: an interrupted one first, then a new one. None if none can start now.

        Args:
            suite: Name of the MLflow experiment.
            parent: Id of the run of the study.
            threads: Threads of a job that does not set `machine.threads`.
        """
        if time.monotonic() - self.refreshed_at > 1:
            self.refresh()
        if time.monotonic() < self.retry_at:
            return None
        if interrupted := self.interrupted:
            settings = self.jobs[interrupted[0]].attempts[-1].params
            self.optuna_study.enqueue_trial(settings, {"retry_of": interrupted[0]})
        elif len(self.jobs) >= self.sweep.trials or self.duplicates >= MAX_DUPLICATES:
            return None  # nothing new, but jobs of other workers may be in progress
        self.before_new_trial()
        for _ in range(max(MAX_DUPLICATES - self.duplicates, 1 if interrupted else 0)):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used")
                trial = self.optuna_study.ask()
            task = self._start_attempt(trial, suite, parent, threads)
            if task:
                self.duplicates = 0
                self.refresh()
                return task
            if "retry_of" in trial.user_attrs or not self.may_draw_again:
                return None  # another driver has this attempt
            self.duplicates += 1
        if not interrupted:
            terminal.say(
                f"  {self.name}: {MAX_DUPLICATES} consecutive samples were duplicates: the search space is exhausted"
            )
        return None

    def before_new_trial(self) -> None:
        """Called before Optuna is asked for a trial; the sampler draws it unless one is enqueued here."""

    def is_wanted(self, job_hash: str) -> bool:
        """Whether a job is one of this study. Others count as if the storage did not have them."""
        return True

    def save_finished(self) -> None:
        """Called after each attempt, for searches that keep their trials outside of the storage."""

    def _start_attempt(self, trial: optuna.Trial, suite: str, parent: str, threads: int | None) -> Task | None:
        """The task of an attempt; None if its settings were tried before or are not wanted, or the job has ended."""
        trial.set_user_attr("reason", UNFINISHED)
        self._send_heartbeat(trial)
        experiment = self.experiment(self.suggest(trial))
        if not self.is_wanted(experiment.job_hash):
            trial.set_user_attr("reason", "no trial of this search")
            self.optuna_study.tell(trial, state=TrialState.FAIL)
            return None
        job = self.jobs.get(experiment.job_hash)
        is_retry = trial.user_attrs.get("retry_of") == experiment.job_hash
        if job and (not is_retry or job.state or job.in_progress):
            trial.set_user_attr("reason", f"the settings of trial {job.trial_number} again")
            self.optuna_study.tell(trial, state=TrialState.FAIL)
            return None
        attempt = len(job.attempts) + 1 if job else 1
        trial.set_user_attr("job_hash", experiment.job_hash)
        trial.set_user_attr("commit", code_state(Path(__file__))[COMMIT])
        trial.set_user_attr("attempt", attempt)
        self.running[trial.number] = trial
        goals = (*self.sweep.goals, *self.sweep.limits)
        info = TrialInfo(self.name, job.trial_number if job else trial.number, attempt, goals)
        machine = replace(experiment.machine, threads=experiment.machine.threads or threads)
        experiment = replace(experiment, machine=machine)
        return Task(experiment, suite, parent, awaits_reply=self.prunes, trial=info, id=trial.number)

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """The settings that Optuna suggests for a trial: key -> value."""
        suggested: dict[str, Any] = {}
        for key, span in self.space.items():
            if not search_space.is_active(span, suggested, self.base):
                continue
            if span.choices:
                suggested[key] = trial.suggest_categorical(key, list(span.choices))
            elif span.is_integer:
                step = 1 if span.step is None else int(span.step)
                suggested[key] = trial.suggest_int(
                    key, int(span.low or 0), int(span.high or 0), step=step, log=span.log
                )
            else:
                low, high = float(span.low or 0), float(span.high or 0)
                suggested[key] = trial.suggest_float(key, low, high, step=span.step, log=span.log)
        return suggested

    def _send_heartbeat(self, trial: optuna.Trial) -> None:
        self.storage.record_heartbeat(trial._trial_id)

    def send_heartbeats(self) -> None:
        """Tells the storage that this driver's attempts are alive."""
        for trial in list(self.running.values()):
            self._send_heartbeat(trial)

    # --- results --------------------------------------------------------------------------------------------------

    def on_status(self, task: Task, status: Status) -> bool:
        """Reports new validations to Optuna; returns whether to prune the job."""
        self.pairs_seen[task.id] = status.pairs
        reported = self.reported.get(task.id, 0)
        if not self.prunes or len(status.validations) <= reported:
            return False
        trial = self.running[task.id]
        try:
            for step, (_, score) in enumerate(status.validations[reported:], reported + 1):
                trial.report(score, step)
            self.reported[task.id] = len(status.validations)
            return status.fraction < 1 and bool(trial.should_prune())
        except UpdateFinishedTrialError:  # another driver has marked the attempt as lost; `on_result` prints that
            return False

    def on_result(self, task: Task, result: TaskResult, store: Store) -> str:
        """Tells Optuna the result of an attempt; returns a description of it for the user."""
        trial = self.running.pop(task.id)
        self.reported.pop(task.id, None)
        pairs_seen = self.pairs_seen.pop(task.id, 0)
        if self.storage.get_trial(trial._trial_id).state.is_finished():
            self.refresh()
            return "another driver marked this attempt as lost; the next attempt continues its run"
        if result.job and result.job.run and (commit := result.job.run.tags.get(COMMIT)):
            trial.set_user_attr("commit", commit)  # that of the run, which may have begun, or finished, before
        trial.set_user_attr("pairs", pairs_seen)  # for a failed or lost job; a finished one has measured them
        if result.job and result.job.run:
            pruned = result.job.run.tags.get("state") == "PRUNED"
            description = self._tell_finished(trial, pruned, result.job.measures)
        elif result.state == "failed":
            self._mark_run_failed(task, result.reason, store)
            trial.set_user_attr("failed", True)
            description = self._tell_failed(trial, f"failed: {result.reason}")
        else:
            if result.state == "locked":
                self.retry_at = time.monotonic() + HEARTBEAT_INTERVAL
            description = self._tell_failed(trial, result.reason)
        self.refresh()
        job = self.jobs[task.experiment.job_hash]
        if result.state == "lost":
            if job.state is None:
                attempt = f"attempt {job.lost_workers + 1} of {MAX_ATTEMPTS}"
                return f"{description}; continues with another worker, {attempt}"
            self._mark_run_failed(task, f"{LOST_WORKER}, {MAX_ATTEMPTS} times", store)
        return description

    def _tell_finished(self, trial: optuna.Trial, pruned: bool, measures: Sequence[Measure]) -> str:
        values = {measure.metric: measure.value for measure in measures}
        trial.set_user_attr("pairs", values.get("pairs"))
        kept = (*self.sweep.goals, *self.sweep.limits, self.selection.metric, LOSS)
        trial.set_user_attr("values", {name: values.get(name) for name in kept})
        value = values.get(self.selection.metric)
        score = self.selection.text(value) if value is not None else f"no {self.selection.label}"
        if pruned:
            trial.set_user_attr("reason", "pruned")
            self.optuna_study.tell(trial, state=TrialState.PRUNED)
            return f"pruned at {score}"
        for name in self.sweep.limits:
            trial.set_constraint(name, self.sweep.violation(name, values.get(name)))
        goals = [values.get(name) for name in self.sweep.goals]
        if any(value is None for value in goals):
            trial.set_user_attr("failed", True)
            return self._tell_failed(trial, f"failed: not all of {self.sweep.goals} could be measured: {goals}")
        trial.set_user_attr("reason", "")
        self.optuna_study.tell(trial, [float(value) for value in goals if value is not None])
        return f"complete, {score}"

    def _tell_failed(self, trial: optuna.Trial, reason: str) -> str:
        trial.set_user_attr("reason", reason)
        self.optuna_study.tell(trial, state=TrialState.FAIL)
        return reason

    def _mark_run_failed(self, task: Task, reason: str, store: Store) -> None:
        """Writes the failure to the run of the job; creates one if the job failed before it had a run."""
        if runs := store.find(task.suite, task.experiment.job_hash):
            run_id = runs[0].id
        else:
            assert task.trial
            tags = {"row": task.experiment.row, "job_hash": task.experiment.job_hash, **task.trial.tags}
            run_id = store.begin(task.suite, task.trial.run_name(task.experiment), tags, task.parent).id
        fail_run(store, run_id, reason, {"state": "FAILED"})

    # --- best trials and costs ------------------------------------------------------------------------------------

    def attempts(self) -> list[FrozenTrial]:
        """All attempts, in order of their numbers."""
        return sorted((a for job in self.jobs.values() for a in job.attempts), key=lambda a: a.number)

    def job_counts(self) -> dict[str, int]:
        """Number of jobs in each final state, and of those that remain."""
        states = [job.state for job in self.jobs.values()]
        counts = {state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAILED")}
        return counts | {"remaining": self.remaining}

    @property
    def tuning_budget(self) -> int | None:
        """Trials x training budget, in sentence pairs; None if the training budget has another unit."""
        pairs = self.base.training.max_pairs
        return self.sweep.trials * pairs if pairs else None

    @property
    def pairs_spent(self) -> float:
        """Sentence pairs seen by all jobs. A job counts with its longest attempt, because attempts continue a run."""
        each = ([attempt.user_attrs.get("pairs") or 0 for attempt in job.attempts] for job in self.jobs.values())
        return sum(max(pairs) for pairs in each)

    def best_trials(self) -> list[FrozenTrial]:
        """The best trial within the limits; with several goals the Pareto front (pareto_front.py)."""
        return pareto_front(self.sweep, self._complete_trials())

    def _complete_trials(self) -> list[FrozenTrial]:
        """The complete trials of this study, without those of the storage that are not wanted."""
        complete = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in complete if self.is_wanted(trial.user_attrs.get("job_hash", ""))]

    def constant_goal(self) -> float | None:
        """The value of the first goal if it is equal in all of several complete trials; else None."""
        values = [trial.values[0] for trial in self._complete_trials()]
        return values[0] if is_constant(values) else None

    def preset_trial(self) -> FrozenTrial | None:
        """The complete trial with the settings of the preset, if there is one."""
        job = self.jobs.get(self.base.job_hash)
        complete = [a for a in job.attempts if a.state == TrialState.COMPLETE] if job else []
        return complete[0] if complete else None

    def importance(self) -> dict[str, float]:
        """Setting -> its share of the variance of the first goal (PED-ANOVA); empty if there are too few trials."""
        first = (lambda trial: trial.values[0]) if len(self.sweep.goals) > 1 else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wanted = optuna.create_study(directions=self.optuna_study.directions)
                wanted.add_trials(self._complete_trials())
                return optuna.importance.get_param_importances(wanted, target=first)
        except (ValueError, RuntimeError):
            return {}
