"""The time from the command to the first update: how long `bench run` loads, reads and prepares.

Every sample is a new process, so libraries are imported each time. One process before them fills the cache of the
operating system, the encoded corpus and the vocabularies, so the samples are those of a second run.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from bench.experiment.loading import row_files
from bench.measures.latency import OtherProcesses
from bench.speed.figure import Figure, Measure, Measurement

SAMPLES = 3

FIRST_UPDATE = """
import os, sys, time
began = float(sys.argv.pop(1))
from torch import float64
from torch.optim.optimizer import register_optimizer_step_post_hook

def end(optimizer, args, kwargs):
    if optimizer.param_groups[0]["params"][0].dtype != float64:  # those are the updates of the tag `first_losses`
        sys.stderr.write(f"\\nfirst update after {time.time() - began} s\\n")
        sys.stderr.flush()
        os._exit(0)

register_optimizer_step_post_hook(end)
from bench.cli.main import main
sys.exit(main())
"""
"""A program that executes `bench`, prints the seconds at the end of the first update of a run, and ends there."""

IMPORTS = "import bench.cli.main, bench.runs.job, bench.tracking.store, os; os._exit(0)"
"""A program that only imports what a run imports. Like the other, it does not free its memory at the end."""


@contextlib.contextmanager
def prepared(row: str, preset: str, flags: Sequence[str]) -> Iterator[Measure]:
    """The function that measures the start of a row's run. Its store is a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bench-speed-") as folder:
        command = ["run", str(row_files()[row]), "--row", row, "--preset", preset, "--again"]
        command += flags  # of a setting the last value counts, so the unfinished runs stay out of the user's store
        command += ["--tracking.folder", folder, "--tracking.uri", f"sqlite:///{folder}/mlflow.db"]

        def first_update_s() -> float:
            done = _finished([FIRST_UPDATE, str(time.time()), *command])
            lines = [line for line in done.stderr.splitlines() if line.startswith("first update after")]
            if not lines:
                last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
                raise ValueError(f"{row}: the run ended before its first update: {last}")
            return float(lines[-1].split()[-2])

        def import_s() -> float:
            began = time.time()
            _finished([IMPORTS])
            return time.time() - began

        first_update_s()

        def measure(seconds: float) -> Measurement:
            imports, updates = list[float](), list[float]()
            others, began = OtherProcesses(), time.perf_counter()
            while len(updates) < SAMPLES or time.perf_counter() - began < seconds:
                imports.append(import_s())
                updates.append(first_update_s())
            share = others.share(time.perf_counter() - began)
            return Measurement([Figure("import_s", imports), Figure("first_update_s", updates)], share)

        yield measure


def _finished(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL, check=False
    )
