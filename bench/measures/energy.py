"""Energy in joules: the difference of hardware counters before and after.

GPU: NVML's total-energy counter (millijoules since the driver was loaded; Volta and later), summed over the devices of
the run. CPU: RAPL's package counters, where Linux allows reading them. Both count the whole device, including idle
power and other processes, and exclude the rest of the machine. Errors: NVML is updated every 20 to 100 ms and is
accurate to about 5 %; on some processors RAPL is a model. Without a readable counter the value is None with the reason.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import torch

from bench.measures.measure import Measure

RAPL = Path("/sys/class/powercap")

UNREADABLE = (OSError, ValueError)
"""What reading a counter raises: no right to read it, no such counter, or a file without a number."""


class Rapl:
    """Package domains of RAPL (running average power limit; Intel and AMD): microjoules, wrapping at a maximum."""

    source = "RAPL, CPU packages"

    def __init__(self) -> None:
        domains = [zone for zone in sorted(RAPL.glob("*-rapl:*")) if _text(zone / "name").startswith("package")]
        if not domains:
            raise OSError("no RAPL package counter on this machine")
        self.domains = domains
        self.ranges = [int(_text(zone / "max_energy_range_uj")) for zone in domains]

    def counters(self) -> list[int]:
        return [int(_text(zone / "energy_uj")) for zone in self.domains]

    def joules(self, before: list[int], after: list[int]) -> float:
        """A counter that decreased has wrapped once; `Energy.poll` must be called before it wraps twice."""
        steps = zip(before, after, self.ranges, strict=True)
        return sum((new - old) % (top + 1) for old, new, top in steps) / 1e6


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


class Nvml:
    """NVML's counters of the first `count` CUDA devices that are visible to this process, identified by UUID."""

    def __init__(self, count: int) -> None:
        try:
            self.nvml: Any = importlib.import_module("pynvml")
        except ImportError as error:
            raise OSError("NVML needs the extra `gpu`: .venv/bin/pip install --editable '.[gpu]'") from error
        try:
            self.nvml.nvmlInit()
            uuids = [torch.cuda.get_device_properties(n).uuid for n in range(count)]
            self.handles = [self.nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}") for uuid in uuids]
        except self.nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error
        self.source = f"NVML total-energy counter, {len(self.handles)} devices"

    def counters(self) -> list[int]:
        try:
            return [self.nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in self.handles]
        except self.nvml.NVMLError as error:  # a MIG slice has no counter of its own, older GPUs have none
            raise OSError(f"NVML: {error}") from error

    def joules(self, before: list[int], after: list[int]) -> float:
        return sum(new - old for old, new in zip(before, after, strict=True)) / 1e3


class Energy:
    """Joules of the processors of one kind, added up over all intervals from a `skip` to the next `poll`.

    The state is part of a checkpoint, so a resumed run adds to the joules of the processes before it. If an interval
    cannot be read, the sum has no value. Call `poll` at least every ten minutes on a CPU, because the counters wrap.
    """

    def __init__(self) -> None:
        self.total, self.seconds, self.reason, self.source = 0.0, 0.0, "", ""

    def open(self, device: torch.device | str, count: int = 1) -> None:
        """Finds the counters of the processors, or of `count` GPUs, and makes the first reading."""
        if self.reason:
            return
        kind = torch.device(device).type
        try:
            if kind not in ("cpu", "cuda"):
                raise OSError(f"no energy counter for {kind}")
            if kind == "cuda":
                torch.cuda.synchronize()
            self.counter = Nvml(count) if kind == "cuda" else Rapl()
            if not self.source.endswith(self.counter.source):  # a resumed run may have other devices
                self.source = ", then ".join(filter(None, (self.source, self.counter.source)))
            self.when = "updates and what is between them" if kind == "cuda" else "updates only"
            self.last, self.read_at = self.counter.counters(), time.perf_counter()
        except UNREADABLE as error:
            self.reason = str(error)

    def skip(self) -> None:
        """Excludes the energy since the last reading."""
        self._read()

    def poll(self) -> None:
        """Adds the energy since the last reading."""
        if before := self._read():
            counters, time_before = before
            self.total += self.counter.joules(counters, self.last)
            self.seconds += self.read_at - time_before

    def _read(self) -> tuple[list[int], float] | None:
        """Reads the counters; returns the last reading and its time, or None if they cannot be read."""
        if self.reason:
            return None
        before = self.last, self.read_at
        try:
            self.last, self.read_at = self.counter.counters(), time.perf_counter()
        except UNREADABLE as error:
            self.reason = str(error)
            return None
        return before

    def measure(self) -> Measure:
        """The joules of all intervals."""
        if self.reason or not self.source:
            return Measure("energy_j", None, "J", provenance=f"not measured: {self.reason or 'nothing has been read'}")
        watts = self.total / max(self.seconds, 1e-9)
        provenance = f"{self.source}; {self.when}, {self.seconds:.1f} s, {watts:.1f} W on average"
        return Measure("energy_j", self.total, "J", provenance=provenance)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "seconds": self.seconds, "reason": self.reason, "source": self.source}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """None is the state of a run that began with a version without energy counters."""
        if state is None:
            state = {"total": 0.0, "reason": "the counters were not read when the run began", "source": ""}
        self.total, self.reason, self.source = state["total"], state["reason"], state["source"]
        self.seconds = state.get("seconds", 0.0)
