"""Many jobs at once: the driver holds one queue and gives its tasks to long-lived workers (worker.py).

`schedule` is the only scheduler. The tasks come from a `JobQueue` (the jobs of a suite or the studies of a sweep). They
are executed by the `WorkerPool` of a `WorkerBackend` (worker_backend.py), which starts the workers. If a worker is
lost, its task is returned to the queue as lost and a new worker starts.
"""

from __future__ import annotations

import queue
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import (
    Client,
    Connection,
    Listener,
    answer_challenge,
    deliver_challenge,
    wait,
)
from typing import Protocol

from bench.runs.worker import KEY_VARIABLE, STOP, LogLine, Reply, Task, TaskResult, WorkerReady
from bench.runs.worker_backend import Process, WorkerBackend
from bench.system import terminal
from bench.system.progress import Status
from bench.training.checkpoints import Interrupted, Signals

MAX_ATTEMPTS = 3
"""Attempts at a job whose worker is lost each time. After that many, the job counts as the cause and fails. Also the
number of workers in a row that may end before they connect."""

SAVE_TIMEOUT = 120.0
"""Seconds that a stopped worker has to save its job."""

CLEAN_EXIT = "exit code 0"
"""How a worker ends if it gets a signal between two jobs, or before a job has installed its signal handlers."""

DISCONNECT_GRACE = 2.0
"""Seconds after which a worker with a closed connection counts as lost, although its process has not ended."""


class JobQueue(Protocol):
    """The tasks that `schedule` distributes, and what it reports about them."""

    @property
    def equal_budgets(self) -> bool:
        """Whether all tasks have the same budget, so that those that ended tell how long the others will take."""
        ...

    @property
    def remaining(self) -> int:
        """Number of unfinished tasks, including those in progress."""
        ...

    def next_task(self) -> Task | None:
        """The next task that may start now; None if there is none, or if the rest must wait for tasks in progress."""
        ...

    def on_status(self, task: Task, status: Status) -> bool:
        """Gets the progress of a task, at each validation and several times a second.

        Returns:
            Whether to stop the task. The answer counts only after a validation.
        """
        ...

    def on_result(self, task: Task, result: TaskResult) -> str:
        """Gets the result of a task, once for each task that was taken, and returns a description of it for the user.

        If the worker was lost, the queue may hand out the same job again.
        """
        ...


@dataclass
class WorkerHandle:
    """The driver's view of a worker. The connection is None until the started worker has connected."""

    number: int
    process: Process
    connection: Connection | None = None
    closed_at: float | None = None  # when the worker closed the connection, time.monotonic()
    task: Task | None = None
    status: Status | None = None

    def assign(self, task: Task) -> None:
        assert self.connection
        self.task, self.status = task, None
        self.send(task)

    def send(self, message: object) -> None:
        """Sends a message. A lost connection is ignored here, because the next read from the worker detects it."""
        if self.connection:
            with suppress(OSError):
                self.connection.send(message)


class WorkerPool:
    """The workers of a backend: starts and connects them, replaces lost ones, and ends them."""

    def __init__(self, backend: WorkerBackend) -> None:
        self.backend, self.workers = backend, list[WorkerHandle]()
        self.last_number = 0
        self.failed_starts = 0  # workers in a row that ended before they connected
        self.key = secrets.token_bytes(32)
        # The listener has no key: with one, accept() would block on a stranger who connects and sends nothing.
        self.listener = Listener(backend.address)
        self.authenticated: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self.accepting = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while self.accepting:
            try:
                connection = self.listener.accept()
            except OSError:  # the other side has disconnected already, or this process has too many open files
                time.sleep(0.05)
            else:
                threading.Thread(target=self._authenticate, args=(connection,), daemon=True).start()

    def _authenticate(self, connection: Connection) -> None:
        """Accepts a connection whose other side has the key, by the same exchange as Listener.accept and Client."""
        try:
            deliver_challenge(connection, self.key)
            answer_challenge(connection, self.key)
        except (AuthenticationError, EOFError, OSError):
            connection.close()
        else:
            self.authenticated.put(connection)

    def start_worker(self) -> None:
        self.last_number += 1
        address = self.listener.address
        address = address if isinstance(address, str) else ":".join(map(str, address))
        command = [sys.executable, "-m", "bench.runs.worker", address, str(self.last_number)]
        threads = self.backend.threads_per_job()
        environment = {KEY_VARIABLE: self.key.hex()} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        self.workers.append(WorkerHandle(self.last_number, self.backend.start(command, environment)))

    def start_missing(self, jobs: int) -> None:
        """Starts workers up to the backend's count, but not more than there are jobs."""
        while len(self.workers) < min(self.backend.count, jobs):
            self.start_worker()

    def register_connected(self) -> None:
        """Assigns the authenticated connections to their workers."""
        with suppress(queue.Empty):
            while True:
                connection = self.authenticated.get_nowait()
                with suppress(EOFError, OSError):
                    ready = connection.recv()
                    assert isinstance(ready, WorkerReady)
                    worker = next((worker for worker in self.workers if worker.number == ready.number), None)
                    if worker is None:  # it was given up while it connected
                        connection.close()
                        continue
                    worker.connection = connection
                    self.failed_starts = 0

    def idle_workers(self) -> list[WorkerHandle]:
        return [worker for worker in self.workers if worker.connection and not worker.closed_at and not worker.task]

    def busy_workers(self) -> list[WorkerHandle]:
        return [worker for worker in self.workers if worker.task]

    def remove_exited(self) -> list[tuple[WorkerHandle, str]]:
        """Removes the workers that have ended; returns each with the reason.

        Raises:
            ValueError: MAX_ATTEMPTS workers in a row ended before they connected.
        """
        removed = []
        for worker in list(self.workers):
            reason = worker.process.exit_reason()
            if reason is None and worker.closed_at and time.monotonic() - worker.closed_at > DISCONNECT_GRACE:
                reason = "connection lost"
            if reason is None or (worker.connection and not worker.closed_at and worker.connection.poll()):
                continue  # the worker runs, or its last messages have not been read
            self.remove(worker)
            removed.append((worker, reason))
            if worker.connection is None:
                self.failed_starts += 1
                if self.failed_starts >= MAX_ATTEMPTS:
                    raise ValueError(
                        f"workers do not start: {reason}; expected a worker to connect to this command; their own "
                        "messages above say why"
                    )
        return removed

    def remove(self, worker: WorkerHandle) -> None:
        worker.process.kill()
        if worker.connection:
            worker.connection.close()
        self.workers.remove(worker)

    def receive(self, seconds: float) -> Iterator[tuple[WorkerHandle, object]]:
        """Yields at most one message of each worker; waits at most `seconds` for the first."""
        connected = {w.connection: w for w in self.workers if w.connection and not w.closed_at}
        if not connected:
            time.sleep(min(seconds, 0.05))
        for connection in wait(list(connected), seconds) if connected else []:
            assert isinstance(connection, Connection)
            worker = connected[connection]
            try:
                yield worker, connection.recv()
            except (EOFError, OSError):
                worker.closed_at = time.monotonic()

    def close(self) -> None:
        self.accepting = False
        for worker in list(self.workers):
            self.remove(worker)
        with suppress(OSError):
            Client(self.listener.address).close()  # wakes the thread that waits in accept(), so that it ends
        self.listener.close()


