"""Workers as threads of the test process, and jobs that end as a test wants: a schedule takes seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client

from bench.experiment.spec import Experiment
from bench.measures.measure import Measure
from bench.runs.job import JobResult, TrialInfo
from bench.runs.worker import KEY_VARIABLE, WorkerClient, WorkerReady
from bench.system.progress import Status, StatusCallback
from bench.tracking.store import Store


class WorkerKilled(BaseException):
    """A job raises it to end its worker, as `kill -9` does."""


class ThreadProcess:
    """A `worker_backend.Process` that is a thread."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        *_, address, number = command
        self.reason: str | None = None
        arguments = (address, int(number), environment[KEY_VARIABLE])
        self.thread = threading.Thread(target=self.work, args=arguments, daemon=True)
        self.thread.start()

    def work(self, address: str, number: int, key: str) -> None:
        connection = Client(address, authkey=bytes.fromhex(key))
        worker = WorkerClient(connection, lambda: None)
        worker.send(WorkerReady(number, "here", 0))
        try:
            worker.execute_tasks()
            self.reason = "exit code 0"
        except WorkerKilled:
            self.reason = "signal 9"
        finally:
            connection.close()

    def exit_reason(self) -> str | None:
        return self.reason

    def kill(self) -> None:
        self.reason = self.reason or "killed"


@dataclass
class ThreadBackend:
    """A `worker_backend.WorkerBackend` that starts threads."""

    count: int = 2
    address: tuple[str, int] | None = None

    def start(self, command: Sequence[str], environment: dict[str, str]) -> ThreadProcess:
        return ThreadProcess(command, environment)

    def check(self, experiments: Sequence[Experiment]) -> None:
        pass

    def threads_per_job(self) -> int:
        return 1


@dataclass
class FakeJobs:
    """Replaces `job.run`: creates a run in the store, reports validations, and ends.

    Attributes:
        curve: Returns the validations of a job. It may raise an exception, with which the job fails, or WorkerKilled.
        pairs: Sentence pairs between two validations.
        loss: Returns the validation loss of a job; None if it was not measured.
        metric: The validation score, as a metric.
        started: The experiment of every attempt.
    """

    curve: Callable[[Experiment], Sequence[float]]
    pairs: int = 100
    loss: Callable[[Experiment], float] | None = None
    metric: str = "validation_bleu"

    def __post_init__(self) -> None:
        self.started: list[Experiment] = []

    def run(
        self,
        experiment: Experiment,
        store: Store,
        suite: str,
        *,
        parent: str | None,
        again: bool,
        on_status: StatusCallback,
        trial: TrialInfo | None,
    ) -> JobResult:
        self.started.append(experiment)
        earlier = store.find(suite, experiment.job_hash)
        if earlier and not again:
            writer = store.resume(earlier[0].id)
            writer.tag(trial.tags if trial else {})
        else:
            tags = {"row": experiment.row, "job_hash": experiment.job_hash} | (trial.tags if trial else {})
            writer = store.begin(suite, trial.run_name(experiment) if trial else experiment.name, tags, parent)
        validations: list[tuple[int, float]] = []
        values = self.curve(experiment)
        stopped = False
        for number, bleu in enumerate(values, 1):
            validations.append((number * self.pairs, bleu))
            fraction = number / len(values)
            best = max(score for _, score in validations)
            status = Status(fraction, number, validations[-1][0], 0, 1.0, None, best, tuple(validations))
            stopped = bool(on_status(status))
            if stopped:
                break
        measures = [
            Measure(self.metric, max(score for _, score in validations), "percent"),
            *([Measure("validation_loss", self.loss(experiment), "nats/token")] if self.loss else []),
            Measure("pairs", validations[-1][0], "sentence pairs"),
            Measure("latency_p50_ms", 10.0 + experiment.training.optimizer.lr * 1000, "ms"),
        ]
        writer.measures(measures)
        writer.tag({"state": "PRUNED" if stopped else "COMPLETE"} if trial else {})
        writer.finish("FINISHED")
        return JobResult(experiment, store.run(writer.id), measures, "finished now")
