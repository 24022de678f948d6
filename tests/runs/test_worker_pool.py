"""The driver's side of workers: connections, lost and stopped workers, and jobs that another process executes."""

from __future__ import annotations

import socket
import struct
import time
from multiprocessing.connection import Client
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bench.runs.run_suite
import bench.runs.suite_queue
import bench.runs.worker
import bench.runs.worker_pool
from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.runs.job import JobLocked, JobResult
from bench.runs.run_suite import run_suite
from bench.runs.suite import Suite
from bench.runs.worker import Task, WorkerReady
from bench.runs.worker_pool import WorkerHandle, open_pool
from bench.system.progress import Status
from bench.system.terminal import ProgressBoard
from bench.tracking.store import Store
from tests.helpers import tiny_job
from tests.helpers.threaded_workers import FakeJobs, ThreadBackend, ThreadProcess, WorkerKilled


class RunningProcess:
    """A process that never ends."""

    def exit_reason(self) -> str | None:
        return None

    def kill(self) -> None:
        pass


def test_connections_of_strangers_do_not_block_a_worker() -> None:
    with open_pool(ThreadBackend(1, ("127.0.0.1", 0))) as pool:
        address = pool.listener.address
        assert isinstance(address, tuple)
        silent = socket.create_connection(address)
        reset = socket.create_connection(address)
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends a reset
        reset.close()
        http = socket.create_connection(address)
        http.sendall(b"GET / HTTP/1.1\r\n\r\n")
        pool.workers.append(WorkerHandle(1, RunningProcess()))
        with Client(address, authkey=pool.key) as connection:
            connection.send(WorkerReady(1, "here", 0))
            until = time.monotonic() + 10
            while not pool.idle_workers() and time.monotonic() < until:
                pool.register_connected()
                time.sleep(0.01)
            assert [worker.number for worker in pool.idle_workers()] == [1]
            pool.workers[0].closed_at = time.monotonic()
            assert pool.idle_workers() == [], "its task would be lost"
        silent.close()
        http.close()


def test_a_worker_that_connects_after_it_was_given_up_is_turned_away() -> None:
    with open_pool(ThreadBackend(1, ("127.0.0.1", 0))) as pool, Client(pool.listener.address, authkey=pool.key) as late:
        late.send(WorkerReady(7, "here", 0))
        until = time.monotonic() + 10
        while not late.poll(0.01) and time.monotonic() < until:
            pool.register_connected()
        with pytest.raises((EOFError, OSError)):
            late.recv()
        assert pool.idle_workers() == []


@pytest.mark.parametrize(("jobs", "started"), [(0, 0), (1, 1), (5, 2)])
def test_workers_start_before_jobs_are_scheduled(jobs: int, started: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadBackend, "start", lambda self, command, environment: RunningProcess())
    with open_pool(ThreadBackend(2), jobs) as pool:
        assert len(pool.workers) == started


class EndsAtOnce(ThreadProcess):
    """A worker that ends before it connects."""

    def work(self, address: str, number: int, key: str) -> None:
        self.reason = "exit code 1"


class FailingBackend(ThreadBackend):
    def start(self, command: Any, environment: Any) -> ThreadProcess:
        return EndsAtOnce(command, environment)


def settings(folder: Path) -> list[str]:
    return [*tiny_job.corpus_flags(folder), "--text.vocabulary_size", "90", "--tracking.folder", str(folder / "runs")]


def test_workers_that_do_not_start_give_one_line(folder: Path) -> None:
    with pytest.raises(ValueError, match="workers do not start: exit code 1"):
        run_suite(folder / "table.yaml", Suite(rows=["mlp"]), settings(folder), False, FailingBackend(1))


def test_a_job_that_another_process_executes_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, locked = FakeJobs(lambda experiment: [1.0]), [True, True]

    def run(*arguments: Any, **named: Any) -> JobResult:
        if locked:
            locked.pop()
            raise JobLocked("another process executes this job")
        return jobs.run(*arguments, **named)

    monkeypatch.setattr(bench.runs.worker, "run", run)
    monkeypatch.setattr(bench.runs.suite_queue, "LOCK_RETRY_SECONDS", 0.05)
    results, completed = run_suite(
        folder / "table.yaml", Suite(rows=["mlp"]), settings(folder), False, ThreadBackend(1)
    )
    assert completed
    assert [result.state for result in results] == ["finished now"]
    assert locked == []