@contextmanager
def open_pool(backend: WorkerBackend, jobs: int = 0) -> Iterator[WorkerPool]:
    """A pool of workers, ended with the block.

    Args:
        jobs: Starts as many workers as this number of jobs needs at once, so that they start while the driver prepares.
    """
    pool = WorkerPool(backend)
    try:
        pool.start_missing(jobs)
        yield pool
    finally:
        pool.close()


def schedule(jobs: JobQueue, pool: WorkerPool, max_seconds: float | None = None) -> bool:
    """Executes all tasks of a queue by the workers of a pool. No task starts after `max_seconds`.

    Returns:
        True if all tasks have finished, False if the time was up before.

    Raises:
        Interrupted: a signal was received; every job in progress is saved.
        ValueError: the workers do not start.
    """
    begin = time.monotonic()
    with Signals().installed(), terminal.ProgressBoard(jobs.remaining, jobs.equal_budgets) as board:
        try:
            while jobs.remaining:
                time_is_up = max_seconds is not None and time.monotonic() - begin >= max_seconds
                pool.register_connected()
                for worker in pool.idle_workers():
                    if not time_is_up and (task := jobs.next_task()):
                        worker.assign(task)
                        board.job_started(worker.number, task.name)
                if time_is_up and not pool.busy_workers():
                    return False
                if not time_is_up:
                    pool.start_missing(jobs.remaining)
                for worker, message in pool.receive(0.2):
                    _handle_message(worker, message, jobs, board)
                for worker, reason in pool.remove_exited():
                    _handle_lost_worker(worker, reason, jobs, board)
            return True
        except BaseException as error:
            if pool.busy_workers():
                board.message("stopping: the jobs in progress are being saved; a second signal ends only this command")
            # If the queue itself has failed, it gets no more results.
            _stop_workers(jobs if isinstance(error, Interrupted) else None, pool, board)
            raise


def _handle_message(worker: WorkerHandle, message: object, jobs: JobQueue, board: terminal.ProgressBoard) -> None:
    task = worker.task
    assert task, message
    if isinstance(message, LogLine):
        board.message(f"{task.name}: {message.line.strip()}")
    elif isinstance(message, Status):
        new_validation = len(message.validations) > (len(worker.status.validations) if worker.status else 0)
        worker.status = message
        board.job_progress(worker.number, message)
        stop = jobs.on_status(task, message)
        if new_validation and task.awaits_reply:
            worker.send(Reply(stop))
    else:
        assert isinstance(message, TaskResult)
        worker.task = None
        board.job_ended(worker.number, jobs.on_result(task, message))


def _handle_lost_worker(worker: WorkerHandle, reason: str, jobs: JobQueue, board: terminal.ProgressBoard) -> None:
    if worker.task:
        result = TaskResult("lost", reason=f"lost worker ({reason})")
        board.job_ended(worker.number, jobs.on_result(worker.task, result))


def _stop_workers(jobs: JobQueue | None, pool: WorkerPool, board: terminal.ProgressBoard) -> None:
    """Stops all workers and waits until they have saved their jobs; passes the results to `jobs` if given."""
    deadline = time.monotonic() + SAVE_TIMEOUT
    for worker in pool.workers:
        worker.send(STOP)
    while pool.busy_workers() and time.monotonic() < deadline:
        for worker, message in pool.receive(0.2):
            if jobs:
                _handle_message(worker, message, jobs, board)
            elif isinstance(message, TaskResult):
                worker.task = None
        for worker, reason in pool.remove_exited():
            if jobs and worker.task and reason == CLEAN_EXIT:  # it ended before its job started: nothing is lost
                result = TaskResult("stopped", reason="stopped before it began")
                board.job_ended(worker.number, jobs.on_result(worker.task, result))
            elif jobs:
                _handle_lost_worker(worker, reason, jobs, board)
    for worker in pool.busy_workers():
        assert worker.task
        board.message(
            f"{worker.task.name}: not saved within {SAVE_TIMEOUT:.0f} s; it continues from its last checkpoint"
        )
