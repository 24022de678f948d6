"""`bench latency`: a finished run is timed several times, and differences are attributed to noise where possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bench.checks.repeat_latency
from bench.cli.main import main
from bench.evaluation import trained_model
from bench.experiment.loading import resolve
from bench.measures.latency import LatencyBenchmark, Timing
from bench.runs.job import run
from bench.system.machine import MachineSettings
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import quick_evaluation, tiny_job


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("timing")
    tiny_job.write_corpus(folder)
    with quick_evaluation.without_timings():
        outcome = run(
            resolve(tiny_job.FILE, flags=tiny_job.flags(folder)),
            Store(TrackingSettings(None, str(folder / "runs"))),
            "runs",
        )
    assert outcome.run
    return outcome.run.id, folder


def fake_timing(
    medians: list[float], others: list[float], references: list[float]
) -> Callable[[LatencyBenchmark, float], Timing]:
    """Replaces the measurement: every sentence takes the same time."""
    remaining = zip(medians, others, references, strict=True)

    def time_single_sentences(bench: LatencyBenchmark, seconds: float) -> Timing:
        assert len(bench.sources) == 12  # the whole test set
        time_ms, share, reference_ms = next(remaining)
        return Timing(np.full((2, 36), time_ms).tolist(), share, [reference_ms])

    return time_single_sentences


@pytest.mark.parametrize(
    ("medians", "others", "references", "verdict", "code"),
    [
        ([10.0, 10.4, 10.2], [0.0, 0.0, 0.0], [2.0, 3.0, 2.0], "within 5%", 0),
        ([10.0, 11.0, 10.2], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0], "APART", 1),
        ([10.0, 11.0, 10.2], [0.5, 0.5, 0.5], [2.0, 2.0, 2.0], "noisy", 0),
        ([10.0, 15.0, 10.2], [0.0, 0.5, 0.0], [2.0, 2.0, 2.0], "noisy", 0),
        ([10.0, 11.0, 20.0], [0.0, 0.0, 0.5], [2.0, 2.0, 2.0], "APART", 1),  # the quiet ones differ as well
        ([10.0, 11.0, 10.2], [0.0, 0.0, 0.0], [2.0, 2.2, 2.0], "machine's pace", 0),
        ([10.0, 17.0, 10.2], [0.0, 0.0, 0.0], [2.0, 2.2, 2.0], "APART", 1),  # more than the machine's pace
    ],
)
def test_differences_of_medians_are_attributed_to_noise_where_possible(
    finished_run: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    medians: list[float],
    others: list[float],
    references: list[float],
    verdict: str,
    code: int,
) -> None:
    monkeypatch.setattr(LatencyBenchmark, "time_single_sentences", fake_timing(medians, others, references))
    run_id, folder = finished_run
    assert main(["latency", run_id, "--tracking.folder", str(folder / "runs")]) == code
    printed = capsys.readouterr().out
    assert verdict in printed
    assert f"{medians[1]:.2f}" in printed
    assert f"reference work {references[1]:.2f} ms" in printed
    assert printed.count(f"other processes {max(others):.0%} of the cores") == others.count(max(others))


def test_a_real_measurement(
    finished_run: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench.checks.repeat_latency, "SECONDS", 0.3)
    run_id, folder = finished_run
    assert main(["latency", run_id, "--times", "2", "--tracking.folder", str(folder / "runs")]) in (0, 1)
    assert "Transformer (base) en-de s1, 2: " in capsys.readouterr().out
    assert main(["latency", run_id, "--times", "1", "--tracking.folder", str(folder / "runs")]) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_run_from_gpus_is_timed_on_a_machine_without_gpus(
    finished_run: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = trained_model.load

    def from_gpus(store: Store, run_id: str) -> trained_model.TrainedTranslator:
        loaded = load(store, run_id)
        return replace(loaded, experiment=replace(loaded.experiment, machine=MachineSettings("gpu", devices=8)))

    monkeypatch.setattr(trained_model, "load", from_gpus)
    monkeypatch.setattr(LatencyBenchmark, "time_single_sentences", fake_timing([10.0] * 2, [0.0] * 2, [2.0] * 2))
    run_id, folder = finished_run
    assert main(["latency", run_id, "--times", "2", "--tracking.folder", str(folder / "runs")]) == 0
