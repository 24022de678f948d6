"""The smallest equal search: four points for two rows on the corpus of tiny_job, executed by threads with fake jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import bench.runs.worker
from bench.experiment import tuned
from bench.sweep.run_sweep import SweepResult, run_sweep
from bench.sweep.settings import Sweep
from tests.helpers.threaded_workers import FakeJobs, ThreadBackend

ROWS = ("mlp", "perceptron")

TEXT = """
preset: demo
rows: [mlp, perceptron]
trials: 4
trial_pairs: 300
sampler: {{name: QMCSampler, settings: {{scramble: true}}}}
settings:
  corpus:
    name: files
    train: ["{folder}/train.en", "{folder}/train.de"]
    val: ["{folder}/val.en", "{folder}/val.de"]
    test: ["{folder}/test.en", "{folder}/test.de"]
  text: {{vocabulary_size: 90}}
  training:
    batch_pairs: 64
    label_smoothing: 0.1
    schedule: {{warmup: 0, hold: 0, decay: linear}}
space:
  training.optimizer.lr: {{low: 0.0005, high: 0.02, log: true}}
  training.schedule.warmup_share: {{low: 0.0, high: 0.3}}
  model.dropout: {{low: 0.0, high: 0.3}}
first: {{training.optimizer.lr: 0.003, training.schedule.warmup_share: 0.1, model.dropout: 0.1}}
"""


def write(folder: Path, name: str = "tune-demo", **replaced: str) -> Path:
    """Writes the file of the search. `replaced` are texts with __ for a space -> their replacements."""
    path, text = folder / f"{name}.yaml", TEXT.format(folder=folder)
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def use_folder(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Recipes and trials are read from and written to `folder`/tuned instead of experiments/tuned."""
    patch.setattr(tuned, "TUNED", folder / "tuned")


def search(
    path: Path,
    patch: pytest.MonkeyPatch,
    jobs: FakeJobs,
    rows: Sequence[str] = ROWS,
    runs: str = "runs",
    workers: int = 2,
    max_seconds: float | None = None,
) -> list[SweepResult]:
    """Runs the search of a file; its runs are in the folder `runs` beside the file."""
    patch.setattr(bench.runs.worker, "run", jobs.run)
    flags = [f"--tracking.folder={path.parent / runs}"]
    return run_sweep(path, Sweep.read(path), rows, "demo", flags, ThreadBackend(workers), max_seconds=max_seconds)
