"""A row's search: its Optuna study, and the jobs that it tries."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from bench.experiment import search_space
from bench.experiment.loading import architectures, resolve
from bench.experiment.spec import Experiment
from bench.measures.measure import Measure
from bench.runs.job import TrialInfo
from bench.runs.worker import Task, TaskResult
from bench.runs.worker_pool import MAX_ATTEMPTS
from bench.sweep.settings import GOALS, Direction, Sweep
from bench.sweep.storage import HEARTBEAT_INTERVAL
from bench.system import terminal
from bench.system.progress import Status
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store

MAX_DUPLICATES = 20
"""Draws in a row that were tried before, after which a space is taken to have no more."""

LOST_WORKER = "lost worker"
"""The reason of every attempt until another is told: a driver that is killed can no longer say it."""


@dataclass
class JobAttempts:
    """What the storage knows of a job: its attempts, and how it has ended, if it has."""

    first: int
    attempts: list[FrozenTrial]

    @property
    def end(self) -> str | None:
        for attempt in self.attempts:
            if attempt.state in (TrialState.COMPLETE, TrialState.PRUNED):
                return attempt.state.name
        failed = any(attempt.user_attrs.get("failed") for attempt in self.attempts)
        return "FAILED" if failed or self.lost_workers >= MAX_ATTEMPTS else None

    @property
    def lost_workers(self) -> int:
        fails = [attempt for attempt in self.attempts if attempt.state == TrialState.FAIL]
        return sum(attempt.user_attrs["reason"].startswith(LOST_WORKER) for attempt in fails)

    @property
    def open(self) -> bool:
        return any(attempt.state in (TrialState.RUNNING, TrialState.WAITING) for attempt in self.attempts)


class Study:
    """A row's search: its Optuna study, and the jobs that it tries.

    Attributes:
        name: Of the study; ends with a hash of all that its trials have in common, the space included.
        base: The experiment at the preset's settings, with the sweep's seed.
    """

    def __init__(
        self,
        sweep: Sweep,
        row: str,
        preset: str,
        flags: Sequence[str],
    ) -> None:
        self.sweep, self.flags, self.file = sweep, flags, architectures()[row]
        self.base = self.experiment(preset, row, {})
        if self.base.members:
            raise ValueError(f"--row {row}: an ensemble has the settings of its members; sweep {self.base.ensemble.of}")
        self.space = search_space.free(search_space.read(self.file, preset, row), flags)
        self.preset_values = search_space.preset(self.space, self.base)
        common = json.dumps([self.base.job_hash, sweep.goals, sweep.limits])
        self.name = f"{self.base.name} {search_space.digest(self.space, common)}"
        self.jobs: dict[str, JobAttempts] = {}
        self.open: dict[int, optuna.Trial] = {}
        self.reported: dict[int, int] = {}  # open attempt -> validations that Optuna knows of
        self.seen: dict[int, int] = {}  # open attempt -> sentence pairs
        self.repeats = 0
        self.read_at = 0.0
        self.waits_until = 0.0

    def experiment(self, preset: str, row: str, values: Mapping[str, Any]) -> Experiment:
        layers = [{"seed": self.sweep.seed}, search_space.layer(values)]
        return resolve(self.file, preset=preset, row=row, suite=layers, flags=self.flags)

    def begin(self, storage: optuna.storages.RDBStorage) -> None:
        """Opens the study, with the preset as its first trial."""
        directions: list[Direction] = [GOALS[goal] for goal in self.sweep.goals]
        pruner = self.sweep.pruner.make(optuna.pruners, "pruner") if self.sweep.prunes else optuna.pruners.NopPruner()
        self.storage = storage
        self.optuna = optuna.create_study(
            storage=storage, pruner=pruner, study_name=self.name, directions=directions, load_if_exists=True
        )
        # A sampler that began with the same seed again would draw the same settings again.
        seed = self.sweep.seed + len(self.optuna.get_trials(deepcopy=False))
        self.optuna.sampler = self.sweep.sampler.make(optuna.samplers, "sampler", seed=seed)
        self.read()
        waiting = self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if self.base.job_hash not in self.jobs and not waiting:
            self.optuna.enqueue_trial(self.preset_values)

    # --- what there is to do --------------------------------------------------------------------------------------

    def read(self) -> None:
        """What the storage knows by now; attempts of other drivers whose heart has stopped are lost."""
        self.read_at = time.monotonic()
        self.all_beat()  # this driver lives, even if the machine has slept
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.optuna)
        jobs: dict[str, JobAttempts] = {}
        for trial in self.optuna.get_trials(deepcopy=False):
            if job := trial.user_attrs.get("job_hash"):
                jobs.setdefault(job, JobAttempts(trial.number, [])).attempts.append(trial)
        self.jobs = jobs

    @property
    def ended(self) -> int:
        return sum(known.end is not None for known in self.jobs.values())

    @property
    def left(self) -> int:
        wanted = self.sweep.trials if self.repeats < MAX_DUPLICATES else len(self.jobs)
        return max(0, wanted - self.ended)

    def take(self, suite: str, parent: str, threads: int | None) -> Task | None:
        if time.monotonic() - self.read_at > 1:
            self.read()
        if time.monotonic() < self.waits_until:
            return None
        undone = [(job, known) for job, known in self.jobs.items() if known.end is None and not known.open]
        if undone:
            job, known = undone[0]
            last = known.attempts[-1]
            self.optuna.enqueue_trial(last.params, {"again": job})
        elif len(self.jobs) >= self.sweep.trials:
            return None
        while self.repeats < MAX_DUPLICATES:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used")
                trial = self.optuna.ask()
            task = self._begin(trial, suite, parent, threads)
            if task:
                self.repeats = 0
                self.read()
                return task
            if "again" in trial.user_attrs:
                return None
            self.repeats += 1
        terminal.say(f"  {self.name}: {MAX_DUPLICATES} draws in a row had been tried before; the space has no more")
        return None

    def _begin(self, trial: optuna.Trial, suite: str, parent: str, threads: int | None) -> Task | None:
        """The task of an attempt; None if its settings have been tried, or the job that was to go on has ended."""
        trial.set_user_attr("reason", LOST_WORKER)
        self.beat(trial)
        values = self.draw(trial)
        experiment = self.experiment(self.base.preset, self.base.row, values)
        again = trial.user_attrs.get("again")
        known = self.jobs.get(experiment.job_hash)
        if known and (again != experiment.job_hash or known.end or known.open):
            trial.set_user_attr("reason", f"the settings of trial {known.first} again")
            self.optuna.tell(trial, state=TrialState.FAIL)
            return None
        attempt = len(known.attempts) + 1 if known else 1
        trial.set_user_attr("job_hash", experiment.job_hash)
        trial.set_user_attr("attempt", attempt)
        self.open[trial.number] = trial
        machine = replace(experiment.machine, threads=experiment.machine.threads or threads)
        goals = (*self.sweep.goals, *self.sweep.limits)
        tuning = TrialInfo(self.name, known.first if known else trial.number, attempt, goals)
        shared = replace(experiment, machine=machine)
        return Task(shared, suite, parent, awaits_reply=self.sweep.prunes, tuning=tuning, task_id=trial.number)

    def draw(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Settings drawn for a trial, key -> value."""
        drawn: dict[str, Any] = {}
        for key, span in self.space.items():
            if not search_space.wanted(span, drawn, self.base):
                continue
            if span.choices:
                drawn[key] = trial.suggest_categorical(key, list(span.choices))
            elif span.whole:
                step = 1 if span.step is None else int(span.step)
                drawn[key] = trial.suggest_int(key, int(span.low or 0), int(span.high or 0), step=step, log=span.log)
            else:
                low, high = float(span.low or 0), float(span.high or 0)
                drawn[key] = trial.suggest_float(key, low, high, step=span.step, log=span.log)
        return drawn

    def beat(self, trial: optuna.Trial) -> None:
        self.storage.record_heartbeat(trial._trial_id)

    def all_beat(self) -> None:
        for trial in list(self.open.values()):
            self.beat(trial)

    # --- what becomes of it ---------------------------------------------------------------------------------------

    def told(self, task: Task, status: Status) -> bool:
        """Reports validations; True if the job is to be pruned."""
        self.seen[task.task_id] = status.pairs
        known = self.reported.get(task.task_id, 0)
        if not self.sweep.prunes or len(status.validations) <= known:
            return False
        trial = self.open[task.task_id]
        try:
            for step, (_, bleu) in enumerate(status.validations[known:], known + 1):
                trial.report(bleu, step)
            self.reported[task.task_id] = len(status.validations)
            return status.fraction < 1 and bool(trial.should_prune())
        except UpdateFinishedTrialError:  # another driver took it for lost; `tell` says so
            return False

    def tell(self, task: Task, end: TaskResult, store: Store) -> str:
        """Tells Optuna how an attempt has ended; what came of it, in words."""
        trial = self.open.pop(task.task_id)
        self.reported.pop(task.task_id, None)
        seen = self.seen.pop(task.task_id, 0)
        if self.storage.get_trial(trial._trial_id).state.is_finished():
            self.read()
            return "another driver took it for lost; the next attempt finds its run"
        trial.set_user_attr("pairs", seen)  # of a job that fails or is lost; one that ends has measured it
        if end.outcome and end.outcome.run:
            said = self._done(trial, end.outcome.run.tags.get("state") == "PRUNED", end.outcome.measures)
        elif end.state == "failed":
            self._failed(task, end.reason, store)
            trial.set_user_attr("failed", True)
            said = self._fail(trial, f"failed: {end.reason}")
        else:
            if end.state == "busy":
                self.waits_until = time.monotonic() + HEARTBEAT_INTERVAL
            said = self._fail(trial, end.reason)
        self.read()
        known = self.jobs[task.experiment.job_hash]
        if end.state == "lost":
            if known.end is None:
                return f"{said}; goes on with another, attempt {known.lost_workers + 1} of {MAX_ATTEMPTS}"
            self._failed(task, f"{LOST_WORKER}, {MAX_ATTEMPTS} times", store)
        return said

    def _done(self, trial: optuna.Trial, pruned: bool, measures: Sequence[Measure]) -> str:
        values = {measure.metric: measure.value for measure in measures}
        trial.set_user_attr("pairs", values.get("pairs"))
        trial.set_user_attr("values", {name: values.get(name) for name in (*self.sweep.goals, *self.sweep.limits)})
        bleu = values.get("validation_bleu")
        scored = f"{bleu:.1f} BLEU" if bleu is not None else "no BLEU"
        if pruned:
            trial.set_user_attr("reason", "pruned")
            self.optuna.tell(trial, state=TrialState.PRUNED)
            return f"pruned at {scored}"
        for name in self.sweep.limits:
            trial.set_constraint(name, self.sweep.violation(name, values.get(name)))
        goals = [values.get(name) for name in self.sweep.goals]
        if any(value is None for value in goals):
            trial.set_user_attr("failed", True)
            return self._fail(trial, f"failed: {self.sweep.goals} could not all be measured: {goals}")
        trial.set_user_attr("reason", "")
        self.optuna.tell(trial, [float(value) for value in goals if value is not None])
        return f"complete, {scored}"

    def _fail(self, trial: optuna.Trial, reason: str) -> str:
        trial.set_user_attr("reason", reason)
        self.optuna.tell(trial, state=TrialState.FAIL)
        return reason

    def _failed(self, task: Task, reason: str, store: Store) -> None:
        """Every job has a run that says how it ended, also one that failed before it could have one."""
        runs = store.find(task.suite, task.experiment.job_hash)
        if runs:
            job = RunWriter(store.client, runs[0].id)
        else:
            assert task.tuning
            tags = {"row": task.experiment.row, "job_hash": task.experiment.job_hash, **task.tuning.tags}
            job = store.begin(task.suite, task.tuning.name(task.experiment), tags, task.parent)
        job.tag({"state": "FAILED", "reason": reason})
        job.finish("FAILED")

    # --- what was found -------------------------------------------------------------------------------------------

    def attempts(self) -> list[FrozenTrial]:
        return sorted((a for known in self.jobs.values() for a in known.attempts), key=lambda a: a.number)

    def states(self) -> dict[str, int]:
        """How many jobs have ended how, and how many are left."""
        ends = [known.end for known in self.jobs.values()]
        return {state: ends.count(state) for state in ("COMPLETE", "PRUNED", "FAILED")} | {"left": self.left}

    @property
    def tuning_budget(self) -> int | None:
        """The tuning budget, trials x training budget, in sentence pairs; None where the preset has another unit."""
        pairs = self.base.training.max_pairs
        return self.sweep.trials * pairs if pairs else None

    @property
    def spent(self) -> float:
        """Sentence pairs that the ended jobs have seen."""
        each = ([attempt.user_attrs.get("pairs") or 0 for attempt in known.attempts] for known in self.jobs.values())
        return sum(max(pairs) for pairs in each)

    def best_trials(self) -> list[FrozenTrial]:
        """The best trial within the limits, or with several goals the Pareto front, best in the first goal first."""
        within = [
            trial
            for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if all(self.sweep.violation(n, trial.user_attrs["values"][n]) <= 0 for n in self.sweep.limits)
        ]
        signs = [1 if GOALS[goal] == "maximize" else -1 for goal in self.sweep.goals]
        points = [tuple(sign * value for sign, value in zip(signs, trial.values, strict=True)) for trial in within]
        best = [
            (point, -trial.number, trial)
            for point, trial in zip(points, within, strict=True)
            if not any(other != point and all(o >= p for o, p in zip(other, point, strict=True)) for other in points)
        ]
        ranked = [trial for *_, trial in sorted(best, key=lambda entry: entry[:2], reverse=True)]
        return ranked if len(signs) > 1 else ranked[:1]

    def preset_trial(self) -> FrozenTrial | None:
        """The finished trial of the preset."""
        known = self.jobs.get(self.base.job_hash)
        done = [a for a in known.attempts if a.state == TrialState.COMPLETE] if known else []
        return done[0] if done else None

    def importance(self) -> dict[str, float]:
        """Setting -> its part of the variance of the first goal (PED-ANOVA); empty before there are enough trials."""
        first = (lambda trial: trial.values[0]) if len(self.sweep.goals) > 1 else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return optuna.importance.get_param_importances(self.optuna, target=first)
        except (ValueError, RuntimeError):
            return {}
