"""What a process is told of the machine that it runs on."""

from __future__ import annotations

import sys

from bench.workers import Here, Popen


def test_a_worker_knows_how_many_share_its_machine() -> None:
    process = Here(3).start([sys.executable, "-c", "import os; exit(int(os.environ['BENCH_SIBLINGS']))"], {})
    assert isinstance(process, Popen)
    process.process.wait()
    assert process.ended() == "exit code 2"
