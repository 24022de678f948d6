"""The validation loss with label smoothing, and its lower bound."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from bench.checks.smoothed_loss import entropy, lines
from bench.experiment.loading import resolve
from bench.runs.job import run
from bench.tracking.store import Store
from tests.helpers import tiny_job
from tests.helpers.synthetic_runs import quiet_mlflow

pytestmark = [*quiet_mlflow]


@pytest.mark.parametrize(("smoothing", "pieces"), [(0.1, 1000), (0.1, 5), (0.3, 8)])
def test_the_entropy_is_the_smoothed_loss_of_the_best_prediction(smoothing: float, pieces: int) -> None:
    best = torch.full((1, pieces), smoothing / pieces, dtype=torch.float64)
    best[0, 2] += 1 - smoothing
    label = torch.tensor([2])
    lowest = functional.cross_entropy(best.log(), label, label_smoothing=smoothing).item()
    assert entropy(smoothing, pieces) == pytest.approx(lowest, rel=1e-12)
    more_certain = (best.log() * 1.1).log_softmax(1)
    assert functional.cross_entropy(more_certain, label, label_smoothing=smoothing).item() > lowest
    assert functional.cross_entropy(more_certain, label) < functional.cross_entropy(best.log(), label)


def test_without_smoothing_the_bound_is_0() -> None:
    assert entropy(0.0, 1000) == 0
    assert entropy(1e-9, 1000) == pytest.approx(0, abs=1e-6)


def test_each_finished_run_has_a_line(tmp_path: Path) -> None:
    tiny_job.write_corpus(tmp_path)
    settings = tiny_job.flags(tmp_path, **{"training.label_smoothing": 0.1, "tracking.folder": tmp_path / "runs"})
    experiment = resolve(tiny_job.FILE, flags=settings)
    run(experiment, Store(experiment.tracking), "tiny")
    (line,) = lines(str(tmp_path / "runs"), "tiny")
    (stored,) = Store(experiment.tracking).runs("tiny")
    assert float(str(line["loss"])) == pytest.approx(stored.metrics["validation_loss"], rel=1e-4)
    assert float(str(line["smoothed_loss"])) > float(str(line["entropy"])) > 0
