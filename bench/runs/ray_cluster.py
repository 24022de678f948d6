"""Starts workers on the machines of a Ray cluster. The only file that imports ray (extra `cluster`).

Ray starts the workers of worker.py where the requested cores and share of a GPU are free, and notices when a node is
lost. It does nothing else: the driver (worker_pool.py), to which the workers connect as on one machine, schedules
the jobs, and Ray retries nothing.
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
    from bench.runs.worker_backend import Process

FORWARDED_VARIABLES = ("MLFLOW_", "BENCH_", "PGPASS", "MULTI30K", "HF_")
"""Prefixes of the environment variables that workers get from the driver. All others are those of their node."""

LOST_WORKER_GRACE = 5.0
"""Seconds from Ray's report of a lost worker until it is replaced. A process that has lost its node needs one or two
seconds to end itself, and until then it holds the lock of its job."""


def run_worker(command: Sequence[str], environment: dict[str, str], folder: str) -> int:
    """Runs the worker of the command `python -m bench.runs.worker ADDRESS NUMBER` on a node, in Ray's own process."""
    os.environ.update(environment)
    try:
        os.chdir(folder)
    except OSError as error:
        raise ValueError(
            f"{folder}: {error.strerror} on a machine of the cluster; this folder must exist on every machine"
        ) from error
    from bench.runs.worker import main  # here, because torch reads the number of threads when it is imported

    return main(*command[-2:])


def workers_per_node(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many workers fit on a node. A share of a GPU lies on one GPU, so two workers of 0.4 fit on each."""
    counts = [int(resources.get("CPU", 0) // cpus)]
    if gpus:
        each = math.floor(1 / gpus + 1e-9) if gpus < 1 else 1 / gpus
        counts.append(int(resources.get("GPU", 0) * each))
    return min(counts)


class RayBackend:
    """Starts workers on a Ray cluster; a `worker_backend.WorkerBackend`.

    Args:
        address: `auto` for the cluster that this machine belongs to, or an address.
        count: Maximum number of workers at the same time; None for as many as fit on the cluster.
        cpus: Cores of each worker, which are also the threads of its job.
        gpus: GPUs of each worker; with 0.25 four workers share one.

    Raises:
        ValueError: Ray is not installed, there is no cluster at the address, or not one worker fits on it.
    """

    def __init__(self, address: str, count: int | None = None, cpus: int = 1, gpus: float = 0.0) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # The future default of this variable; while it is unset, Ray prints a warning.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise ValueError(
                "--cluster: Ray is not installed; install it: .venv/bin/pip install --editable '.[cluster]'"
            ) from None
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"--cluster: no Ray cluster at {address}: {reason}; start one (docs/clusters.md)"
            ) from error
        self.ray, self.cpus, self.gpus = ray, cpus, gpus
        fits = sum(workers_per_node(node["Resources"], cpus, gpus) for node in ray.nodes() if node["Alive"])
        if not fits:
            raise ValueError(
                f"--cluster: no machine has the {cpus} cores and {gpus:g} GPUs of a worker; lower --cpus_per_trial or "
                "--gpus_per_trial"
            )
        self.count = min(count or fits, fits)
        self.address: tuple[str, int] | None = (str(ray.util.get_node_ip_address()), 0)

    def start(self, command: Sequence[str], environment: dict[str, str]) -> Process:
        from bench.system.machine import GPU_SHARE  # here, because it imports torch: see `run_worker`

        forwarded = {key: value for key, value in os.environ.items() if key.startswith(FORWARDED_VARIABLES)}
        share = {GPU_SHARE: f"{self.gpus:g}"} if self.gpus else {}
        # max_calls=1: the process ends after one worker, so that the next worker starts with a fresh torch.
        remote = self.ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, max_calls=1)(run_worker)
        spread = remote.options(scheduling_strategy="SPREAD")
        return RayProcess(self.ray, spread.remote(list(command), forwarded | environment | share, os.getcwd()))

    def check(self, experiments: Sequence[Experiment]) -> None:
        for machine in (experiment.machine for experiment in experiments):
            if machine.accelerator == "gpu" and machine.devices > max(1.0, self.gpus):
                raise ValueError(
                    f"machine.devices: {machine.devices} GPUs were requested, but each worker has {self.gpus:g}; set "
                    f"--gpus_per_trial {machine.devices}"
                )

    def threads_per_job(self) -> int:
        return self.cpus


@dataclass
class RayProcess:
    """A worker that was requested from Ray. It starts when its cores and GPUs are free."""

    ray: Any
    reference: Any
    lost_at: float | None = None

    def exit_reason(self) -> str | None:
        done, _ = self.ray.wait([self.reference], timeout=0)
        if not done:
            return None
        try:
            return f"exit code {self.ray.get(self.reference)}"
        except self.ray.exceptions.RayError as error:
            self.lost_at = self.lost_at or time.monotonic()
            cause = getattr(error, "cause", None) or error  # the exception in `run_worker`, or one of Ray's own
            reason = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
            return reason if time.monotonic() - self.lost_at > LOST_WORKER_GRACE else None

    def kill(self) -> None:
        self.ray.cancel(self.reference, force=True)
