"""A worker: a process that does one job after the other for a driver (workers.py), to which it is connected.

    python -m bench.runs.worker ADDRESS NUMBER

It may run anywhere from where ADDRESS can be reached: HOST:PORT, or the path of a Unix socket. The shared secret is in
the environment variable BENCH_KEY. It sends `WorkerReady`, then for each `Task` it is given any number of `LogLine` and
`Status`, and one `TaskResult`; after a validation it waits for the driver's `Reply`. STOP saves the open job
and ends the process; so does a lost connection.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import platform
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from typing import Literal

import torch

from bench.experiment.spec import Experiment
from bench.runs.job import Busy, JobResult, TrialInfo, reason_of, run
from bench.system.progress import Status
from bench.tracking.store import Store
from bench.training.checkpoints import Interrupted

KEY = "BENCH_KEY"
STOP = "stop"
TOLD_EVERY = 0.2
"""Seconds between two reports of how far a job is."""


@dataclass(frozen=True)
class Task:
    """A job to be done: the arguments of `job.run`. `asks` waits for the driver's word after each validation.

    `mark` is the driver's own, to know the task by.
    """

    experiment: Experiment
    suite: str
    parent: str | None = None
    again: bool = False
    asks: bool = False
    tuning: TrialInfo | None = None
    mark: int = 0

    @property
    def name(self) -> str:
        return self.tuning.name(self.experiment) if self.tuning else self.experiment.name


@dataclass(frozen=True)
class Reply:
    """The driver's answer to a validation."""

    stop: bool


@dataclass(frozen=True)
class WorkerReady:
    """The first message of a worker: its number and where it runs."""

    number: int
    host: str
    process: int


@dataclass(frozen=True)
class LogLine:
    """A line for the person."""

    line: str


@dataclass(frozen=True)
class TaskResult:
    """How a task ended: `stopped` is saved and not done, `busy` is in another process's hands; `lost` is said by the
    driver, of a worker that is gone.
    """

    state: Literal["done", "failed", "stopped", "busy", "lost"]
    outcome: JobResult | None = None
    reason: str = ""


class LineForwarder(io.TextIOBase):
    """A standard output that sends whole lines elsewhere."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self.send, self.begun = send, ""

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        for line in lines:
            self.send(line)
        return len(text)


class WorkerClient:
    """The worker's end of the connection. A thread reads it, so that STOP comes through while a model trains.

    `stop` is called by that thread: it must bring the open job, if there is one, to raise Interrupted.
    """

    def __init__(self, connection: Connection, stop: Callable[[], None]) -> None:
        self.connection, self.stop = connection, stop
        self.tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.words: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.stores: dict[str, Store] = {}
        self.told_at = 0.0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                message = STOP
            if message == STOP:
                self.words.put(False)
                self.tasks.put(None)
                self.stop()
                return
            if isinstance(message, Reply):
                self.words.put(message.stop)
            else:
                self.tasks.put(message)

    def send(self, message: object) -> None:
        """To a driver that is gone nothing is sent; the thread that reads has noticed, and ends this process."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def watch(self, task: Task) -> Callable[[Status], bool]:
        """What `job.run` tells how far it is; True asks it to stop."""
        seen, self.told_at = 0, 0.0

        def told(status: Status) -> bool:
            nonlocal seen
            news = len(status.validations) > seen
            seen = len(status.validations)
            now = time.monotonic()
            if news or now - self.told_at >= TOLD_EVERY:
                self.told_at = now
                self.send(status)
            return self.words.get() if news and task.asks else False

        return told

    def do(self, task: Task) -> TaskResult:
        try:
            tracking = task.experiment.tracking
            if repr(tracking) not in self.stores:
                self.stores[repr(tracking)] = Store(tracking, known=True)  # the driver has asked it for this task
            store = self.stores[repr(tracking)]
            outcome = run(
                task.experiment,
                store,
                task.suite,
                parent=task.parent,
                again=task.again,
                watch=self.watch(task),
                tuning=task.tuning,
            )
            return TaskResult("done", outcome)
        except Interrupted as interruption:
            self.tasks.put(None)
            return TaskResult("stopped", reason=str(interruption))
        except Busy as busy:
            return TaskResult("busy", reason=str(busy))
        except Exception as error:  # one job's failure must not cost the others
            return TaskResult("failed", reason=reason_of(error))
        finally:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # of a job that ran out of memory

    def work(self) -> None:
        while (task := self.tasks.get()) is not None:
            self.send(self.do(task))


def main(address: str, number: str) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # between jobs; a job takes the signals over
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    host, colon, port = address.rpartition(":")
    place = (host, int(port)) if colon and port.isdigit() else address
    try:
        connection = Client(place, authkey=bytes.fromhex(os.environ.pop(KEY)))
    except (OSError, EOFError) as error:  # it has ended while this process started, or cannot be reached from here
        print(f"worker {number}: no driver at {address}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    worker = WorkerClient(connection, lambda: os.kill(os.getpid(), signal.SIGTERM))
    sys.stdout = LineForwarder(lambda line: worker.send(LogLine(line)))
    worker.send(WorkerReady(int(number), platform.node(), os.getpid()))
    worker.work()
    return 0


if __name__ == "__main__":
    from bench.runs.worker import main  # so that what is sent are the classes that the driver knows

    sys.exit(main(*sys.argv[1:]))
