"""`kill -9` of the real command at any moment; the same command then gives to the bit what an undisturbed run gives.

Where it is killed is decided from outside, by what the process has written so far and a random delay: at start-up, in
training, in a validation, while a checkpoint is written, just after that, and during the evaluation.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from tests.helpers import tiny_job
from tests.journeys.commands import (
    BENCH,
    EXPERIMENTS,
    JOB_FOLDER,
    assert_same_result,
    end,
    finish,
    is_written,
    only_run,
    start,
    wait_until,
)

pytestmark = pytest.mark.journey

GRAMMAR = ("--corpus.name", "grammar-en-de", "--corpus.pairs", "600", "--text.vocabulary_size", "300")
SETTINGS = {
    "text.vocabulary_size": 90,
    "model.width": 32,
    "model.inner": 64,
    "model.layers": 1,
    "model.heads": 2,
    "model.dropout": 0.2,
    "training.max_pairs": "null",
    "training.max_updates": 200,
    "training.batch_tokens": 600,
    "training.validations": 5,
    "training.average": 2,  # so that every validation writes weights, which is how a validation is seen from outside
    "decoding.beam": 1,
    "decoding.extra_length": 3,
    "machine.threads": 1,
    "machine.checkpoint_seconds": 0.5,
    "machine.accelerator": "cpu",
}
RUN = "artifacts/runs/*/artifacts"
MODEL = "artifacts/runs/models/*/artifacts/artifacts/translator/weights.pt"
STAGES = (
    # stage, a file that every start writes when it gets there, longest delay in seconds
    ("start-up", "", 5.0),
    ("start-up, the store is created", "*mlflow.db*", 1.0),
    ("start-up, the run is created or opened", "mlflow.db-wal", 0.3),
    ("training", f"{JOB_FOLDER}/progress.json", 1.0),
    ("a checkpoint is being written", f"{JOB_FOLDER}/.last.ckpt.*", 0.0),
    ("a checkpoint has been written", f"{JOB_FOLDER}/last.ckpt", 0.02),
    ("training", f"{JOB_FOLDER}/progress.json", 2.0),
    ("a validation", f"{JOB_FOLDER}/weights-*.pt", 0.01),
    ("evaluation", f"{RUN}/hypotheses/test.json", 0.1),
    ("evaluation, the model is logged", MODEL, 0.1),
)


def start_run(folder: Path, *flags: str) -> Popen[str]:
    settings = [f"--{key}={value}" for key, value in SETTINGS.items()]
    return start(BENCH, "run", EXPERIMENTS / "transformer.yaml", *settings, "--tracking.folder", folder, *flags)


@pytest.mark.parametrize(
    ("precision", "text"), [("32-true", "grammar"), ("bf16-mixed", "files")], ids=["32-true", "bf16-mixed"]
)
def test_ten_kills(
    corpus: Path, tracking_folder: Callable[[Path], Path], tmp_path: Path, precision: str, text: str
) -> None:
    """The grammar corpus adds its probes to the evaluation; one of the two is enough for them."""
    flags = ("--training.precision", precision, *(GRAMMAR if text == "grammar" else tiny_job.corpus_flags(corpus)))
    undisturbed, killed = tracking_folder(tmp_path / "undisturbed"), tmp_path / "killed"
    finish(start_run(undisturbed, *flags))
    rng = random.Random(f"kill {precision}")
    kills = []
    for stage, pattern, longest in STAGES:
        reached = is_written(killed, pattern) if pattern else lambda: True
        delay = rng.uniform(0, longest)
        if end(start_run(killed, *flags), signal.SIGKILL, reached, delay):
            kills.append(stage)
            print(f"killed: {stage}, {delay:.3f} s after {pattern or 'the start'}")
    assert len(kills) == len(STAGES)
    finish(start_run(killed, *flags))
    assert_same_result(undisturbed, killed, tmp_path)
    store, run = only_run(killed)
    measures = {measure.metric: measure.value or 0.0 for measure in store.measures(run)}
    print(f"repeated: {measures['repeated_updates']:.0f} updates, {measures['repeated_s']:.1f} s")
    # Not asserted: work is noted ten times a second, so a little may be lost without a note. tests/training counts it.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_saves_the_run_and_says_so(
    corpus: Path, tracking_folder: Callable[[Path], Path], tmp_path: Path, number: signal.Signals
) -> None:
    folder, flags = tracking_folder(tmp_path / "signalled"), tiny_job.corpus_flags(corpus)
    process = start_run(folder, *flags)
    wait_until(process, is_written(folder, f"{JOB_FOLDER}/progress.json"))
    process.send_signal(number)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, printed
    assert f"{number.name}: the run is saved; run the same command again to resume" in printed
    assert only_run(folder)[1].status == "KILLED"
    assert list(folder.glob(f"{JOB_FOLDER}/last.ckpt"))
    finish(start_run(folder, *flags))
    assert only_run(folder)[1].status == "FINISHED"


@pytest.mark.skipif("MULTI30K" not in os.environ, reason="MULTI30K names no folder with the Multi30k files")
def test_a_kill_on_multi30k(tracking_folder: Callable[[Path], Path], tmp_path: Path) -> None:
    flags = ("--corpus.name", "multi30k-en-de", "--training.max_updates", "60", "--training.validations", "2")
    undisturbed, killed = tracking_folder(tmp_path / "undisturbed"), tracking_folder(tmp_path / "killed")
    finish(start_run(undisturbed, *flags))
    written = is_written(killed, f"{JOB_FOLDER}/last.ckpt")
    assert end(start_run(killed, *flags), signal.SIGKILL, written, 0.3)
    finish(start_run(killed, *flags))
    assert_same_result(undisturbed, killed, tmp_path)
