"""One model in two processes (distributed data parallel): the result of one process, and a kill costs nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import psutil
import pytest
import torch

from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store
from tests.helpers import tiny_job
from tests.journeys.commands import (
    BENCH,
    JOB_FOLDER,
    assert_same_result,
    finish,
    free_port,
    is_written,
    load_weights,
    loss_curve,
    only_run,
    start,
    wait_until,
)

pytestmark = pytest.mark.journey

TWO = ("--machine.devices", "2", "--machine.threads", "2")

MakeFolder = Callable[[Path], Path]


def start_run(corpus: Path, folder: Path, *flags: str) -> Popen[str]:
    settings: dict[str, object] = {
        "training.max_updates": 200,
        "training.validations": 5,
        "training.average": 2,
        "machine.accelerator": "cpu",
        "machine.checkpoint_seconds": 0.5,
        "tracking.folder": folder,
    }
    return start(BENCH, "run", tiny_job.FILE, *tiny_job.flags(corpus, **settings), *flags)


def evaluated(folder: Path) -> tuple[Store, TrackedRun, dict[str, torch.Tensor]]:
    """Return the store in a folder, its only run, which must be finished, and the weights of that run."""
    store, run = only_run(folder)
    assert run.status == "FINISHED"
    return store, run, load_weights(store, run, folder / "read")


def differences(one: Path, other: Path) -> tuple[float, float]:
    """Return the largest difference of a weight, and the difference of the first loss, between two runs.

    Both must have seen the same data at the same cost, and must have a translation of every sentence.
    """
    (store, run, weights), (store_2, run_2, weights_2) = evaluated(one), evaluated(other)
    for name in ("pairs", "updates", "train_flops"):
        assert run.metrics[name] == run_2.metrics[name], name
    hypotheses, hypotheses_2 = store.hypotheses(run, "test"), store_2.hypotheses(run_2, "test")
    assert hypotheses["source"].tolist() == hypotheses_2["source"].tolist()
    agree = sum(hypotheses["hypothesis"] == hypotheses_2["hypothesis"]) / len(hypotheses)
    print(f"{agree:.1%} of {len(hypotheses)} translations agree; BLEU {run.metrics['test/bleu']:.3f} and", end=" ")
    print(f"{run_2.metrics['test/bleu']:.3f}; executed FLOPs", end=" ")
    print(f"{run_2.metrics['executed_flops'] / run.metrics['executed_flops']:.3f} of one process's")
    first, first_2 = min(loss_curve(store, run)), min(loss_curve(store_2, run_2))
    assert first[0] == first_2[0] == 1
    weight = max((weights[name] - weights_2[name]).abs().max().item() for name in weights)
    loss = abs(first[1] - first_2[1])
    print(f"largest difference of a weight {weight:.1e}, of the first loss {loss:.1e}")
    return weight, loss


def test_two_processes_give_the_result_of_one(corpus: Path, tracking_folder: MakeFolder, tmp_path: Path) -> None:
    """float64, SGD, no dropout, 20 updates: the same weights and the same translations."""
    plain = ("--training.precision=64-true", "--model.dropout=0", "--training.max_updates=20", "--training.average=1")
    sgd = ("--training.optimizer.name=SGD", "--training.optimizer.lr=0.5", "--training.optimizer.settings={}")
    for folder, processes in ((tmp_path / "one", ()), (tmp_path / "two", TWO)):
        finish(start_run(corpus, tracking_folder(folder), *plain, *sgd, *processes))
    weight, loss = differences(tmp_path / "one", tmp_path / "two")
    assert weight < 1e-9
    assert loss < 1e-9
    (store, run), (store_2, run_2) = only_run(tmp_path / "one"), only_run(tmp_path / "two")
    assert store.hypotheses(run, "test").equals(store_2.hypotheses(run_2, "test"))
    assert run.metrics["test/bleu"] == run_2.metrics["test/bleu"]


def test_the_settings_of_the_row(corpus: Path, tracking_folder: MakeFolder, tmp_path: Path) -> None:
    """Adam, warm-up, smoothing, clipping in fp32: same data, FLOPs, first loss. No dropout, because masks differ."""
    settings = ("--model.dropout=0", "--training.max_updates=100")
    for folder, processes in ((tmp_path / "one", ()), (tmp_path / "two", TWO)):
        finish(start_run(corpus, tracking_folder(folder), *settings, *processes))
    _, loss = differences(tmp_path / "one", tmp_path / "two")
    assert loss < 1e-6


def follower_of(leader: Popen[str]) -> psutil.Process:
    (child,) = (c for c in psutil.Process(leader.pid).children() if "bench.runs.ddp_follower" in c.cmdline())
    return child


def test_either_process_is_killed(corpus: Path, tracking_folder: MakeFolder, tmp_path: Path) -> None:
    """The command fails and says why, no process is left behind, and the same command continues to the same bits."""
    undisturbed, killed = tracking_folder(tmp_path / "undisturbed"), tracking_folder(tmp_path / "killed")
    finish(start_run(corpus, undisturbed, *TWO))
    for victim in ("process 1", "process 0"):
        written = is_written(killed, f"{JOB_FOLDER}/last.ckpt")
        leader = start_run(corpus, killed, *TWO)
        wait_until(leader, written)
        follower = follower_of(leader)
        (follower if victim == "process 1" else leader).send_signal(signal.SIGKILL)
        printed, _ = leader.communicate(timeout=60)
        assert leader.returncode != 0
        if victim == "process 1":
            assert "process 1 of the run ended with code -9" in printed
        psutil.wait_procs([follower], timeout=10)
        assert not follower.is_running()
    finish(start_run(corpus, killed, *TWO))
    assert_same_result(undisturbed, killed, tmp_path)


def test_two_machines(
    corpus: Path, tracking_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command on each of two machines, here both on this one. Ctrl-C at the first saves and ends both."""
    folder, nodes = tracking_folder(tmp_path / "runs"), ("--machine.num_nodes", "2")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for interrupt in (True, False):
        written = is_written(folder, f"{JOB_FOLDER}/last.ckpt")
        commands = []
        for node in range(2):
            monkeypatch.setenv("NODE_RANK", str(node))
            commands.append(start_run(corpus, folder, *nodes))
        if interrupt:
            wait_until(commands[0], written)
            os.kill(commands[0].pid, signal.SIGINT)
        printed = [command.communicate(timeout=120)[0] for command in commands]
        assert [command.returncode for command in commands] == ([130, 130] if interrupt else [0, 0]), printed
    _, run, _ = evaluated(folder)
    assert run.tags["processes"] == "2"
    assert run.metrics["updates"] == 200