def test_without_workers_a_locked_job_waits_while_others_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, locked = FakeJobs(lambda experiment: [1.0]), [True, True]

    def run(experiment: Experiment, store: Store, suite: str, **named: Any) -> JobResult:
        if locked and experiment.row == "mlp":
            locked.pop()
            raise JobLocked("another process executes this job")
        return jobs.run(experiment, store, suite, **named, on_status=lambda status: False, trial=None)

    monkeypatch.setattr(bench.runs.run_suite, "run", run)
    monkeypatch.setattr(bench.runs.run_suite, "LOCK_RETRY_SECONDS", 0.05)
    suite = Suite(rows=["mlp", "perceptron"])
    results, completed = run_suite(folder / "table.yaml", suite, settings(folder), False)
    assert completed
    assert [(result.experiment.row, result.state) for result in results] == [
        ("perceptron", "finished now"),
        ("mlp", "finished now"),
    ]
    assert capsys.readouterr().out.count("another process executes this job; next try in") == 1


def test_a_job_that_is_named_twice_runs_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(lambda experiment: [1.0])
    monkeypatch.setattr(bench.runs.worker, "run", jobs.run)
    suite = Suite(rows=["gnmt-ensemble"], seeds=[1, 1])
    results, completed = run_suite(folder / "table.yaml", suite, settings(folder), False, ThreadBackend(1))
    assert completed
    assert [result.experiment.row for result in results] == ["gnmt", "gnmt", "gnmt-ensemble"]


@pytest.mark.parametrize("has_run", [True, False])
def test_a_worker_is_lost_during_again(has_run: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`again` asks for a new run. If it exists already, it continues; if not, the finished run must not replace it."""
    jobs, again = FakeJobs(lambda experiment: [1.0]), list[bool]()

    def run(*arguments: Any, **named: Any) -> JobResult:
        again.append(named["again"])
        if len(again) == 1:
            if has_run:
                named["on_status"](Status(0.5, 1, 1, 1, 1.0, None, None))
            raise WorkerKilled
        return jobs.run(*arguments, **named)

    def suite(new_runs: bool) -> None:
        run_suite(folder / "table.yaml", Suite(rows=["mlp"]), settings(folder), new_runs, ThreadBackend(1))

    monkeypatch.setattr(bench.runs.worker, "run", jobs.run)
    suite(False)
    monkeypatch.setattr(bench.runs.worker, "run", run)
    suite(True)
    assert again == [True, not has_run]


def test_a_job_that_loses_every_worker_has_a_failed_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(experiment: Experiment, store: Store, suite: str, **named: Any) -> JobResult:
        if not store.find(suite, experiment.job_hash):
            store.begin(suite, experiment.name, {"row": experiment.row, "job_hash": experiment.job_hash}, None)
        raise WorkerKilled

    monkeypatch.setattr(bench.runs.worker, "run", run)
    (result,), _ = run_suite(folder / "table.yaml", Suite(rows=["mlp"]), settings(folder), False, ThreadBackend(1))
    assert result.state == "failed"
    (of_job,) = Store(result.experiment.tracking).runs("table")
    assert of_job.status == "FAILED"
    assert of_job.tags["reason"].startswith("lost worker")
    assert of_job.tags["reason"].endswith(", 3 times")


class EndedProcess(RunningProcess):
    """A process that has ended."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def exit_reason(self) -> str | None:
        return self.reason


@pytest.mark.parametrize(("reason", "state"), [("exit code 0", "stopped"), ("signal 9", "lost")])
def test_a_worker_that_is_stopped_before_its_job_starts_is_not_lost(reason: str, state: str) -> None:
    job, states = resolve(row_files()["mlp"]), list[str]()
    jobs: Any = SimpleNamespace(on_result=lambda task, result: states.append(result.state) or result.reason)
    with open_pool(ThreadBackend(1)) as pool, ProgressBoard(1) as board:
        board.job_started(1, job.name)
        pool.workers.append(WorkerHandle(1, EndedProcess(reason), task=Task(job, "table")))
        bench.runs.worker_pool._stop_workers(jobs, pool, board)
    assert states == [state]
