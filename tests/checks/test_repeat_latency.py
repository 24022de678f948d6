"""`bench latency`: a finished run is timed again and again, and what differs is told from what is noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bench.evaluation.evaluate
from bench.cli.main import main
from bench.evaluation import trained_model
from bench.experiment.loading import resolve
from bench.measures.latency import LatencyBenchmark, Timing
from bench.runs.job import run
from bench.system.machine import MachineSettings
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("timing")
    tiny_job.write_corpus(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.evaluation.evaluate.latency, "measure", lambda *_: [])
        patch.setattr(bench.evaluation.evaluate.costs, "SIDE", 128)
        outcome = run(
            resolve(tiny_job.FILE, flags=tiny_job.flags(folder)),
            Store(TrackingSettings(None, str(folder / "runs"))),
            "runs",
        )
    assert outcome.run
    return outcome.run.id, folder


def pretended(
    medians: list[float], others: list[float], references: list[float]
) -> Callable[[LatencyBenchmark, float], Timing]:
    """The same milliseconds for every sentence of a measurement."""
    left = zip(medians, others, references, strict=True)

    def one_by_one(bench: LatencyBenchmark, seconds: float) -> Timing:
        assert len(bench.sources) == 12  # the whole test set
        milliseconds, share, reference_ms = next(left)
        return Timing(np.full((2, 36), milliseconds).tolist(), share, [reference_ms])

    return one_by_one


@pytest.mark.parametrize(
    ("medians", "others", "references", "verdict", "code"),
    [
        ([10.0, 10.4, 10.2], [0.0, 0.0, 0.0], [2.0, 3.0, 2.0], "within 5%", 0),
        ([10.0, 11.0, 10.2], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0], "APART", 1),
        ([10.0, 11.0, 10.2], [0.5, 0.5, 0.5], [2.0, 2.0, 2.0], "noisy", 0),
        ([10.0, 15.0, 10.2], [0.0, 0.5, 0.0], [2.0, 2.0, 2.0], "noisy", 0),
        ([10.0, 11.0, 20.0], [0.0, 0.0, 0.5], [2.0, 2.0, 2.0], "APART", 1),  # the quiet ones are apart as well
        ([10.0, 11.0, 10.2], [0.0, 0.0, 0.0], [2.0, 2.2, 2.0], "machine's pace", 0),
        ([10.0, 17.0, 10.2], [0.0, 0.0, 0.0], [2.0, 2.2, 2.0], "APART", 1),  # by more than the machine
    ],
)
def test_medians_agree_or_noise_says_why(
    finished: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    medians: list[float],
    others: list[float],
    references: list[float],
    verdict: str,
    code: int,
) -> None:
    monkeypatch.setattr(LatencyBenchmark, "one_by_one", pretended(medians, others, references))
    run_id, folder = finished
    assert main(["latency", run_id, "--tracking.folder", str(folder / "runs")]) == code
    printed = capsys.readouterr().out
    assert verdict in printed
    assert f"{medians[1]:.2f}" in printed
    assert f"reference work {references[1]:.2f} ms" in printed
    assert printed.count(f"other processes {max(others):.0%} of the cores") == others.count(max(others))


def test_a_real_one(finished: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run_id, folder = finished
    assert main(["latency", run_id, "--times", "2", "--tracking.folder", str(folder / "runs")]) in (0, 1)
    assert "transformer-base files-en-de demo s1, 2: " in capsys.readouterr().out
    assert main(["latency", run_id, "--times", "1", "--tracking.folder", str(folder / "runs")]) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_run_of_gpus_is_timed_where_there_are_none(
    finished: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = trained_model.load

    def of_gpus(store: Store, run_id: str) -> trained_model.TrainedTranslator:
        loaded = load(store, run_id)
        return replace(loaded, experiment=replace(loaded.experiment, machine=MachineSettings("gpu", devices=8)))

    monkeypatch.setattr(trained_model, "load", of_gpus)
    monkeypatch.setattr(LatencyBenchmark, "one_by_one", pretended([10.0] * 2, [0.0] * 2, [2.0] * 2))
    run_id, folder = finished
    assert main(["latency", run_id, "--times", "2", "--tracking.folder", str(folder / "runs")]) == 0
