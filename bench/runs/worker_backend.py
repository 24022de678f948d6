"""Where workers run: the protocol of a backend, and the backend that starts them as processes of this machine.

ray_cluster.py has the backend that starts them on the nodes of a Ray cluster.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bench.experiment.spec import Experiment
from bench.system.machine import GPU_SHARE, SIBLINGS, available_cores, visible_gpus


class Process(Protocol):
    """A started worker process, on any machine."""

    def exit_reason(self) -> str | None:
        """How the process ended, in a few words; None while it runs."""
        ...

    def kill(self) -> None: ...


class WorkerBackend(Protocol):
    """Starts workers.

    Attributes:
        count: Maximum number of workers at the same time.
        address: Host and port at which the driver listens; None for a Unix socket. Workers must be able to reach it.
    """

    count: int
    address: tuple[str, int] | None

    def start(self, command: Sequence[str], environment: dict[str, str]) -> Process:
        """Starts `python -m bench.runs.worker ADDRESS NUMBER` with these additional environment variables."""
        ...

    def check(self, experiments: Sequence[Experiment]) -> None:
        """Raises ValueError if a worker of this backend cannot execute one of the jobs."""
        ...

    def threads_per_job(self) -> int | None:
        """Threads of a job that does not set `machine.threads`; None if the job decides itself."""
        ...


class LocalProcess:
    """A worker on this machine. It has its own session, so Ctrl-C reaches only the driver, which stops its workers."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=os.environ | environment, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def exit_reason(self) -> str | None:
        code = self.process.poll()
        return None if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class LocalBackend:
    """Starts `count` processes on this machine, which share its cores and its GPUs."""

    count: int
    address: tuple[str, int] | None = None
    running: dict[int, LocalProcess] = field(default_factory=dict)  # slot (0 to count - 1) -> process

    def start(self, command: Sequence[str], environment: dict[str, str]) -> Process:
        slot = next(n for n in range(self.count) if n not in self.running or self.running[n].exit_reason() is not None)
        variables = environment | {SIBLINGS: str(self.count - 1)} | self.gpu_variables(slot)
        self.running[slot] = LocalProcess(command, variables)
        return self.running[slot]

    def gpus_per_worker(self, available: int) -> int:
        return max(1, available // self.count)

    def check(self, experiments: Sequence[Experiment]) -> None:
        available = len(visible_gpus())
        for machine in (experiment.machine for experiment in experiments):
            if machine.device.type == "cuda" and machine.devices > (each := self.gpus_per_worker(available)):
                raise ValueError(
                    f"machine.devices: {machine.devices} GPUs were requested, but each of {self.count} workers has "
                    f"{each} of {available}; set fewer devices, or fewer --workers"
                )

    def gpu_variables(self, slot: int) -> dict[str, str]:
        """The environment variables that select the GPUs of the worker in a slot, and state its share of a GPU.

        If there are more workers than GPUs, each worker has one GPU and shares it. Otherwise each worker has its own
        GPUs, as many as every other worker.
        """
        available = visible_gpus()
        if not available:
            return {}
        each = self.gpus_per_worker(len(available))
        own = (available * self.count)[slot * each : (slot + 1) * each]
        sharing = range(slot % len(available), self.count, len(available))
        return {"CUDA_VISIBLE_DEVICES": ",".join(own), GPU_SHARE: f"{1 / len(sharing):.3g}"}

    def threads_per_job(self) -> int:
        return max(1, available_cores() // self.count)
