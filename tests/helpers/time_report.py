"""Prints the time of a report of 500 runs, from the start of the command to the last file, and the size of its page.

    python -m tests.helpers.time_report

It asserts no speed, because speed depends on the machine. The runs have 20 rows, 5 directions and 5 seeds; they are
synthetic (40 sentences), with learning curves of 200 validations each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import Synthetic
from tests.helpers.tracking_folder import new_store

ROWS, DIRECTIONS, SEEDS = 20, ("en-de", "en-fr", "de-en", "fr-en", "en-ko"), 5


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = new_store(folder)
        runs = [
            Synthetic(f"row{n}", f"Row {n}", 1998 + n, 2 + n, 1e12 * (n + 1), seed, f"toy-{direction}", validations=200)
            for direction in DIRECTIONS
            for n in range(ROWS)
            for seed in range(1, SEEDS + 1)
        ]
        synthetic_runs.suite(store, "large", runs, ",".join(f"row{n}" for n in range(ROWS)), f"row{ROWS - 1}")
        command = [str(Path(sys.executable).parent / "bench"), "report", "--suite", "large"]
        command += ["--tracking.uri", store.uri, "--out", str(folder / "report")]
        begin = time.perf_counter()
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begin
        assert done.returncode == 0, done.stderr
        size = (folder / "report" / "report.html").stat().st_size / 1e6
        times = os.times()
        processor_seconds = times.children_user + times.children_system
        load = os.getloadavg()[0]
        print(
            f"{len(runs)} runs: {seconds:.1f} s, {processor_seconds:.1f} s of processor time; "
            f"page {size:.2f} MB; load of the machine {load:.1f} on {os.cpu_count()} cores"
        )


if __name__ == "__main__":
    main()
