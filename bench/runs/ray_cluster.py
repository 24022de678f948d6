"""Workers on the machines of a Ray cluster. The only file that imports ray (extra `cluster`).

Ray has one task here: to start the worker of worker.py where a part of a GPU and some cores are free, and to notice
that a node is lost. What the workers do is decided by the driver (workers.py), to which they connect as anywhere else;
Ray retries nothing.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.experiment.spec import Experiment
    from bench.runs.worker_pool import Process

PASSED_ON = ("MLFLOW_", "BENCH_", "PGPASS", "MULTI30K", "HF_")
"""Beginnings of the environment variables of the driver that its workers get; the rest is their node's own."""

GRACE = 5.0
"""Seconds between Ray's word that a worker is lost and its replacement: a process that has lost its node ends itself
within one or two, and until then it has its job in its hands."""


def work(command: Sequence[str], environment: dict[str, str], folder: str) -> int:
    """What Ray runs on a node: `python -m bench.runs.worker ADDRESS NUMBER`, in Ray's own process."""
    os.environ.update(environment)
    try:
        os.chdir(folder)
    except OSError as error:
        raise ValueError(f"{folder}: this folder must be on every machine of the cluster ({error.strerror})") from error
    from bench.runs.worker import main  # torch reads the number of threads when it is imported

    return main(*command[-2:])


def room(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many workers a node holds. A share of a GPU is of one GPU: 0.4 fits twice in each."""
    rooms = [int(resources.get("CPU", 0) // cpus)]
    if gpus:
        each = math.floor(1 / gpus + 1e-9) if gpus < 1 else 1 / gpus
        rooms.append(int(resources.get("GPU", 0) * each))
    return min(rooms)


class RayBackend:
    """A Ray cluster as a place for workers (workers.Place).

    Args:
        address: `auto` for the cluster that this machine belongs to, or its address.
        count: Workers at once; None for as many as the cluster holds.
        cpus: Cores of each, which are the threads of its job.
        gpus: GPUs of each; 0.25 lets four share one.

    Raises:
        ValueError: there is no Ray here, no cluster at the address, or no room for a single worker in it.
    """

    def __init__(self, address: str, count: int | None = None, cpus: int = 1, gpus: float = 0.0) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its coming default: said, else a warning
        try:
            import ray
        except ImportError:
            raise ValueError("--cluster: Ray is not installed; .venv/bin/pip install --editable '.[cluster]'") from None
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"--cluster: no Ray cluster at {address} (docs/clusters.md): {reason}") from error
        self.ray, self.cpus, self.gpus = ray, cpus, gpus
        fits = sum(room(node["Resources"], cpus, gpus) for node in ray.nodes() if node["Alive"])
        if not fits:
            raise ValueError(f"--cluster: no machine of it has {cpus} cores and {gpus:g} GPUs for a worker")
        self.count = min(count or fits, fits)
        self.address: tuple[str, int] | None = (str(ray.util.get_node_ip_address()), 0)

    def start(self, command: Sequence[str], environment: dict[str, str]) -> Process:
        from bench.system.machine import GPU_SHARE  # and torch, which a node imports after its threads are set

        passed = {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON)}
        share = {GPU_SHARE: f"{self.gpus:g}"} if self.gpus else {}
        # A process does one worker's work and ends: the next one begins with a fresh torch.
        remote = self.ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, max_calls=1)(work)
        spread = remote.options(scheduling_strategy="SPREAD")
        return RayProcess(self.ray, spread.remote(list(command), passed | environment | share, os.getcwd()))

    def check(self, experiments: Sequence[Experiment]) -> None:
        for machine in (experiment.machine for experiment in experiments):
            if machine.accelerator == "gpu" and machine.devices > max(1.0, self.gpus):
                raise ValueError(
                    f"machine.devices: {machine.devices} GPUs were asked for; give each worker so many: "
                    f"--gpus_per_trial {machine.devices}"
                )

    def threads(self) -> int:
        return self.cpus


@dataclass
class RayProcess:
    """A worker that Ray has been asked for; it begins when there is room."""

    ray: Any
    reference: Any
    lost_at: float | None = None

    def ended(self) -> str | None:
        done, _ = self.ray.wait([self.reference], timeout=0)
        if not done:
            return None
        try:
            return f"exit code {self.ray.get(self.reference)}"
        except self.ray.exceptions.RayError as error:
            self.lost_at = self.lost_at or time.monotonic()
            cause = getattr(error, "cause", None) or error  # of an exception in `work`, or Ray's own
            reason = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
            return reason if time.monotonic() - self.lost_at > GRACE else None

    def kill(self) -> None:
        self.ray.cancel(self.reference, force=True)
