"""Workers as threads of the test's own process, and jobs that end as they are told to: a schedule in seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client
from typing import Any

from bench.experiment.spec import Experiment
from bench.measures.measure import Measure
from bench.runs.job import JobResult, TrialInfo
from bench.runs.worker import KEY, WorkerClient, WorkerReady
from bench.system.progress import Status, StatusCallback
from bench.tracking.store import Store


class Gone(BaseException):
    """What a job raises that takes its worker with it, as `kill -9` does."""


class Thread:
    """A worker, started as `workers.Process`."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        *_, address, number = command
        self.how: str | None = None
        self.thread = threading.Thread(target=self.work, args=(address, int(number), environment[KEY]), daemon=True)
        self.thread.start()

    def work(self, address: str, number: int, key: str) -> None:
        connection = Client(address, authkey=bytes.fromhex(key))
        worker = WorkerClient(connection, lambda: None)
        worker.send(WorkerReady(number, "here", 0))
        try:
            worker.work()
            self.how = "exit code 0"
        except Gone:
            self.how = "signal 9"
        finally:
            connection.close()

    def ended(self) -> str | None:
        return self.how

    def kill(self) -> None:
        self.how = self.how or "killed"


@dataclass
class Threads:
    """A `workers.WorkerBackend`."""

    count: int = 2
    address: tuple[str, int] | None = None

    def start(self, command: Sequence[str], environment: dict[str, str]) -> Thread:
        return Thread(command, environment)

    def check(self, experiments: Sequence[Experiment]) -> None:
        pass

    def threads(self) -> int:
        return 1


@dataclass
class FakeJobs:
    """Stands in for `job.run`: a run in the store, `curve(experiment)` as its validations, and an end.

    `curve` may raise: then the job fails, or (Gone) its worker dies. `begun` has every attempt.
    """

    curve: Callable[[Experiment], Sequence[float]]
    pairs: int = 100

    def __post_init__(self) -> None:
        self.begun: list[Experiment] = []

    def run(
        self,
        experiment: Experiment,
        store: Store,
        suite: str,
        *,
        parent: str | None,
        again: bool,
        watch: StatusCallback,
        tuning: TrialInfo | None,
    ) -> JobResult:
        self.begun.append(experiment)
        found = store.find(suite, experiment.job_hash)
        if found and not again:
            job = store.resume(found[0].id)
            job.tag(tuning.tags if tuning else {})
        else:
            tags = {"row": experiment.row, "job_hash": experiment.job_hash} | (tuning.tags if tuning else {})
            job = store.begin(suite, tuning.name(experiment) if tuning else experiment.name, tags, parent)
        seen: list[tuple[int, float]] = []
        values = self.curve(experiment)
        stopped = False
        for number, bleu in enumerate(values, 1):
            seen.append((number * self.pairs, bleu))
            fraction = number / len(values)
            best = max(score for _, score in seen)
            stopped = bool(watch(Status(fraction, number, seen[-1][0], 0, 1.0, None, best, tuple(seen))))
            if stopped:
                break
        measures = [
            Measure("validation_bleu", max(score for _, score in seen), "percent"),
            Measure("pairs", seen[-1][0], "sentence pairs"),
            Measure("latency_p50_ms", 10.0 + experiment.training.optimizer.lr * 1000, "ms"),
        ]
        job.measures(measures)
        job.tag({"state": "PRUNED" if stopped else "COMPLETE"} if tuning else {})
        job.finish("FINISHED")
        return JobResult(experiment, store.run(job.id), measures, "finished now")


def numbers(outcome: Any) -> dict[str, float]:
    return {measure.metric: measure.value for measure in outcome.measures}
