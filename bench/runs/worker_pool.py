"""Many jobs at once: one queue in the driver, and long-lived workers (worker.py) that are given its tasks.

`schedule` is the only scheduler. What is to be done comes from a `JobQueue` (a suite's list, a sweep's study), and is
done by the `pool` of a `WorkerBackend`: `LocalBackend` starts the workers as processes of this machine, ray_cluster.py
on the nodes of a Ray cluster. A worker that is gone is noticed, its task is handed back as lost, and a new one starts.
"""

from __future__ import annotations

import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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

from bench.experiment.spec import Experiment
from bench.runs.worker import KEY, STOP, LogLine, Reply, Task, TaskResult, WorkerReady
from bench.system import terminal
from bench.system.machine import GPU_SHARE, SIBLINGS, cores, visible_gpus
from bench.system.progress import Status
from bench.training.checkpoints import Interrupted, Signals

ATTEMPTS = 3
"""How often a job is begun, or goes on, before a worker that is lost again and again is taken for its fault."""

PATIENCE = 120.0
"""Seconds that a stopped worker has for saving its job."""

SAID_TO_STOP = "exit code 0"
"""How a worker ends that a signal finds between two jobs, or before a job has taken the signals over."""

GRACE = 2.0
"""Seconds after which a worker that has closed its connection is given up, although it is not known to have ended."""


class Process(Protocol):
    """A worker that has been started somewhere."""

    def ended(self) -> str | None:
        """How it ended, in a word or two; None while it runs."""
        ...

    def kill(self) -> None: ...


class WorkerBackend(Protocol):
    """Where workers run.

    `count` workers at once; `address` is what the driver listens at (None: a Unix socket), which the place must be
    able to reach; `start` starts `python -m bench.runs.worker ADDRESS NUMBER` there with these environment variables.
    """

    count: int
    address: tuple[str, int] | None

    def start(self, command: Sequence[str], environment: dict[str, str]) -> Process: ...

    def check(self, experiments: Sequence[Experiment]) -> None:
        """Raises ValueError if a job cannot be done here."""
        ...

    def threads(self) -> int | None:
        """Threads of a job that asks for no number; None leaves it to the job."""
        ...


class JobQueue(Protocol):
    """What is to be done, and what becomes of it."""

    @property
    def left(self) -> int:
        """Tasks that have not come to their end, those under way among them."""
        ...

    def take(self) -> Task | None:
        """The next task that may begin now; None if there is none, or if the rest has to wait for others."""
        ...

    def told(self, task: Task, status: Status) -> bool:
        """How far a task is, at each validation and several times a second; True after a validation stops it."""
        ...

    def ended(self, task: Task, end: TaskResult) -> str:
        """Called once for each task that was taken; a lost one may be given out again. Says what came of it."""
        ...


