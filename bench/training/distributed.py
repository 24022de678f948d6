"""One run in several processes (Lightning's distributed data parallel): how they start, and what they tell one another.

Process 0 leads: it is the command itself, and it alone holds the MLflow run, writes checkpoints, validates and prints.
It starts the others of its machine (`python -m bench.runs.ddp_follower`), which read its settings from their standard
input and end when that ends: a leader that is killed leaves nobody behind. Each further machine runs the same command,
with the variables NODE_RANK, MASTER_ADDR and MASTER_PORT.

What depends on a clock, a signal or a file is decided by process 0 and told to the others; all else is the same
function of the same data everywhere, so that nothing needs to be told.
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

LONGEST_WAIT = timedelta(hours=6)
"""Longer than anything that process 0 does alone: a validation, or judging between two test sets."""

JOINING = timedelta(minutes=10)
"""How long the processes wait for one another at the start."""

HERE = "here"
"""Where the processes that have come are counted, process 0 left out."""

Processes = dict[int, "subprocess.Popen[bytes]"]
Work = tuple[Sequence[list[int]], DecodingSettings]
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, and which of them this is. A run in one process is process 0 of 1."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def first(self, thing: Thing) -> Thing:
        """What process 0 gave."""
        if self.size == 1:
            return thing
        things = [thing]
        distributed.broadcast_object_list(things, device=torch.device("cpu"))
        return things[0]

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean over the processes, number by number; the same bits in each."""
        if self.size == 1 or not values:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return (total / self.size).tolist()

    def translate(
        self, model: Translator, sources: Sequence[list[int]], settings: DecodingSettings
    ) -> list[list[Hypothesis]]:
        """decoding.translate by all processes, each a part; the others must be in `help`."""
        if self.size == 1:
            return beam_search.translate(model, sources, settings)
        self.first((sources, settings))
        found: list[list[Hypothesis]] = [[] for _ in sources]
        for rank, part in enumerate(self._part(model, sources, settings)):
            found[rank :: self.size] = part
        return found

    def help(self, model: Translator) -> None:
        """Translates parts for process 0 until it has no more."""
        while work := self.first(cast("Work | None", None)):
            self._part(model, *work)

    def _part(
        self, model: Translator, sources: Sequence[list[int]], settings: DecodingSettings
    ) -> list[list[list[Hypothesis]]]:
        """Every process's part in process 0, nothing in the others."""
        mine = beam_search.translate(model, sources[self.rank :: self.size], settings)
        parts: list[Any] | None = [None] * self.size if self.leads else None
        distributed.gather_object(mine, parts)
        return parts or []


SINGLE_PROCESS = ProcessGroup()


@dataclass(frozen=True)
class Rendezvous:
    """Where a process of a run stands: its rank among all, the number of all, and where process 0 waits for it."""

    rank: int
    size: int
    host: str
    port: int

    @contextlib.contextmanager
    def joined(self, device: torch.device) -> Iterator[ProcessGroup]:
        """For all but process 0. Raises ValueError if process 0 is not there."""
        try:
            store = TCPStore(self.host, self.port, self.size, False, timeout=JOINING)
        except RuntimeError as error:
            raise ValueError(
                f"machine.num_nodes: nobody answers at {self.host}:{self.port}; is MASTER_ADDR the machine of "
                "NODE_RANK 0, and the same command running there?"
            ) from error
        store.add(HERE, 1)
        with self.grouped(store, device) as group:
            yield group

    @contextlib.contextmanager
    def grouped(self, store: TCPStore, device: torch.device) -> Iterator[ProcessGroup]:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=LONGEST_WAIT)
        named = "OMP_NUM_THREADS" in os.environ
        if not named:  # Lightning would give the process all cores of the machine over its processes, whatever it has
            os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
        try:
            yield ProcessGroup(self.rank, self.size)
        finally:
            if not named:
                del os.environ["OMP_NUM_THREADS"]
            distributed.destroy_process_group()


class ExternalLauncher(ClusterEnvironment):
    """Tells Lightning that the processes of the run are there already, and which of them this is.

    Of a run in one process too: else Lightning would guess a cluster from the variables of, say, SLURM.
    """

    def __init__(self, group: ProcessGroup, devices: int) -> None:
        super().__init__()
        self.group, self.devices = group, devices

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise AssertionError("the processes have joined before Lightning begins")

    @property
    def main_port(self) -> int:
        raise AssertionError("the processes have joined before Lightning begins")

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
def leading(machine: MachineSettings, settings: Mapping[str, Any]) -> Iterator[ProcessGroup]:
    """The processes of a run, for process 0: starts those of this machine, and waits for those of others.

    Args:
        settings: Of the experiment, as plain data (Experiment.settings).

    Raises:
        ValueError: the others do not come.
        RuntimeError: one of them failed; what it printed stands on the standard error.
    """
    size = machine.processes
    if size == 1:
        yield SINGLE_PROCESS
        return
    host, port = meeting() if machine.num_nodes > 1 else ("127.0.0.1", 0)
    store = TCPStore(host, port, size, True, timeout=JOINING, wait_for_workers=False)
    place = Rendezvous(0, size, host, store.port)
    with followers(range(1, machine.devices), place, settings) as processes:
        _gather(store, size, processes)
        with place.grouped(store, machine.device) as group:
            try:
                yield group
                group.first(None)  # ends `help` in the others
            except BaseException as error:
                # Of those that wait for this process none has ended by now: they see its end when the group is left.
                failed = _failed(processes, patience=2.0) if isinstance(error, Exception) else None
                for process in processes.values():
                    process.kill()
                if failed:
                    raise RuntimeError(failed) from error
                raise


def _gather(store: TCPStore, size: int, processes: Processes) -> None:
    """Waits until all other processes are there."""
    until = time.monotonic() + JOINING.total_seconds()
    while (here := 1 + store.add(HERE, 0)) < size:
        if failed := _failed(processes):
            raise RuntimeError(failed)
        if time.monotonic() > until:
            raise ValueError(f"machine.num_nodes: {here} of {size} processes are there after {JOINING}")
        time.sleep(0.02)


def _failed(processes: Processes, patience: float = 0.0) -> str | None:
    """Which process has ended with an error, within so many seconds; None if none has."""
    until = time.monotonic() + patience
    while True:
        for rank, process in processes.items():
            if code := process.poll():
                return f"process {rank} of the run ended with code {code}; what it said stands above"
        if time.monotonic() >= until:
            return None
        time.sleep(0.02)


@contextlib.contextmanager
def followers(ranks: range, place: Rendezvous, settings: Mapping[str, Any]) -> Iterator[Processes]:
    """Processes of this machine, by rank. They end with the block, and with this process however it ends."""
    processes: Processes = {}
    try:
        for rank in ranks:
            # A session of its own: Ctrl-C is for process 0, which then tells the others.
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.runs.ddp_follower"], stdin=subprocess.PIPE, start_new_session=True
            )
            processes[rank] = process
            told = {"place": asdict(place) | {"rank": rank}, "settings": settings}
            assert process.stdin
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()
        yield processes
        for process in processes.values():
            process.wait(timeout=60)
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def meeting() -> tuple[str, int]:
    """Where the machines of a run meet: MASTER_ADDR and MASTER_PORT. Raises ValueError if they are not set."""
    try:
        return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError):
        raise ValueError(
            "machine.num_nodes: give the same command on each machine, with NODE_RANK (0, 1, ...), MASTER_ADDR "
            "(the machine of NODE_RANK 0) and MASTER_PORT (a free port there) in the environment"
        ) from None
