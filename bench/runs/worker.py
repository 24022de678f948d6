"""A worker: a process that executes one job after the other for a driver (worker_pool.py), to which it is connected.

    python -m bench.runs.worker ADDRESS NUMBER

A worker runs on any machine that can reach ADDRESS: HOST:PORT, or the path of a Unix socket. The environment variable
BENCH_KEY holds the shared secret. The worker sends `WorkerReady`, then for each `Task` that it receives any number of
`LogLine` and `Status` messages and one `TaskResult`; after a validation it waits for the driver's `Reply`. The message
STOP saves the job in progress and ends the process; so does a lost connection.
"""

from __future__ import annotations

import contextlib
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

from bench.experiment.spec import Experiment
from bench.runs.job import JobLocked, JobResult, TrialInfo, failure_reason, run
from bench.system import streams
from bench.system.home import provide_home
from bench.system.machine import release_memory
from bench.system.progress import Status
from bench.tracking.store import Store
from bench.training.checkpoints import Interrupted, Signals

KEY_VARIABLE = "BENCH_KEY"
STOP = "stop"
STATUS_INTERVAL = 0.2
"""Seconds between two status messages of a job."""


@dataclass(frozen=True)
class Task:
    """A job to execute: the arguments of `job.run`.

    Attributes:
        awaits_reply: Whether the job waits for the driver's `Reply` after each validation.
        id: A number by which the driver recognizes the task; the worker does not use it.
    """

    experiment: Experiment
    suite: str
    parent: str | None = None
    again: bool = False
    awaits_reply: bool = False
    trial: TrialInfo | None = None
    id: int = 0

    @property
    def name(self) -> str:
        return self.trial.run_name(self.experiment) if self.trial else self.experiment.name


@dataclass(frozen=True)
class Reply:
    """The driver's answer to a validation: whether to stop the job."""

    stop: bool


@dataclass(frozen=True)
class WorkerReady:
    """The first message of a worker: its number, host and process id."""

    number: int
    host: str
    pid: int


@dataclass(frozen=True)
class LogLine:
    """A line of output for the user."""

    line: str


@dataclass(frozen=True)
class TaskResult:
    """How a task ended.

    Attributes:
        state: done; failed; stopped (the job is saved but not finished); locked (another process executes the job);
            or lost (the worker is lost; only the driver creates this one).
        job: The result of the job, if the state is done.
        reason: Why the task is not done, in words.
    """

    state: Literal["done", "failed", "stopped", "locked", "lost"]
    job: JobResult | None = None
    reason: str = ""


class LineForwarder(io.TextIOBase):
    """A standard output that passes each complete line to a function."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self.send, self.partial_line = send, ""

    def write(self, text: str) -> int:
        *lines, self.partial_line = (self.partial_line + text).split("\n")
        for line in lines:
            self.send(line)
        return len(text)


class WorkerClient:
    """The worker's end of the connection. A thread reads from it, so that STOP arrives while a model trains.

    Args:
        stop: Called by that thread at STOP. It must make the job in progress, if there is one, raise Interrupted.
    """

    def __init__(self, connection: Connection, stop: Callable[[], None]) -> None:
        self.connection, self.stop = connection, stop
        self.tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.replies: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.stores: dict[str, Store] = {}
        threading.Thread(target=self._read_messages, daemon=True).start()

    def _read_messages(self) -> None:
        while True:
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                message = STOP
            if message == STOP:
                self.replies.put(False)
                self.tasks.put(None)
                self.stop()
                return
            if isinstance(message, Reply):
                self.replies.put(message.stop)
            else:
                self.tasks.put(message)

    def send(self, message: object) -> None:
        """Sends a message; does nothing if the driver is gone, because the reading thread then ends this process."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def status_callback(self, task: Task) -> Callable[[Status], bool]:
        """The callback for `job.run`: sends the progress of a task; returns True to stop it."""
        validations, sent_at = 0, 0.0

        def on_status(status: Status) -> bool:
            nonlocal validations, sent_at
            new_validation = len(status.validations) > validations
            validations = len(status.validations)
            now = time.monotonic()
            if new_validation or now - sent_at >= STATUS_INTERVAL:
                sent_at = now
                self.send(status)
            return self.replies.get() if new_validation and task.awaits_reply else False

        return on_status

    def execute(self, task: Task) -> TaskResult:
        try:
            tracking = task.experiment.tracking
            if repr(tracking) not in self.stores:
                self.stores[repr(tracking)] = Store(tracking, wait=True)  # the driver has reached it for this task
            store = self.stores[repr(tracking)]
            result = run(
                task.experiment,
                store,
                task.suite,
                parent=task.parent,
                again=task.again,
                on_status=self.status_callback(task),
                trial=task.trial,
            )
            return TaskResult("done", result)
        except Interrupted:
            self.tasks.put(None)
            return TaskResult("stopped", reason="the run is saved")  # the driver names the signal that it got
        except JobLocked as error:
            return TaskResult("locked", reason=str(error))
        except Exception as error:  # the failure of one job must not end the others
            return TaskResult("failed", reason=failure_reason(error))
        finally:
            release_memory()  # a job that ran out of memory must leave none of it to the next one

    def execute_tasks(self) -> None:
        """Executes tasks until STOP."""
        while (task := self.tasks.get()) is not None:
            self.send(self.execute(task))


def main(address: str, number: str) -> int:
    streams.prepare()
    if line := provide_home():  # on another machine; a process of this one has the variables of its driver
        print(f"worker {number}: {line}", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # between jobs; a job installs handlers of its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Signals.patient = True
    host, colon, port = address.rpartition(":")
    driver = (host, int(port)) if colon and port.isdigit() else address
    try:
        connection = Client(driver, authkey=bytes.fromhex(os.environ.pop(KEY_VARIABLE)))
    except (OSError, EOFError) as error:  # the driver has ended while this process started, or cannot be reached
        print(f"worker {number}: no driver at {address}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    worker = WorkerClient(connection, lambda: os.kill(os.getpid(), signal.SIGTERM))
    sys.stdout = LineForwarder(lambda line: worker.send(LogLine(line)))
    worker.send(WorkerReady(int(number), platform.node(), os.getpid()))
    worker.execute_tasks()
    return 0


if __name__ == "__main__":
    # Imported, so that the sent objects have the classes of bench.runs.worker, which the driver knows, not of __main__.
    from bench.runs.worker import main

    sys.exit(main(*sys.argv[1:]))
