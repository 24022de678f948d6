"""The GPUs and the memory of the processes on a machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bench.experiment.loading import resolve, row_files
from bench.runs.worker_backend import LocalBackend, LocalProcess


@pytest.mark.parametrize(
    ("gpus", "visible", "count", "expected"),
    [
        (1, None, 1, ["0 1"]),
        (1, None, 3, ["0 0.333"] * 3),
        (4, None, 2, ["0,1 1", "2,3 1"]),  # a job can use both GPUs of its worker
        (3, None, 2, ["0 1", "1 1"]),  # one GPU is not used
        (2, None, 3, ["0 0.5", "1 1", "0 0.5"]),  # the first two workers have different GPUs
        (2, "GPU-5a, GPU-7c", 2, ["GPU-5a 1", "GPU-7c 1"]),
        (2, "3,1,-1,0", 2, ["3 1", "1 1"]),  # CUDA ignores the list from the first invalid entry on
    ],
)
def test_workers_are_distributed_over_gpus(
    gpus: int, visible: str | None, count: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    else:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    variables = [LocalBackend(count).gpu_variables(slot) for slot in range(count)]
    assert [f"{one['CUDA_VISIBLE_DEVICES']} {one['BENCH_GPU_SHARE']}" for one in variables] == expected


def test_a_job_with_more_gpus_than_a_worker_has_is_rejected_before_any_job_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    path = row_files()["mlp"]
    on_gpus, on_cores = (
        resolve(path, flags=["--machine.devices", "2", "--machine.accelerator", kind]) for kind in ("gpu", "cpu")
    )
    LocalBackend(2).check([on_gpus])
    LocalBackend(3).check([on_cores])
    with pytest.raises(ValueError, match=r"machine\.devices: 2 GPUs were requested, but each of 3 workers has 1 of 4"):
        LocalBackend(3).check([on_cores, on_gpus])


WRITE_VARIABLES = """
import os, sys, time
names = ("BENCH_SIBLINGS", "CUDA_VISIBLE_DEVICES", "BENCH_GPU_SHARE")
print(*(os.environ.get(name, "none") for name in names), file=open(sys.argv[1], "w"))
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(("gpus", "expected"), [(0, "1 none none"), (2, "1 1 1")])
def test_a_worker_that_replaces_another_gets_its_gpu(
    gpus: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    for variable in ("CUDA_VISIBLE_DEVICES", "BENCH_GPU_SHARE"):
        monkeypatch.delenv(variable, raising=False)

    def start(name: str, seconds: int) -> LocalProcess:
        process = backend.start([sys.executable, "-c", WRITE_VARIABLES, str(tmp_path / name), str(seconds)], {})
        assert isinstance(process, LocalProcess)
        return process

    backend = LocalBackend(2)
    first, second = start("first", 60), start("second", 60)
    second.kill()
    third = start("third", 0)
    assert third.process.wait() == 0
    assert (tmp_path / "third").read_text().strip() == expected
    first.kill()


COUNT_PAGE_FAULTS = """
import resource, sys
from bench.system.machine import MachineSettings
import torch

def update() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**18) for _ in range(20)] + [torch.ones(2**24)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with MachineSettings(threads=1).applied():
    for _ in range(3):
        update()  # the heap grows to the size that is needed
    faults = [update() for _ in range(5)]
print(faults)
sys.exit(sum(faults) > 1000)  # 20 blocks of 1 MiB and one of 64 are 21,504 pages in each of the five updates
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_freed_by_an_update_is_kept_for_the_next() -> None:
    ran = subprocess.run([sys.executable, "-c", COUNT_PAGE_FAULTS], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


MEASURE_RELEASED_MEMORY = """
import psutil, torch
from bench.system.machine import keep_freed_memory, release_memory

def resident() -> int:
    return psutil.Process().memory_info().rss // 2**20

keep_freed_memory()
before = resident()
blocks = [torch.ones(2**18) for _ in range(400)]  # 1 MiB each
last = torch.ones(2**18)  # above them in the heap
del blocks
kept = resident() - before
release_memory()
print(kept, resident() - before)
assert kept > 350
assert resident() - before < 100
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_a_finished_job_keeps_no_memory() -> None:
    ran = subprocess.run([sys.executable, "-c", MEASURE_RELEASED_MEMORY], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


COUNT_COLLECTED_OBJECTS = """
import gc, weakref
from bench.system.machine import MachineSettings

class Model:
    def __init__(self) -> None:
        self.trainer = self

with MachineSettings(threads=1).applied():
    frozen, tracked = gc.get_freeze_count(), len(gc.get_objects())
model = weakref.ref(Model())
with MachineSettings(threads=1).applied():  # as for the next job
    gc.collect()
print(frozen, tracked, model())
assert frozen > 100_000  # torch alone has more
assert tracked < frozen / 10
assert model() is None
"""


def test_the_garbage_collector_skips_imports_and_collects_the_objects_of_a_job() -> None:
    ran = subprocess.run([sys.executable, "-c", COUNT_COLLECTED_OBJECTS], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
