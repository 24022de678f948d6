"""Joules: the difference of a counter that the hardware keeps, before and after.

GPU: NVML's total-energy counter (millijoules since the driver was loaded; Volta and later), summed over the visible
devices. CPU: RAPL's package counters, where Linux lets one read them. Both count the whole device, idle power and other
processes included, and not the rest of the machine. Errors: NVML is refreshed every 20 to 100 ms and is right to about
5 %; RAPL is a model on some processors. What cannot be read is None with the reason, never 0.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import torch

from bench.measures import Measure

RAPL = Path("/sys/class/powercap")


class Rapl:
    """Package domains of Intel's running average power limit (AMD's too): microjoules, wrapping at a range."""

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
        """A counter that fell has wrapped once; `Energy.poll` must come before it wraps twice."""
        steps = zip(before, after, self.ranges, strict=True)
        return sum((new - old) % (top + 1) for old, new, top in steps) / 1e6


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


class Nvml:
    """NVML's counters of all CUDA devices that this process sees, found by their UUID."""

    def __init__(self) -> None:
        try:
            self.nvml: Any = importlib.import_module("pynvml")
        except ImportError as error:
            raise OSError("NVML needs the extra `gpu`: pip install attention-ladder[gpu]") from error
        try:
            self.nvml.nvmlInit()
            uuids = [torch.cuda.get_device_properties(n).uuid for n in range(torch.cuda.device_count())]
            self.handles = [self.nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}") for uuid in uuids]
        except self.nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error
        self.source = f"NVML total-energy counter, {len(self.handles)} devices"

    def counters(self) -> list[int]:
        try:
            return [self.nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in self.handles]
        except self.nvml.NVMLError as error:  # a MIG slice has no counter of its own, older cards none at all
            raise OSError(f"NVML: {error}") from error

    def joules(self, before: list[int], after: list[int]) -> float:
        return sum(new - old for old, new in zip(before, after, strict=True)) / 1e3


class Energy:
    """Joules since it was made, on the processors of one kind.

    `poll` adds what the counters have gained; call it at least every ten minutes on a CPU, where they wrap.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.begin, self.total, self.reason = time.perf_counter(), 0.0, ""
        kind = torch.device(device).type
        try:
            if kind not in ("cpu", "cuda"):
                raise OSError(f"no energy counter for {kind}")
            if kind == "cuda":
                torch.cuda.synchronize()
            self.meter = Nvml() if kind == "cuda" else Rapl()
            self.last = self.meter.counters()
        except OSError as error:
            self.reason = str(error)

    def poll(self) -> None:
        if self.reason:
            return
        try:
            now = self.meter.counters()
        except OSError as error:
            self.reason = str(error)
            return
        self.total += self.meter.joules(self.last, now)
        self.last = now

    def measure(self, metric: str = "energy_j") -> Measure:
        """Joules until now."""
        self.poll()
        if self.reason:
            return Measure(metric, None, "J", recipe=f"not measured: {self.reason}")
        seconds = time.perf_counter() - self.begin
        recipe = f"{self.meter.source}; {seconds:.1f} s, {self.total / max(seconds, 1e-9):.1f} W on average"
        return Measure(metric, self.total, "J", recipe=recipe)
