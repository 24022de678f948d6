"""Distributed training: one run in several processes, by Lightning's distributed data parallel (DDP).

Process 0 is the leader. It is the process of the command itself, and it alone holds the MLflow run, writes checkpoints,
validates and prints. It starts the followers on its machine (`python -m bench.runs.ddp_follower`). They read their
settings from standard input and end when it is closed, so that no process is left behind if the leader is killed. On
every other machine the user runs the same command, with the variables NODE_RANK, MASTER_ADDR and MASTER_PORT set.

Process 0 decides everything that depends on a clock, a signal or a file, and broadcasts the decision. Everything else
is the same function of the same data in all processes, so that it needs no communication.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from torch import distributed

# PyTorch documents TCPStore under this name, but leaves it out of __all__, so a checker takes it for private.
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from bench.decoding import beam_search
from bench.decoding.beam_search import DecodingSettings, Hypothesis
from bench.system.machine import MachineSettings
from models.parts.translator import Translator

OPERATION_TIMEOUT = timedelta(hours=6)
"""Timeout of a collective operation. Longer than anything that process 0 does alone, such as a validation, or the part
of the evaluation between two test sets."""

JOIN_TIMEOUT = timedelta(minutes=10)
"""How long the processes wait for one another at the start."""

JOINED_KEY = "joined"
"""Key of the store under which the followers that have joined are counted."""

Processes = dict[int, "subprocess.Popen[bytes]"]
TranslationRequest = tuple[Sequence[list[int]], DecodingSettings]
T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run. A run in a single process is process 0 of 1.

    Attributes:
        rank: Number of this process in the group, from 0.
        size: Number of processes in the group.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """Return the value that process 0 passed. All processes must call this."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the mean over the processes of each value. The result has the same bits in every process."""
        if self.size == 1 or not values:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return (total / self.size).tolist()

    def translate(
        self, model: Translator, sources: Sequence[list[int]], settings: DecodingSettings
    ) -> list[list[Hypothesis]]:
        """Return what `beam_search.translate` returns; every process translates a share of the sentences.

        Only process 0 calls this. The followers must be in `serve_translation`.
        """
        if self.size == 1:
            return beam_search.translate(model, sources, settings)
        self.broadcast((sources, settings))
        translations: list[list[Hypothesis]] = [[] for _ in sources]
        for rank, share in enumerate(self._translate_share(model, sources, settings)):
            translations[rank :: self.size] = share
        return translations

    def serve_translation(self, model: Translator) -> None:
        """In a follower: translate shares for process 0 until process 0 broadcasts that there is no more work."""
        while request := self.broadcast(cast("TranslationRequest | None", None)):
            self._translate_share(model, *request)

    def _translate_share(
        self, model: Translator, sources: Sequence[list[int]], settings: DecodingSettings
    ) -> list[list[list[Hypothesis]]]:
        """Translate the share of this process. Return the shares of all processes in process 0, else an empty list."""
        own_share = beam_search.translate(model, sources[self.rank :: self.size], settings)
        shares: list[Any] | None = [None] * self.size if self.is_leader else None
        distributed.gather_object(own_share, shares)
        return shares or []


SINGLE_PROCESS = ProcessGroup()


@dataclass(frozen=True)
class Rendezvous:
    """What a process needs to join the group of its run.

    Attributes:
        rank: Number of this process among all processes of the run, from 0.
        size: Number of processes of the run.
        host: Address of the machine of process 0.
        port: Port on which the store of process 0 listens.
    """

    rank: int
    size: int
    host: str
    port: int

    @contextlib.contextmanager
    def join(self, device: torch.device) -> Iterator[ProcessGroup]:
        """In a follower: connect to process 0, and leave the group at the end of the block.

        Raises:
            ValueError: process 0 does not answer.
        """
        try:
            store = TCPStore(self.host, self.port, self.size, False, timeout=JOIN_TIMEOUT)
        except RuntimeError as error:
            raise ValueError(
                f"machine.num_nodes: no answer from {self.host}:{self.port}, where process 0 was expected. Check that "
                "MASTER_ADDR is the machine of NODE_RANK 0 and that the same command runs there."
            ) from error
        store.add(JOINED_KEY, 1)
        with self.initialize(store, device) as group:
            yield group

    @contextlib.contextmanager
    def initialize(self, store: TCPStore, device: torch.device) -> Iterator[ProcessGroup]:
        """Initialize torch.distributed for the length of the block."""
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(
            backend, store=store, rank=self.rank, world_size=self.size, timeout=OPERATION_TIMEOUT
        )
        threads_set = "OMP_NUM_THREADS" in os.environ
        if not threads_set:  # otherwise Lightning would give each process (all cores / processes) threads
            os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
        try:
            yield ProcessGroup(self.rank, self.size)
        finally:
            if not threads_set:
                del os.environ["OMP_NUM_THREADS"]
            distributed.destroy_process_group()


