"""The driver's side of workers: who may connect, and what becomes of a job that another process has in its hands."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from multiprocessing.connection import Client
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bench.runs.suite
import bench.runs.worker
import bench.runs.worker_pool
from bench.experiment.loading import architectures, resolve
from bench.runs.job import JobLocked, JobResult
from bench.runs.suite import Suite, run_suite
from bench.runs.worker import KEY_VARIABLE, Task, WorkerReady
from bench.runs.worker_pool import WorkerHandle, open_pool
from bench.system.progress import Status
from bench.system.terminal import ProgressBoard
from tests.helpers import tiny_job
from tests.helpers.threaded_workers import FakeJobs, WorkerKilled, Thread, ThreadBackend


class Idle:
    """A process that never ends."""

    def ended(self) -> str | None:
        return None

    def kill(self) -> None:
        pass


def test_strangers_keep_no_worker_out() -> None:
    with open_pool(ThreadBackend(1, ("127.0.0.1", 0))) as workers:
        address = workers.listener.address
        assert isinstance(address, tuple)
        silent = socket.create_connection(address)
        reset = socket.create_connection(address)
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends a reset
        reset.close()
        wrong = socket.create_connection(address)
        wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
        workers.workers.append(WorkerHandle(1, Idle()))
        with Client(address, authkey=workers.key) as connection:
            connection.send(WorkerReady(1, "here", 0))
            until = time.monotonic() + 10
            while not workers.idle() and time.monotonic() < until:
                workers.register_connected()
                time.sleep(0.01)
            assert [worker.number for worker in workers.idle()] == [1]
        silent.close()
        wrong.close()


@pytest.mark.parametrize(("jobs", "started"), [(0, 0), (1, 1), (5, 2)])
def test_workers_start_before_there_is_a_schedule(jobs: int, started: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadBackend, "start", lambda self, command, environment: Idle())
    with open_pool(ThreadBackend(2), jobs) as workers:
        assert len(workers.workers) == started


def test_a_worker_without_a_driver_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.runs.worker", str(tmp_path / "nobody"), "7"]
    ran = subprocess.run(command, env=os.environ | {KEY_VARIABLE: "00"}, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"worker 7: no driver at {tmp_path}/nobody: FileNotFoundError")
    assert ran.stderr.count("\n") == 1


class Unable(Thread):
    """A worker that ends before it says anything."""

    def work(self, address: str, number: int, key: str) -> None:
        self.how = "exit code 1"


class Nowhere(ThreadBackend):
    def start(self, command: Any, environment: Any) -> Thread:
        return Unable(command, environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_job.write_corpus(tmp_path)
    return tmp_path


def settings(folder: Path) -> list[str]:
    return [*tiny_job.corpus_flags(folder), "--text.vocabulary_size", "90", "--tracking.folder", str(folder / "runs")]


def test_workers_that_do_not_start_are_one_line(folder: Path) -> None:
    with pytest.raises(ValueError, match="workers do not start: exit code 1"):
        run_suite(folder / "table.yaml", Suite(rows=["mlp"]), settings(folder), False, Nowhere(1))


def test_a_job_in_other_hands_is_asked_for_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, busy = FakeJobs(lambda experiment: [1.0]), [True, True]

    def run(*arguments: Any, **named: Any) -> JobResult:
        if busy:
            busy.pop()
            raise JobLocked("another process is at this job")
        return jobs.run(*arguments, **named)

    monkeypatch.setattr(bench.runs.worker, "run", run)
    monkeypatch.setattr(bench.runs.suite, "BUSY", 0.05)
    outcomes, whole = run_suite(folder / "table.yaml", Suite(rows=["mlp"]), settings(folder), False, ThreadBackend(1))
    assert whole
    assert [outcome.state for outcome in outcomes] == ["finished now"]
    assert busy == []


def test_a_job_that_is_named_twice_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(lambda experiment: [1.0])
    monkeypatch.setattr(bench.runs.worker, "run", jobs.run)
    suite = Suite(rows=["gnmt-ensemble"], seeds=[1, 1])
    outcomes, whole = run_suite(folder / "table.yaml", suite, settings(folder), False, ThreadBackend(1))
    assert whole
    assert [outcome.experiment.row for outcome in outcomes] == ["gnmt", "gnmt", "gnmt-ensemble"]


@pytest.mark.parametrize("told", [True, False])
def test_a_job_that_is_lost_while_it_begins_again(told: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new run is wanted: if it has begun, it goes on; else the finished one must not be taken for it."""
    jobs, again = FakeJobs(lambda experiment: [1.0]), list[bool]()

    def run(*arguments: Any, **named: Any) -> JobResult:
        again.append(named["again"])
        if len(again) == 1:
            if told:
                named["watch"](Status(0.5, 1, 1, 1, 1.0, None, None))
            raise WorkerKilled
        return jobs.run(*arguments, **named)

    def suite(anew: bool) -> None:
        run_suite(folder / "table.yaml", Suite(rows=["mlp"]), settings(folder), anew, ThreadBackend(1))

    monkeypatch.setattr(bench.runs.worker, "run", jobs.run)
    suite(False)
    monkeypatch.setattr(bench.runs.worker, "run", run)
    suite(True)
    assert again == [True, not told]


class Ended(Idle):
    """A process that has ended."""

    def __init__(self, how: str) -> None:
        self.how = how

    def ended(self) -> str | None:
        return self.how


@pytest.mark.parametrize(("how", "state"), [("exit code 0", "stopped"), ("signal 9", "lost")])
def test_a_worker_that_stops_before_it_listens_has_lost_nothing(how: str, state: str) -> None:
    job, ends = resolve(architectures()["mlp"]), list[str]()
    jobs: Any = SimpleNamespace(ended=lambda task, end: ends.append(end.state) or end.reason)
    with open_pool(ThreadBackend(1)) as workers, ProgressBoard(1) as board:
        board.job_started(1, job.name)
        workers.workers.append(WorkerHandle(1, Ended(how), task=Task(job, "table")))
        bench.runs.worker_pool._save(jobs, workers, board)
    assert ends == [state]
