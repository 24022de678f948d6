"""What a process is told of the machine that it runs on."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bench.experiment.loading import architectures, resolve
from bench.runs.worker_pool import LocalBackend, LocalProcess


@pytest.mark.parametrize(
    ("gpus", "named", "count", "said"),
    [
        (1, None, 1, ["0 1"]),
        (1, None, 3, ["0 0.333"] * 3),
        (4, None, 2, ["0,1 1", "2,3 1"]),  # for one job on two GPUs
        (3, None, 2, ["0 1", "1 1"]),  # one is left over
        (2, None, 3, ["0 0.5", "1 1", "0 0.5"]),  # two of them alone do not meet
        (2, "GPU-5a, GPU-7c", 2, ["GPU-5a 1", "GPU-7c 1"]),
        (2, "3,1,-1,0", 2, ["3 1", "1 1"]),  # CUDA reads as far as the first that is not there
    ],
)
def test_workers_are_dealt_out_over_gpus(
    gpus: int, named: str | None, count: int, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    else:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    told = [LocalBackend(count).gpu_variables(slot) for slot in range(count)]
    assert [f"{one['CUDA_VISIBLE_DEVICES']} {one['BENCH_GPU_SHARE']}" for one in told] == said


def test_more_gpus_than_a_worker_has_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    path = architectures()["mlp"]
    on_gpus, on_cores = (
        resolve(path, flags=["--machine.devices", "2", "--machine.accelerator", kind]) for kind in ("gpu", "cpu")
    )
    LocalBackend(2).check([on_gpus])
    LocalBackend(3).check([on_cores])
    with pytest.raises(ValueError, match=r"machine\.devices: 2 GPUs were requested, but each of 3 workers has 1 of 4"):
        LocalBackend(3).check([on_cores, on_gpus])


TELL = """
import os, sys, time
names = ("BENCH_SIBLINGS", "CUDA_VISIBLE_DEVICES", "BENCH_GPU_SHARE")
print(*(os.environ.get(name, "none") for name in names), file=open(sys.argv[1], "w"))
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(("gpus", "said"), [(0, "1 none none"), (2, "1 1 1")])
def test_a_worker_that_replaces_another_takes_its_gpu(
    gpus: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    for variable in ("CUDA_VISIBLE_DEVICES", "BENCH_GPU_SHARE"):
        monkeypatch.delenv(variable, raising=False)

    def start(name: str, seconds: int) -> LocalProcess:
        process = here.start([sys.executable, "-c", TELL, str(tmp_path / name), str(seconds)], {})
        assert isinstance(process, LocalProcess)
        return process

    here = LocalBackend(2)
    first, second = start("first", 60), start("second", 60)
    second.kill()
    third = start("third", 0)
    assert third.process.wait() == 0
    assert (tmp_path / "third").read_text().strip() == said
    first.kill()


FREED_AND_ASKED_AGAIN = """
import resource, sys
from bench.machine import Machine
import torch

def update() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(2**18) for _ in range(20)]
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with Machine(threads=1).ready():
    for _ in range(3):
        update()  # the heap grows to what is needed
    faults = [update() for _ in range(5)]
print(faults)
sys.exit(sum(faults) > 1000)  # 20 MiB are 5,120 pages, in each of five
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_an_update_frees_is_there_for_the_next() -> None:
    ran = subprocess.run([sys.executable, "-c", FREED_AND_ASKED_AGAIN], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


FROZEN = """
import gc, weakref
from bench.machine import Machine

class Model:
    def __init__(self) -> None:
        self.trainer = self

with Machine(threads=1).ready():
    frozen, seen = gc.get_freeze_count(), len(gc.get_objects())
model = weakref.ref(Model())
with Machine(threads=1).ready():  # the next job's
    gc.collect()
print(frozen, seen, model())
assert frozen > 100_000  # torch alone is more
assert seen < frozen / 10
assert model() is None
"""


def test_the_collector_leaves_imports_alone_and_takes_what_a_job_has_left() -> None:
    ran = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
