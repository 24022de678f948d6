"""Ctrl-C at a suite with workers: both jobs in progress are saved, and the same command continues them to the bit."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import psutil
import pytest
import torch

from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job
from tests.journeys.commands import BENCH, finish, load_weights, start, wait_until

pytestmark = pytest.mark.journey

SUITE = """
rows: [gru, lstm]
preset: demo
settings:
  text: {vocabulary_size: 90}
  training: {max_pairs: null, max_updates: 300, batch_tokens: 600, validations: 2}
  decoding: {beam: 1, extra_length: 5}
  machine: {checkpoint_seconds: 0.5}
"""


def start_suite(corpus: Path, folder: Path) -> Popen[str]:
    file = folder / "pair.yaml"
    file.write_text(SUITE, encoding="utf-8")
    flags = [*tiny_job.corpus_flags(corpus), "--tracking.folder", str(folder)]
    return start(BENCH, "suite", file, "--workers", "2", *flags)


def store_in(folder: Path) -> Store:
    return Store(TrackingSettings(f"sqlite:///{folder}/mlflow.db", str(folder)))


def results(folder: Path) -> dict[str, tuple[str, float, dict[str, torch.Tensor]]]:
    """Return id, BLEU and weights of the only run of each row."""
    store = store_in(folder)
    runs = store.runs("pair")
    assert sorted(run.tags["row"] for run in runs) == ["gru", "lstm"]
    assert {run.status for run in runs} == {"FINISHED"}
    return {
        run.tags["row"]: (run.id, run.metrics["test/bleu"], load_weights(store, run, folder / "read" / run.id))
        for run in runs
    }


def test_ctrl_c_saves_the_jobs_of_all_workers(
    corpus: Path, tracking_folder: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder, undisturbed = tracking_folder(tmp_path / "interrupted"), tracking_folder(tmp_path / "undisturbed")
    command = start_suite(corpus, folder)
    wait_until(command, lambda: len(list(folder.glob("jobs/pair/*/progress.json"))) == 2, 0.05)
    processes = psutil.Process(command.pid).children(recursive=True)
    assert len(processes) >= 2
    command.send_signal(signal.SIGINT)  # workers have sessions of their own, so the terminal would signal no other one
    printed, _ = command.communicate(timeout=120)
    assert command.returncode == 130, printed
    assert len(re.findall(r"^  (?:gru|lstm) files-en-de demo s1: the run is saved, ", printed, re.MULTILINE)) == 2
    assert printed.endswith("\nSIGINT: the run is saved; run the same command again to resume\n")
    assert "Traceback" not in printed
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []
    store = store_in(folder)
    saved = {run.tags["row"]: (run.id, run.status) for run in store.runs("pair")}
    assert {status for _, status in saved.values()} == {"KILLED"}
    parent = store.parent_run("pair")
    assert parent
    assert parent.status == "KILLED"

    assert finish(start_suite(corpus, folder)).count("continues run") == 2
    finish(start_suite(corpus, undisturbed))
    continued, expected = results(folder), results(undisturbed)
    for row, (run, bleu, weights) in continued.items():
        assert run == saved[row][0]
        assert bleu == expected[row][1]
        assert [name for name in weights if not torch.equal(weights[name], expected[row][2][name])] == [], row
