"""`kill -9` of the real command at any moment, then the same command: to the bit what an undisturbed run gives.

Where it is killed is decided from outside, by what the process has written so far and a random delay: at start-up, in
training, in a validation, while a checkpoint is written, just after, and while it is judged.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings

pytestmark = pytest.mark.journey

BENCH = Path(sys.executable).with_name("bench")
EXPERIMENT = Path(__file__).parents[2] / "experiments" / "transformer.yaml"
GRAMMAR = ("--corpus.name", "grammar-en-de", "--corpus.pairs", "600")
SETTINGS = {
    "text.vocabulary_size": 300,
    "model.width": 32,
    "model.inner": 64,
    "model.layers": 1,
    "model.heads": 2,
    "model.dropout": 0.2,
    "training.max_pairs": "null",
    "training.max_updates": 200,
    "training.batch_tokens": 600,
    "training.validations": 5,
    "training.average": 2,  # so that each validation writes weights, which is how it is seen from outside
    "decoding.beam": 1,
    "decoding.extra_length": 3,
    "machine.threads": 1,
    "machine.checkpoint_seconds": 0.5,
    "machine.accelerator": "cpu",
}
SAME = ("updates", "pairs", "train_flops", "executed_flops", "best_update", "test/bleu", "validation_loss")

Reached = Callable[[Path], bool]


def begin(folder: Path, *flags: str) -> subprocess.Popen[str]:
    settings = [f"--{key}={value}" for key, value in SETTINGS.items()]
    command = [BENCH, "run", EXPERIMENT, *settings, "--tracking.folder", folder, *flags]
    return subprocess.Popen(
        command,
        env={key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed


def end(process: subprocess.Popen[str], number: signal.Signals, when: Callable[[], bool], delay: float) -> bool:
    """Sends the signal some seconds after `when` holds; False if the process was faster."""
    while process.poll() is None and not when():
        time.sleep(0.0005)
    time.sleep(delay)
    if process.poll() is None:
        process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (0, -number, 128 + number)
    return process.returncode != 0


def newest(folder: Path, pattern: str) -> int:
    """When a file of this pattern was written last, in nanoseconds; 0 if there is none."""
    times = [0]
    for path in folder.glob(pattern):
        try:
            times.append(path.stat().st_mtime_ns)
        except FileNotFoundError:  # written beside, and renamed meanwhile
            continue
    return max(times)


def appears(folder: Path, pattern: str) -> Callable[[], bool]:
    """Holds once a file of this pattern is written that was not there when the process began."""
    before = newest(folder, pattern)
    return lambda: newest(folder, pattern) > before


JOB = "jobs/runs/*"
RUN = "artifacts/runs/*/artifacts"
MODEL = "artifacts/runs/models/*/artifacts/artifacts/translator/weights.pt"
POINTS = (
    # stage, a file that every start writes when it gets there, longest delay in seconds
    ("start-up", "", 5.0),
    ("start-up, the store is made", "*mlflow.db*", 1.0),
    ("start-up, the run is begun or opened", "mlflow.db-wal", 0.3),
    ("training", f"{JOB}/reached.json", 1.0),
    ("a checkpoint is written", f"{JOB}/.last.ckpt.*", 0.0),
    ("a checkpoint has been written", f"{JOB}/last.ckpt", 0.02),
    ("training", f"{JOB}/reached.json", 2.0),
    ("a validation", f"{JOB}/weights-*.pt", 0.01),
    ("judging", f"{RUN}/hypotheses/test.json", 0.1),
    ("judging, the weights are kept", MODEL, 0.1),
)


def only_run(folder: Path) -> tuple[Store, TrackedRun]:
    store = Store(TrackingSettings(f"sqlite:///{folder}/mlflow.db", str(folder)))
    (run,) = store.runs("runs")
    return store, run


def found(folder: Path, place: Path) -> tuple[dict[str, torch.Tensor], pd.DataFrame, TrackedRun]:
    """Weights, curves and run, after a look that each step has one value."""
    store, run = only_run(folder)
    assert run.status == "FINISHED"
    kept = store.translator(run, place)
    assert kept
    curves = store.curves(run)
    for name, points in curves.groupby("name"):
        held = sorted((metric.step, metric.value) for metric in store.client.get_metric_history(run.id, str(name)))
        assert held == sorted(zip(points["update"], points["value"], strict=True)), name
    return torch.load(kept / "weights.pt", weights_only=True), curves.query("name != 'train/seconds'"), run


def same(one: Path, other: Path, place: Path) -> TrackedRun:
    """That both folders hold the same result to the bit; gives the run of the second."""
    (weights, curves, run), (again, again_curves, again_run) = found(one, place), found(other, place)
    assert weights.keys() == again.keys()
    assert [name for name in weights if not torch.equal(weights[name], again[name])] == []
    pd.testing.assert_frame_equal(curves.reset_index(drop=True), again_curves.reset_index(drop=True), check_exact=True)
    assert {name: run.metrics[name] for name in SAME if name in run.metrics} == {
        name: again_run.metrics[name] for name in SAME if name in again_run.metrics
    }
    return again_run


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_ten_kills(tmp_path: Path, precision: str) -> None:
    flags = (*GRAMMAR, "--training.precision", precision)
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    finish(begin(whole, *flags))
    rng = random.Random(f"kill {precision}")
    killed = []
    for stage, pattern, longest in POINTS:
        when = appears(folder, pattern) if pattern else lambda: True
        delay = rng.uniform(0, longest)
        if end(begin(folder, *flags), signal.SIGKILL, when, delay):
            killed.append(stage)
            print(f"killed: {stage}, {delay:.3f} s after {pattern or 'the start'}")
    assert len(killed) == len(POINTS)
    finish(begin(folder, *flags))
    run = same(whole, folder, tmp_path)
    print(f"repeated: {run.metrics['repeated_updates']:.0f} updates, {run.metrics['repeated_s']:.1f} s")
    # Not asserted: lost work is noted twice a second, and so little may be lost unnoted. test_training.py counts it.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_saves_and_says_so(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "signalled"
    process = begin(folder, *GRAMMAR)
    reached = appears(folder, f"{JOB}/reached.json")
    while not reached():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, printed
    assert f"{number.name}: saved; the same command continues" in printed
    assert only_run(folder)[1].status == "KILLED"
    assert list(folder.glob(f"{JOB}/last.ckpt"))
    finish(begin(folder, *GRAMMAR))
    assert only_run(folder)[1].status == "FINISHED"


@pytest.mark.skipif("MULTI30K" not in os.environ, reason="MULTI30K names no folder with the Multi30k files")
def test_a_kill_on_multi30k(tmp_path: Path) -> None:
    flags = ("--corpus.name", "multi30k-en-de", "--training.max_updates", "60", "--training.validations", "2")
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    finish(begin(whole, *flags))
    assert end(begin(folder, *flags), signal.SIGKILL, appears(folder, f"{JOB}/last.ckpt"), 0.3)
    finish(begin(folder, *flags))
    same(whole, folder, tmp_path)
