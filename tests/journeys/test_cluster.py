"""Two Ray nodes on this machine, eight jobs, `kill -9` of a worker twice and of a node once: nothing is lost.

Where and when it is killed is random within a stage of the suite; a node that is lost is replaced, as a cluster's
manager would do it.
"""

from __future__ import annotations

import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job
from tests.journeys.test_kill import BENCH

pytestmark = pytest.mark.journey

JOBS = 8
SUITE = f"question: Is anything lost?\nrows: [transformer-base]\nseeds: {list(range(1, JOBS + 1))}\n"
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    utility = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed (extra cluster)")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # which would kill workers of a full machine
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    nodes = utility.RayBackend(initialize_head=True, head_node_args=NODE)
    nodes.add_node(**NODE)
    yield nodes
    nodes.shutdown()


def begin(corpus: Path, folder: Path, *flags: str) -> subprocess.Popen[str]:
    """Starts the suite; it writes what it says into a file, so that no pipe fills up."""
    folder.mkdir()
    (folder / "jobs.yaml").write_text(SUITE)
    settings: dict[str, object] = {
        "training.max_updates": 300,
        "training.validations": 4,
        "model.dropout": 0.2,
        "machine.accelerator": "cpu",
        "machine.checkpoint_seconds": 0.5,
        "tracking.folder": folder,
    }
    command = [
        BENCH,
        "suite",
        folder / "jobs.yaml",
        "--out",
        folder / "report",
        *tiny_job.flags(corpus, **settings),
        *flags,
    ]
    with open(folder / "said", "w") as said:
        return subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True)


def raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def workers(cluster: Any) -> list[psutil.Process]:
    """The processes in which Ray runs our workers now."""
    found = []
    for node in cluster.list_all_nodes():
        for process in raylet(node).children(recursive=True):
            try:
                if process.cmdline()[:1] == ["ray::work"]:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
    return found


def until(command: subprocess.Popen[str], said: Path, holds: Callable[[], bool]) -> None:
    while not holds():
        assert command.poll() is None, said.read_text()
        time.sleep(0.01)


def ended(folder: Path) -> int:
    """How many jobs of the suite have kept their translator, which is nearly the last that a job does."""
    return len(list(folder.glob("jobs/jobs/*/translator/weights.pt")))


def under_way(folder: Path) -> int:
    """How many jobs have a checkpoint and are not at their end."""
    return len(list(folder.glob("jobs/jobs/*/last.ckpt"))) - ended(folder)


def results(folder: Path, jobs: int) -> dict[str, tuple[TrackedRun, dict[str, torch.Tensor]]]:
    """Run and weights of every job of the suite, by seed; each job has one run, and that is finished."""
    store = Store(TrackingSettings(f"sqlite:///{folder}/mlflow.db", str(folder)))
    runs = store.runs("jobs")
    assert [run.status for run in runs] == ["FINISHED"] * jobs
    assert len({run.tags["job_hash"] for run in runs}) == jobs
    found = {}
    for run in runs:
        place = store.translator(run, folder / "read" / run.id)
        assert place
        found[run.tags["seed"]] = (run, torch.load(place / "weights.pt", weights_only=True))
    return found


def test_workers_and_a_node_are_killed(cluster: Any, tmp_path: Path) -> None:
    tiny_job.write_corpus(tmp_path)
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    rng = random.Random("workers and a node")
    command = begin(tmp_path, folder, "--cluster", cluster.address, "--machine.threads", "null")
    said = folder / "said"
    for number, victim in enumerate(rng.sample(["worker", "worker", "node"], 3)):
        until(command, said, lambda done=2 * number: ended(folder) >= done and under_way(folder) == 2)
        time.sleep(rng.uniform(0, 2))
        if victim == "worker":
            process = rng.choice(workers(cluster))
            process.kill()
        else:
            (node,) = cluster.worker_nodes
            raylet(node).kill()
            cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(**NODE)
        print(f"killed a {victim} when {ended(folder)} of {JOBS} jobs had ended")
    assert command.wait(timeout=600) == 0, said.read_text()
    lines = said.read_text()
    print("\n".join(line for line in lines.splitlines() if re.search(r"lost|continues", line)))
    assert lines.count("finished now") == JOBS
    assert lines.count("goes on with another") >= 2  # a worker may be killed between two jobs
    assert lines.count("continues run") >= 2

    lost = sorted(set(re.findall(r" s(\d+): lost worker", lines)))
    undisturbed = begin(tmp_path, whole, "--workers", "2", "--seeds", *lost)
    assert undisturbed.wait(timeout=600) == 0, (whole / "said").read_text()
    expected, got = results(whole, len(lost)), results(folder, JOBS)
    for seed, (run, weights) in expected.items():
        run_2, weights_2 = got[seed]
        assert [name for name in weights if not torch.equal(weights[name], weights_2[name])] == [], seed
        for name in ("updates", "pairs", "train_flops", "test/bleu"):
            assert run.metrics[name] == run_2.metrics[name], (seed, name)
    print(f"{JOBS} jobs, one run each; those of seeds {', '.join(lost)} were killed and are equal to the bit")
    assert {run.tags["threads"] for run, _ in got.values()} == {"1"}  # the cores that a worker has of the cluster
