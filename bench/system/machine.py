"""Where a run computes: device, threads, how often it saves; and what is noted of it beside a run."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

SIBLINGS = "BENCH_SIBLINGS"
"""The environment variable in which a driver tells its workers how many others there are on their machine."""

GPU_SHARE = "BENCH_GPU_SHARE"
"""The environment variable in which a driver tells its workers what part of a GPU, if there is one, is theirs."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES, LARGE_BYTES = 2**31 - 1, 2**25
"""The most that is kept at the top of the heap, and from where a block is mapped alone: glibc allows no more."""


@dataclass
class MachineSettings:
    """Where to compute. Not part of a job's identity.

    Attributes:
        accelerator: cpu, gpu, or auto: a GPU if there is one.
        devices: Devices of one run on each machine, a process each (on the CPU: processes); more than one trains with
            Lightning's distributed data parallel, and each batch is split over them.
        num_nodes: Machines of one run; the same command runs on each (docs/clusters.md).
        threads: Threads of one run on the CPU, shared by its processes; null for all cores.
        checkpoint_seconds: Seconds between two checkpoints; one is also written at every validation.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    threads: int | None = None
    checkpoint_seconds: float = 60.0

    @property
    def device(self) -> torch.device:
        gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        return torch.device("cuda" if gpu else "cpu")

    @property
    def processes(self) -> int:
        """Of one run, over all machines."""
        return self.devices * self.num_nodes

    @property
    def node(self) -> int:
        """Which machine of a run on several this is; machine 0 leads."""
        return int(os.environ.get("NODE_RANK", "0")) if self.num_nodes > 1 else 0

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Sets the threads of this process for the length of a run, and that fp32 is fp32 on a GPU.

        cuDNN alone rounds to TF32 unless it is told not to: convolutions and recurrent layers would be computed
        otherwise than the products of other rows.

        Raises:
            ValueError: a GPU was asked for and there is none, or not so many.
        """
        for name in ("devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"machine.{name}: {getattr(self, name)} is too small; at least 1")
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError("machine.accelerator: no GPU is visible to torch; set machine.accelerator to cpu")
        if self.device.type == "cuda" and self.devices > torch.cuda.device_count():
            there = torch.cuda.device_count()
            raise ValueError(f"machine.devices: {self.devices} GPUs were asked for and torch sees {there}")
        keep_freed_memory()
        freeze_imports()
        before, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
        torch.set_num_threads(max(1, (self.threads or available_cores()) // self.devices))
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.backends.cudnn.allow_tf32 = tf32


def keep_freed_memory() -> None:
    """Has glibc keep what is freed for the next allocation; for the rest of the process.

    It gives free memory at the top of its heap back to the kernel, and the next update asks for it again, page by page:
    a tenth of a small model's time (DECISIONS.md, 2026-11-25). Nothing is done where there is no `mallopt`.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_TRIM_THRESHOLD, KEPT_BYTES), (M_MMAP_THRESHOLD, LARGE_BYTES)):
            mallopt(parameter, value)


@functools.cache
def freeze_imports() -> None:
    """Takes what this process has imported out of the garbage collector's rounds; once.

    They are half a million objects, which stay to the end and took each of a job's five rounds half a second.
    """
    gc.freeze()


def siblings() -> int:
    """How many other workers of the same driver share this machine."""
    return int(os.environ.get(SIBLINGS, "0"))


@contextlib.contextmanager
def bf16_fallback(device: torch.device, wanted: bool = True) -> Iterator[None]:
    """What products in bf16 need of a processor.

    oneDNN's recurrent layers refuse bf16 where there is no AVX-512; PyTorch's own take it, so oneDNN is left out there.
    """
    if wanted and device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        (before, *_) = torch.backends.mkldnn.set_flags(False)
        try:
            yield
        finally:
            torch.backends.mkldnn.set_flags(before)
    else:
        yield


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes (numbers or UUIDs)."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in named.split(",")][:count] if named else [str(n) for n in range(count)]


def environment_tags(device: torch.device) -> dict[str, str]:
    """What must be known to repeat a run on `device` beside its configuration: commit, versions, hardware, threads."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    packages = ("torch", "pytorch-lightning", "mlflow", "optuna", "sacrebleu", "sentencepiece", "pandas")
    return {
        "mlflow.source.git.commit": git("rev-parse", "HEAD"),
        "git.dirty": str(bool(git("status", "--porcelain", "--untracked-files=no"))).lower(),
        "python": platform.python_version(),
        **{f"version.{package}": version(package) for package in packages},
        "hardware.cpu": _cpu_name(),
        "hardware.cores": str(os.cpu_count()),
        "hardware.gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "none",
        "hardware.gpu_share": os.environ.get(GPU_SHARE, "1") if device.type == "cuda" else "none",
        "threads": str(torch.get_num_threads()),
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
