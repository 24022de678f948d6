"""One model in two processes (distributed data parallel): what one process gives, and no harm when one is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch

from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store
from tests.helpers import tiny_job
from tests.journeys.test_kill import BENCH, JOB, appears, finish, only_run, same

pytestmark = pytest.mark.journey

TWO = ("--machine.devices", "2", "--machine.threads", "2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    tiny_job.write_corpus(folder)
    return folder


def begin(corpus: Path, folder: Path, *flags: str) -> subprocess.Popen[str]:
    settings: dict[str, object] = {
        "training.max_updates": 200,
        "training.validations": 5,
        "training.average": 2,
        "machine.accelerator": "cpu",
        "machine.checkpoint_seconds": 0.5,
        "tracking.folder": folder,
    }
    return subprocess.Popen(
        [BENCH, "run", tiny_job.FILE, *tiny_job.flags(corpus, **settings), *flags],
        env={key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def judged(folder: Path) -> tuple[Store, TrackedRun, dict[str, torch.Tensor]]:
    """The only run in a folder, with its weights."""
    store, run = only_run(folder)
    assert run.status == "FINISHED"
    place = store.translator(run, folder / "read")
    assert place
    return store, run, torch.load(place / "weights.pt", weights_only=True)


def alike(one: Path, other: Path) -> tuple[float, float]:
    """That both saw the same data at the same cost, and have a translation of every sentence.

    Gives the largest difference of a weight, and that of the first loss.
    """
    (store, run, weights), (store_2, run_2, weights_2) = judged(one), judged(other)
    for name in ("pairs", "updates", "train_flops"):
        assert run.metrics[name] == run_2.metrics[name], name
    written, written_2 = store.hypotheses(run, "test"), store_2.hypotheses(run_2, "test")
    assert written["source"].tolist() == written_2["source"].tolist()
    agree = sum(written["hypothesis"] == written_2["hypothesis"]) / len(written)
    print(f"{agree:.1%} of {len(written)} translations agree; BLEU {run.metrics['test/bleu']:.3f} and", end=" ")
    print(f"{run_2.metrics['test/bleu']:.3f}; executed FLOPs", end=" ")
    print(f"{run_2.metrics['executed_flops'] / run.metrics['executed_flops']:.3f} of one process's")
    first, first_2 = (
        min((m.step, m.value) for m in s.client.get_metric_history(r.id, "train/loss"))
        for s, r in ((store, run), (store_2, run_2))
    )
    assert first[0] == first_2[0] == 1
    return max((weights[name] - weights_2[name]).abs().max().item() for name in weights), abs(first[1] - first_2[1])


def test_two_processes_are_one(corpus: Path, tmp_path: Path) -> None:
    """float64, SGD, no dropout, 20 updates: the same weights and the same translations."""
    plain = ("--training.precision=64-true", "--model.dropout=0", "--training.max_updates=20", "--training.average=1")
    sgd = ("--training.optimizer.name=SGD", "--training.optimizer.lr=0.5", "--training.optimizer.settings={}")
    for folder, processes in ((tmp_path / "one", ()), (tmp_path / "two", TWO)):
        finish(begin(corpus, folder, *plain, *sgd, *processes))
    weight, loss = alike(tmp_path / "one", tmp_path / "two")
    print(f"largest difference of a weight {weight:.1e}, of the first loss {loss:.1e}")
    assert weight < 1e-9
    assert loss < 1e-9
    (store, run), (store_2, run_2) = only_run(tmp_path / "one"), only_run(tmp_path / "two")
    assert store.hypotheses(run, "test").equals(store_2.hypotheses(run_2, "test"))
    assert run.metrics["test/bleu"] == run_2.metrics["test/bleu"]


def test_the_rows_own_recipe(corpus: Path, tmp_path: Path) -> None:
    """Adam, warm-up, smoothing, clipping in fp32: same data, FLOPs, first loss. No dropout: masks differ."""
    provenance = ("--model.dropout=0", "--training.max_updates=100")
    for folder, processes in ((tmp_path / "one", ()), (tmp_path / "two", TWO)):
        finish(begin(corpus, folder, *provenance, *processes))
    weight, loss = alike(tmp_path / "one", tmp_path / "two")
    print(f"largest difference of a weight {weight:.1e}, of the first loss {loss:.1e}")
    assert loss < 1e-6


def other_process(leader: subprocess.Popen[str]) -> psutil.Process:
    (child,) = (c for c in psutil.Process(leader.pid).children() if "bench.runs.ddp_follower" in c.cmdline())
    return child


def test_either_process_is_killed(corpus: Path, tmp_path: Path) -> None:
    """The command fails and says why, nobody is left behind, and the same command goes on to the same bits."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    finish(begin(corpus, whole, *TWO))
    for victim in ("process 1", "process 0"):
        reached = appears(folder, f"{JOB}/last.ckpt")
        leader = begin(corpus, folder, *TWO)
        while not reached():
            assert leader.poll() is None, leader.communicate()
            time.sleep(0.001)
        other = other_process(leader)
        (other if victim == "process 1" else leader).send_signal(signal.SIGKILL)
        printed, _ = leader.communicate(timeout=60)
        assert leader.returncode != 0
        if victim == "process 1":
            assert "process 1 of the run ended with code -9" in printed
        psutil.wait_procs([other], timeout=10)
        assert not other.is_running()
    finish(begin(corpus, folder, *TWO))
    same(whole, folder, tmp_path)


def test_two_machines(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command on each, here both on this one; Ctrl-C at the first saves, and ends both."""
    folder, nodes = tmp_path / "runs", ("--machine.num_nodes", "2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for stop in (True, False):
        reached = appears(folder, f"{JOB}/last.ckpt")
        commands = []
        for node in range(2):
            monkeypatch.setenv("NODE_RANK", str(node))
            commands.append(begin(corpus, folder, *nodes))
        if stop:
            while not reached():
                assert commands[0].poll() is None, commands[0].communicate()
                time.sleep(0.001)
            os.kill(commands[0].pid, signal.SIGINT)
        printed = [command.communicate(timeout=120)[0] for command in commands]
        assert [command.returncode for command in commands] == ([130, 130] if stop else [0, 0]), printed
    _, run, _ = judged(folder)
    assert run.tags["processes"] == "2"
    assert run.metrics["updates"] == 200
