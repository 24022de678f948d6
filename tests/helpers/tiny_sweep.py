"""The smallest sweep: a few trials of the MLP on the corpus of tiny_job, executed by threads with fake jobs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import bench.experiment.loading
import bench.runs.worker
from bench.experiment.spec import Experiment
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.sweep.run_sweep import SweepResult, run_sweep
from bench.sweep.settings import Sweep
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job
from tests.helpers.threaded_workers import FakeJobs, ThreadBackend


@contextlib.contextmanager
def cached_parsing() -> Iterator[None]:
    """While the block runs, each file of experiments/ is read once and each parser is built once, which saves time."""
    read = bench.experiment.loading.read_yaml
    read_once = functools.lru_cache(read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            bench.experiment.loading,
            "read_yaml",
            lambda path: (read_once if path.parent == EXPERIMENTS else read)(path),
        )
        patch.setattr(
            bench.experiment.loading, "settings_parser", functools.lru_cache(bench.experiment.loading.settings_parser)
        )
        yield


def write_sweep(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def flags(folder: Path) -> list[str]:
    """Flags of the jobs: the corpus in `folder`, a budget of 300 sentence pairs, tracked in `folder`/runs."""
    settings = {"text.vocabulary_size": 90, "training.max_pairs": 300, "tracking.folder": folder / "runs"}
    return tiny_job.corpus_flags(folder) + [f"--{key}={value}" for key, value in settings.items()]


def sweep(
    folder: Path,
    patch: pytest.MonkeyPatch,
    jobs: FakeJobs,
    text: str = "trials: 4",
    rows: tuple[str, ...] = ("mlp",),
    workers: int = 2,
    max_seconds: float | None = None,
    more_flags: Sequence[str] = (),
) -> list[SweepResult]:
    """Runs a sweep whose file has this text."""
    patch.setattr(bench.runs.worker, "run", jobs.run)
    path = write_sweep(folder, text)
    return run_sweep(
        path,
        Sweep.read(path),
        rows,
        "demo",
        [*flags(folder), *more_flags],
        ThreadBackend(workers),
        max_seconds=max_seconds,
    )


def store(folder: Path) -> Store:
    return Store(TrackingSettings(None, str(folder / "runs")))


def trial_runs(folder: Path, result: SweepResult) -> list[TrackedRun]:
    """The MLflow runs of the jobs of a study, in the order of their trial numbers."""
    return sorted(store(folder).trials("sweep", result.study.name), key=lambda run: int(run.tags["trial"]))


def better_with_smaller_lr(experiment: Experiment) -> list[float]:
    """Validations of a job whose BLEU is higher with a smaller learning rate."""
    best = 40 - 1000 * experiment.training.optimizer.lr
    return [best / 3, best / 2, best]
