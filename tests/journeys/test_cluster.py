"""Six jobs on two Ray nodes of this machine; two workers and one node are killed, and nothing is lost.

What is killed, and when within a stage of the suite, is random. A lost node is replaced, as the manager of a cluster
would do.
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

from bench.runs.ray_cluster import run_worker
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job
from tests.journeys.commands import BENCH, load_weights, wait_until

pytestmark = pytest.mark.journey

JOBS = 8  # so that two still run when the last one is killed
SUITE = f"question: Is anything lost?\nrows: [transformer-base]\nseeds: {list(range(1, JOBS + 1))}\n"
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    utility = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed (extra cluster)")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # else it kills workers when the machine's memory is full
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    nodes = utility.Cluster(initialize_head=True, head_node_args=NODE)
    nodes.add_node(**NODE)
    yield nodes
    nodes.shutdown()


def start_suite(corpus: Path, folder: Path, *flags: str) -> subprocess.Popen[str]:
    """Start the suite. Its output goes to the file `output`: a pipe that nobody reads would block it when full."""
    (folder / "jobs.yaml").write_text(SUITE)
    settings: dict[str, object] = {
        "training.max_updates": 300,
        "training.validations": 4,
        "model.dropout": 0.2,
        "machine.accelerator": "cpu",
        "machine.checkpoint_seconds": 0.5,
        "tracking.folder": folder,
    }
    command = [BENCH, "suite", folder / "jobs.yaml", "--out", folder / "report"]
    with open(folder / "output", "w") as output:
        return subprocess.Popen(
            [*command, *tiny_job.flags(corpus, **settings), *flags], stdout=output, stderr=subprocess.STDOUT, text=True
        )


def raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def workers(cluster: Any) -> list[psutil.Process]:
    """Return the processes in which Ray runs our workers now."""
    found = []
    for node in cluster.list_all_nodes():
        for process in raylet(node).children(recursive=True):
            try:
                if process.cmdline()[:1] == [f"ray::{run_worker.__name__}"]:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
    return found


def finished_jobs(folder: Path) -> int:
    """Return how many jobs of the suite the command has called finished."""
    return (folder / "output").read_text().count("finished now")


def running_jobs(folder: Path) -> int:
    """Return how many jobs have a checkpoint; that of a finished job is deleted."""
    return len(list(folder.glob("jobs/jobs/*/last.ckpt")))


def results(folder: Path, jobs: int) -> dict[str, tuple[TrackedRun, dict[str, torch.Tensor]]]:
    """Return run and weights of every job of the suite, by seed. Each job must have one finished run."""
    store = Store(TrackingSettings(f"sqlite:///{folder}/mlflow.db", str(folder)))
    runs = store.runs("jobs")
    assert [run.status for run in runs] == ["FINISHED"] * jobs
    assert len({run.tags["job_hash"] for run in runs}) == jobs
    return {run.tags["seed"]: (run, load_weights(store, run, folder / "read" / run.id)) for run in runs}


def test_workers_and_a_node_are_killed(
    cluster: Any, corpus: Path, tracking_folder: Callable[[Path], Path], tmp_path: Path
) -> None:
    killed, undisturbed = tracking_folder(tmp_path / "killed"), tracking_folder(tmp_path / "undisturbed")
    rng = random.Random("workers and a node")
    command = start_suite(corpus, killed, "--cluster", cluster.address, "--machine.threads", "null")
    output = killed / "output"
    for number, victim in enumerate(rng.sample(["worker", "worker", "node"], 3)):
        wait_until(
            command, lambda finished=2 * number: finished_jobs(killed) >= finished and running_jobs(killed) == 2, 0.01
        )
        time.sleep(rng.uniform(0, 2))
        if victim == "worker":
            process = rng.choice(workers(cluster))
            process.kill()
        else:
            (node,) = cluster.worker_nodes
            raylet(node).kill()
            cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(**NODE)
        print(f"killed a {victim} when {finished_jobs(killed)} of {JOBS} jobs were finished")
    assert command.wait(timeout=600) == 0, output.read_text()
    printed = output.read_text()
    print("\n".join(line for line in printed.splitlines() if re.search(r"lost|continues", line)))
    assert printed.count("finished now") == JOBS
    assert printed.count("continues with another worker") >= 2  # a worker may be killed between two jobs
    assert printed.count("continues run") >= 2

    lost = sorted(set(re.findall(r" s(\d+): lost worker", printed)))
    again = start_suite(corpus, undisturbed, "--workers", "2", "--seeds", *lost)
    assert again.wait(timeout=600) == 0, (undisturbed / "output").read_text()
    expected, found = results(undisturbed, len(lost)), results(killed, JOBS)
    for seed, (run, weights) in expected.items():
        run_2, weights_2 = found[seed]
        assert [name for name in weights if not torch.equal(weights[name], weights_2[name])] == [], seed
        for name in ("updates", "pairs", "train_flops", "test/bleu"):
            assert run.metrics[name] == run_2.metrics[name], (seed, name)
    print(f"{JOBS} jobs, one run each; those of seeds {', '.join(lost)} were killed and are equal to the bit")
    assert {run.tags["threads"] for run, _ in found.values()} == {"1"}  # the cores that a worker has of the cluster
