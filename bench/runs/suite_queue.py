"""The jobs of a suite as a queue, from which workers take them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.experiment.spec import Experiment
from bench.runs.job import JobResult, fail_run
from bench.runs.worker import Task, TaskResult
from bench.runs.worker_pool import MAX_ATTEMPTS
from bench.tracking.store import Store

LOCK_RETRY_SECONDS = 10.0
"""Seconds until a job that another process executes is tried again; that process may have finished it by then."""


class SuiteQueue:
    """The jobs of a suite as a `worker_pool.JobQueue`. An ensemble waits for its members.

    Args:
        again: Start a new run of each job.
        threads: Threads of a job that does not set `machine.threads`.
        on_end: Gets the result of each job that has ended.
        store: Where the run of a job that has lost too many workers is marked as failed.
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        suite: str,
        parent: str,
        again: bool,
        threads: int | None,
        on_end: Callable[[JobResult], None],
        store: Store,
    ):
        self.suite, self.parent, self.again, self.threads, self.on_end = suite, parent, again, threads, on_end
        self.store = store
        self.waiting = list(experiments)
        self.job_hashes = [experiment.job_hash for experiment in experiments]
        self.equal_budgets = len({experiment.training.max_pairs for experiment in experiments}) <= 1
        self.results: dict[str, JobResult] = {}
        self.lost_workers: dict[str, int] = {}
        self.started = set[str]()  # jobs for which this command has created or resumed a run
        self.retry_at: dict[str, float] = {}  # job that another process executes -> time.monotonic() of the next try

    @property
    def remaining(self) -> int:
        return len(self.job_hashes) - len(self.results)

    def next_task(self) -> Task | None:
        unfinished = set(self.job_hashes) - self.results.keys()
        for experiment in self.waiting:
            delayed = time.monotonic() < self.retry_at.get(experiment.job_hash, 0.0)
            if not delayed and unfinished.isdisjoint(member.job_hash for member in experiment.members):
                self.waiting.remove(experiment)
                machine = replace(experiment.machine, threads=experiment.machine.threads or self.threads)
                # A job whose worker was lost continues the run that it started, instead of starting another one.
                again = self.again and experiment.job_hash not in self.started
                return Task(replace(experiment, machine=machine), self.suite, self.parent, again)
        return None

    def on_status(self, task: Task, status: object) -> bool:
        self.started.add(task.experiment.job_hash)
        return False

    def on_result(self, task: Task, result: TaskResult) -> str:
        experiment = task.experiment
        if result.job:
            self.results[experiment.job_hash] = result.job
            self.on_end(result.job)
            return describe_result(result.job)
        if result.state == "stopped":
            self.waiting.insert(0, experiment)
            return result.reason
        if result.state == "locked":
            self.retry_at[experiment.job_hash] = time.monotonic() + LOCK_RETRY_SECONDS
            self.waiting.append(experiment)
            return f"{result.reason}; next try in {LOCK_RETRY_SECONDS:.0f} s"
        if result.state == "lost":
            self.lost_workers[experiment.job_hash] = self.lost_workers.get(experiment.job_hash, 0) + 1
            if self.lost_workers[experiment.job_hash] < MAX_ATTEMPTS:
                self.waiting.insert(0, experiment)
                return f"{result.reason}; continues with another worker"
            if runs := self.store.find(self.suite, experiment.job_hash):  # the lost worker could not close it
                fail_run(self.store, runs[0].id, f"{result.reason}, {MAX_ATTEMPTS} times")
        self.results[experiment.job_hash] = failed = JobResult(experiment, None, [], "failed")
        self.on_end(failed)
        return f"failed: {result.reason}"


def describe_result(result: JobResult) -> str:
    """The state and BLEU of a job, in a few words."""
    values = {measure.metric: measure.value for measure in result.measures}
    bleu = next((value for name, value in values.items() if name.endswith("/bleu")), None)
    score = f", {bleu:.1f} BLEU" if bleu is not None else ""
    return f"{result.state}{score}"
