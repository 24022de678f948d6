"""Settings of the machine that a run computes on: device, processes, threads."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import psutil
import torch

SIBLINGS = "BENCH_SIBLINGS"
"""Environment variable: the number of other workers on the same machine. The driver sets it for its workers."""

GPU_SHARE = "BENCH_GPU_SHARE"
"""Environment variable: the fraction of a GPU that a worker has. The driver sets it for its workers."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of mallopt, from malloc.h

TRIM_THRESHOLD_BYTES = 2**31 - 1
"""Free memory that glibc keeps at the top of the heap. This is the largest value that glibc accepts."""

MMAPPED_BLOCKS = 0
"""Number of large blocks that glibc maps on their own instead of taking them from the heap."""


@dataclass
class MachineSettings:
    """Where a run computes. These settings are not part of a job's identity.

    Attributes:
        accelerator: cpu, gpu, or auto, which takes a GPU if there is one.
        devices: Devices of one run on each machine, with one process each (on the CPU: number of processes). More than
            one trains with Lightning's distributed data parallel, which splits each batch over them.
        num_nodes: Machines of one run. The same command runs on each of them (docs/clusters.md).
        threads: CPU threads of one run on each machine, shared by its processes; null for all cores.
        checkpoint_seconds: Seconds between two checkpoints. One is also written at every validation.
        cuda_graphs: On one GPU: record the kernels of an update for each shape of a batch and launch them all at once,
            for small models that are limited by the launches (docs/gpu.md).
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    threads: int | None = None
    checkpoint_seconds: float = 60.0
    cuda_graphs: bool = False

    @property
    def device(self) -> torch.device:
        gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        return torch.device("cuda" if gpu else "cpu")

    @property
    def processes(self) -> int:
        """Number of processes of one run on all machines."""
        return self.devices * self.num_nodes

    @property
    def node(self) -> int:
        """Number of this machine among those of the run, from 0. Process 0 runs on machine 0."""
        return int(os.environ.get("NODE_RANK", "0")) if self.num_nodes > 1 else 0

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the settings to this process for the length of the block.

        Sets the number of threads, and turns off TF32 on a GPU. cuDNN uses TF32 by default, so that convolutions and
        recurrent layers would be computed with less precision than the matrix products of other rows.

        Raises:
            ValueError: a GPU is required and there is none, or there are too few GPUs.
        """
        for name in ("devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"machine.{name}: {getattr(self, name)} is too small; at least 1")
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError("machine.accelerator: gpu is set, but no GPU is visible to torch; set it to cpu or auto")
        if self.cuda_graphs and self.device.type != "cuda":
            raise ValueError("machine.cuda_graphs: true needs a GPU, and this run is on the CPU; set it to false")
        if self.cuda_graphs and self.processes > 1:
            raise ValueError(
                f"machine.cuda_graphs: true needs one process, and this run has {self.processes}; set it to false, or "
                "machine.devices and machine.num_nodes to 1"
            )
        if self.device.type == "cuda" and self.devices > torch.cuda.device_count():
            available = torch.cuda.device_count()
            raise ValueError(
                f"machine.devices: {self.devices} GPUs were requested; torch sees {available}, set at most that number"
            )
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
    """Let glibc keep freed memory for the next allocation, for the rest of the process.

    By default glibc returns free memory at the top of its heap to the kernel, and every large block, such as the logits
    of a batch, and the next update requests it again, page by page. This took a tenth of the time of a small model
    (DECISIONS.md, 2026-11-25). Without `mallopt` (other C libraries) this does nothing.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES), (M_MMAP_MAX, MMAPPED_BLOCKS)):
            mallopt(parameter, value)


def release_memory() -> None:
    """Return unused memory of this process, on the host and on the GPU, so that a finished job keeps none of it.

    glibc would keep it all (`keep_freed_memory`), and jobs of different sizes leave gaps that others cannot use.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def freeze_imports() -> None:
    """Exclude all objects that exist now, mainly imported modules, from garbage collection; once per process.

    They are half a million objects that live until the end. Each of a job's five full collections took half a second.
    """
    gc.freeze()


def siblings() -> int:
    """Return the number of other workers of the same driver on this machine."""
    return int(os.environ.get(SIBLINGS, "0"))


@contextlib.contextmanager
def bf16_fallback(device: torch.device, uses_bf16: bool = True) -> Iterator[None]:
    """Turn off oneDNN for the length of the block if it cannot compute bf16 on this CPU.

    Without AVX-512, oneDNN's recurrent layers refuse bf16. PyTorch's own recurrent layers accept it.
    """
    if uses_bf16 and device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        (before, *_) = torch.backends.mkldnn.set_flags(False)
        try:
            yield
        finally:
            torch.backends.mkldnn.set_flags(before)
    else:
        yield


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds_since_start() -> float:
    """Return the seconds since this process was started. After all imports: about what the start of a worker takes."""
    return max(0.0, time.time() - psutil.Process().create_time())


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them (numbers or UUIDs)."""
    count, names = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in names.split(",")][:count] if names else [str(n) for n in range(count)]