class ExternalLauncher(ClusterEnvironment):
    """Tells Lightning that the processes of the run already exist, and which of them this is.

    A run in a single process needs it too: otherwise Lightning would guess a cluster from the environment variables
    of SLURM and similar systems.
    """

    def __init__(self, group: ProcessGroup, devices: int) -> None:
        super().__init__()
        self.group, self.devices = group, devices

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise AssertionError("the processes join before Lightning starts")

    @property
    def main_port(self) -> int:
        raise AssertionError("the processes join before Lightning starts")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.group.size

    def set_world_size(self, size: int) -> None:
        assert size == self.group.size

    def global_rank(self) -> int:
        return self.group.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self.group.rank

    def local_rank(self) -> int:
        return self.group.rank % self.devices

    def node_rank(self) -> int:
        return self.group.rank // self.devices


@contextlib.contextmanager
def launch_group(machine: MachineSettings, settings: Mapping[str, Any]) -> Iterator[ProcessGroup]:
    """In process 0: start the followers on this machine, wait for those on other machines, and yield the group.

    Args:
        settings: Settings of the experiment as plain data (Experiment.settings).

    Raises:
        ValueError: not all followers joined in time.
        RuntimeError: a follower failed. Its own message is on standard error.
    """
    size = machine.processes
    if size == 1:
        yield SINGLE_PROCESS
        return
    host, port = master_address() if machine.num_nodes > 1 else ("127.0.0.1", 0)
    store = TCPStore(host, port, size, True, timeout=JOIN_TIMEOUT, wait_for_workers=False)
    rendezvous = Rendezvous(0, size, host, store.port)
    with start_followers(range(1, machine.devices), rendezvous, settings) as processes:
        _wait_for_followers(store, size, processes)
        with rendezvous.initialize(store, machine.device) as group:
            try:
                yield group
                group.broadcast(None)  # ends `serve_translation` in the followers
            except BaseException as error:
                # Followers that wait for this process are still alive here: they fail only when the group is destroyed.
                # A follower that has ended is therefore the cause of the error.
                failure = _find_failure(processes, timeout_s=2.0) if isinstance(error, Exception) else None
                for process in processes.values():
                    process.kill()
                if failure:
                    raise RuntimeError(failure) from error
                raise


def _wait_for_followers(store: TCPStore, size: int, processes: Processes) -> None:
    """Wait until all followers have joined.

    Raises:
        ValueError: some are missing after JOIN_TIMEOUT.
        RuntimeError: a follower on this machine failed.
    """
    deadline = time.monotonic() + JOIN_TIMEOUT.total_seconds()
    while (joined := 1 + store.add(JOINED_KEY, 0)) < size:
        if failure := _find_failure(processes):
            raise RuntimeError(failure)
        if time.monotonic() > deadline:
            raise ValueError(
                f"machine.num_nodes: only {joined} of {size} processes have joined after {JOIN_TIMEOUT}. Run the same "
                "command on every machine."
            )
        time.sleep(0.02)


def _find_failure(processes: Processes, timeout_s: float = 0.0) -> str | None:
    """Return a message about a process that ended with an error within `timeout_s` seconds, or None if none did."""
    deadline = time.monotonic() + timeout_s
    while True:
        for rank, process in processes.items():
            if code := process.poll():
                return f"process {rank} of the run ended with code {code}; its own message is printed above"
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.02)


@contextlib.contextmanager
def start_followers(ranks: range, rendezvous: Rendezvous, settings: Mapping[str, Any]) -> Iterator[Processes]:
    """Start followers on this machine and yield them by rank.

    They end with the block. They also end with this process, however it ends, because their standard input is closed.
    """
    processes: Processes = {}
    try:
        for rank in ranks:
            # A session of its own: Ctrl-C must reach process 0 only, which then tells the followers to stop.
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.runs.ddp_follower"], stdin=subprocess.PIPE, start_new_session=True
            )
            processes[rank] = process
            request = {"rendezvous": asdict(rendezvous) | {"rank": rank}, "settings": settings}
            assert process.stdin
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        yield processes
        for process in processes.values():
            process.wait(timeout=60)
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def master_address() -> tuple[str, int]:
    """Return the host and port of process 0 from MASTER_ADDR and MASTER_PORT.

    Raises:
        ValueError: one of them is not set or the port is not a number.
    """
    try:
        return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError):
        raise ValueError(
            "machine.num_nodes: MASTER_ADDR or MASTER_PORT is missing or not valid. Run the same command on each "
            "machine, with NODE_RANK (0, 1, ...), MASTER_ADDR (the machine of NODE_RANK 0) and MASTER_PORT (a free "
            "port there) in the environment."
        ) from None
