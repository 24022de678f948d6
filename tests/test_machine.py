"""What a process is told of the machine that it runs on."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bench.workers import Here, Popen


@pytest.mark.parametrize(("count", "said"), [(1, "0 1"), (3, "2 0.333")])
def test_a_worker_knows_how_many_share_its_machine(count: int, said: str, tmp_path: Path) -> None:
    tell = "import os, sys; open(sys.argv[1], 'w').write('{BENCH_SIBLINGS} {BENCH_GPU_SHARE}'.format(**os.environ))"
    process = Here(count).start([sys.executable, "-c", tell, str(tmp_path / "said")], {})
    assert isinstance(process, Popen)
    assert process.process.wait() == 0
    assert (tmp_path / "said").read_text() == said


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