class Popen:
    """A worker on this machine, in a session of its own: Ctrl-C reaches the driver, which stops its workers."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=os.environ | environment, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def ended(self) -> str | None:
        code = self.process.poll()
        return None if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class LocalBackend:
    """`count` processes on this machine, which share its cores; its GPUs, if it has any, are dealt out to them."""

    count: int
    address: tuple[str, int] | None = None
    running: dict[int, Popen] = field(default_factory=dict)  # by slot

    def start(self, command: Sequence[str], environment: dict[str, str]) -> Process:
        slot = next(n for n in range(self.count) if n not in self.running or self.running[n].ended() is not None)
        self.running[slot] = Popen(command, environment | {SIBLINGS: str(self.count - 1)} | self.gpus(slot))
        return self.running[slot]

    def gpus_each(self, there: int) -> int:
        return max(1, there // self.count)

    def check(self, experiments: Sequence[Experiment]) -> None:
        there = len(visible_gpus())
        for machine in (experiment.machine for experiment in experiments):
            if machine.device.type == "cuda" and machine.devices > (each := self.gpus_each(there)):
                raise ValueError(
                    f"machine.devices: {machine.devices} GPUs were asked for, and each of {self.count} workers has "
                    f"{each} of {there}; ask for fewer, or for fewer --workers"
                )

    def gpus(self, slot: int) -> dict[str, str]:
        """The environment variables that show the worker of a slot its GPUs, and say what part of one it has.

        Of more workers than GPUs each has one, which others share; of fewer each has its own, one or several, as many
        as the others.
        """
        there = visible_gpus()
        if not there:
            return {}
        each = self.gpus_each(len(there))
        own = (there * self.count)[slot * each : (slot + 1) * each]
        sharing = range(slot % len(there), self.count, len(there))
        return {"CUDA_VISIBLE_DEVICES": ",".join(own), GPU_SHARE: f"{1 / len(sharing):.3g}"}

    def threads(self) -> int:
        return max(1, cores() // self.count)


@dataclass
class WorkerHandle:
    """A worker as the driver sees it. It has no connection while it starts."""

    number: int
    process: Process
    connection: Connection | None = None
    closed: float | None = None  # when the other side has closed it
    task: Task | None = None
    status: Status | None = None

    def give(self, task: Task) -> None:
        assert self.connection
        self.task, self.status = task, None
        with suppress(OSError):  # it is gone, which is noticed when it is read from
            self.connection.send(task)

    def tell(self, message: object) -> None:
        if self.connection:
            with suppress(OSError):
                self.connection.send(message)


class Pool:
    """The workers of a place: started, connected, replaced when they are lost, ended."""

    def __init__(self, place: WorkerBackend) -> None:
        self.place, self.workers, self.number, self.unready = place, list[WorkerHandle](), 0, 0
        self.key = secrets.token_bytes(32)
        self.listener = Listener(place.address)  # without the key: who connects and says nothing must block nobody
        self.arrived: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self.open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while self.open:
            try:
                connection = self.listener.accept()
            except OSError:  # the other side has gone already, or this process has too many files open for now
                time.sleep(0.05)
            else:
                threading.Thread(target=self._know, args=(connection,), daemon=True).start()

    def _know(self, connection: Connection) -> None:
        """Lets in who has the key: the same exchange as in Listener.accept and Client."""
        try:
            deliver_challenge(connection, self.key)
            answer_challenge(connection, self.key)
        except (AuthenticationError, EOFError, OSError):
            connection.close()  # not one of ours
        else:
            self.arrived.put(connection)

    def start(self) -> None:
        self.number += 1
        address = self.listener.address
        where = address if isinstance(address, str) else ":".join(map(str, address))
        command = [sys.executable, "-m", "bench.runs.worker", where, str(self.number)]
        threads = self.place.threads()
        environment = {KEY: self.key.hex()} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        self.workers.append(WorkerHandle(self.number, self.place.start(command, environment)))

    def fill(self, jobs: int) -> None:
        """Starts those that are missing: as many as the place has, but no more than there are jobs."""
        while len(self.workers) < min(self.place.count, jobs):
            self.start()

    def welcome(self) -> None:
        """Connects those that have arrived."""
        with suppress(queue.Empty):
            while True:
                connection = self.arrived.get_nowait()
                with suppress(EOFError, OSError):
                    ready = connection.recv()
                    assert isinstance(ready, WorkerReady)
                    next(worker for worker in self.workers if worker.number == ready.number).connection = connection
                    self.unready = 0

    def idle(self) -> list[WorkerHandle]:
        return [worker for worker in self.workers if worker.connection and not worker.task]

    def busy(self) -> list[WorkerHandle]:
        return [worker for worker in self.workers if worker.task]

    def gone(self) -> list[tuple[WorkerHandle, str]]:
        """Takes out the workers that have ended, and says how.

        Raises:
            ValueError: it was the third in a row that did not even start.
        """
        found = []
        for worker in list(self.workers):
            how = worker.process.ended()
            if how is None and worker.closed and time.monotonic() - worker.closed > GRACE:
                how = "connection lost"
            if how is None or (worker.connection and not worker.closed and worker.connection.poll()):
                continue  # it runs, or what it sent last has not been read
            self.remove(worker)
            found.append((worker, how))
            if worker.connection is None:
                self.unready += 1
                if self.unready >= ATTEMPTS:
                    raise ValueError(f"workers do not start: {how}; their own words stand above")
        return found

    def remove(self, worker: WorkerHandle) -> None:
        worker.process.kill()
        if worker.connection:
            worker.connection.close()
        self.workers.remove(worker)

    def messages(self, seconds: float) -> Iterator[tuple[WorkerHandle, object]]:
        """What the workers have sent, a message of each, waiting so long at most."""
        connected = {w.connection: w for w in self.workers if w.connection and not w.closed}
        if not connected:
            time.sleep(min(seconds, 0.05))
        for connection in wait(list(connected), seconds) if connected else []:
            assert isinstance(connection, Connection)
            worker = connected[connection]
            try:
                yield worker, connection.recv()
            except (EOFError, OSError):
                worker.closed = time.monotonic()

    def close(self) -> None:
        self.open = False
        for worker in list(self.workers):
            self.remove(worker)
        with suppress(OSError):
            Client(self.listener.address).close()  # wakes the thread that accepts
        self.listener.close()


@contextmanager
def pool(place: WorkerBackend, jobs: int = 0) -> Iterator[Pool]:
    """As many workers as `jobs` need start at once: what the driver has still to prepare, it prepares meanwhile."""
    workers = Pool(place)
    try:
        workers.fill(jobs)
        yield workers
    finally:
        workers.close()


def schedule(jobs: JobQueue, workers: Pool, max_seconds: float | None = None) -> bool:
    """Has all done that `jobs` has; False if the time was up before (no task begins after `max_seconds`).

    Raises:
        Interrupted: a signal came; every open job is saved.
        ValueError: the workers do not start.
    """
    begin = time.monotonic()
    with Signals().listening(), terminal.Board(jobs.left) as board:
        try:
            while jobs.left:
                up = max_seconds is not None and time.monotonic() - begin >= max_seconds
                workers.welcome()
                for worker in workers.idle():
                    if not up and (task := jobs.take()):
                        worker.give(task)
                        board.begins(worker.number, task.name)
                busy = workers.busy()
                if up and not busy:
                    return False
                if not up:
                    workers.fill(jobs.left)
                for worker, message in workers.messages(0.2):
                    _heard(worker, message, jobs, board)
                for worker, how in workers.gone():
                    _lost(worker, how, jobs, board)
            return True
        except BaseException as error:
            if workers.busy():
                board.note("stopping: open jobs are being saved; a second signal ends at once")
            _save(jobs if isinstance(error, Interrupted) else None, workers, board)
            raise


def _heard(worker: WorkerHandle, message: object, jobs: JobQueue, board: terminal.Board) -> None:
    task = worker.task
    assert task, message
    if isinstance(message, LogLine):
        board.note(f"{task.name}: {message.line.strip()}")
    elif isinstance(message, Status):
        news = len(message.validations) > (len(worker.status.validations) if worker.status else 0)
        worker.status = message
        board.shows(worker.number, message)
        stop = jobs.told(task, message)
        if news and task.asks:
            worker.tell(Reply(stop))
    else:
        assert isinstance(message, TaskResult)
        worker.task = None
        board.ends(worker.number, jobs.ended(task, message))


def _lost(worker: WorkerHandle, how: str, jobs: JobQueue, board: terminal.Board) -> None:
    if worker.task:
        board.ends(worker.number, jobs.ended(worker.task, TaskResult("lost", reason=f"lost worker ({how})")))


def _save(jobs: JobQueue | None, workers: Pool, board: terminal.Board) -> None:
    """Stops all workers and waits until their jobs are saved; `jobs` are told, unless they are what has failed."""
    deadline = time.monotonic() + PATIENCE
    for worker in workers.workers:
        worker.tell(STOP)
    while workers.busy() and time.monotonic() < deadline:
        for worker, message in workers.messages(0.2):
            if jobs:
                _heard(worker, message, jobs, board)
            elif isinstance(message, TaskResult):
                worker.task = None
        for worker, how in workers.gone():
            if jobs and worker.task and how == SAID_TO_STOP:  # before it listened to signals: nothing is lost
                board.ends(
                    worker.number, jobs.ended(worker.task, TaskResult("stopped", reason="stopped before it began"))
                )
            elif jobs:
                _lost(worker, how, jobs, board)
