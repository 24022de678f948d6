"""`bench scale`: a study from its file to its report, in one process."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job, tracking_folder

STUDY = """
question: Which size?
corpora: [files-en-de]
rows: [perceptron]
pairs: [20, 40]
rules: {training.optimizer.lr: -0.5}
rate_checks: [{pairs: 40, factors: [2.0]}]
settings:
  text: {vocabulary_size: 90}
  training: {validations: 1, batch_tokens: 300, schedule: {warmup: 0, decay: linear}}
  decoding: {beam: 1, extra_length: 2}
"""


def test_a_study_runs_continues_and_is_reported(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tracking_folder.create(tmp_path / "runs")  # its own: the shared store has one suite for all tests
    monkeypatch.setattr("bench.runs.scale.sizes_of", lambda path, row: {"S": {"units": 8}, "M": {"units": 24}})
    file = tmp_path / "curves.yaml"
    file.write_text(STUDY)
    tracking = ["--tracking.folder", str(tmp_path / "runs")]
    flags = [*tiny_job.corpus_flags(folder)[2:], *tracking]
    assert main(["scale", str(file), *flags, "--max_seconds", "0.001"]) == 3
    capsys.readouterr()
    assert main(["scale", str(file), *flags]) == 0
    printed = capsys.readouterr().out.replace("\u00a0", " ")
    assert "[5/5] perceptron M 40 pairs files-en-de demo s1" in printed
    assert "Best run of each row (curves)" in printed
    assert (tmp_path / "runs" / "reports" / "curves" / "points.csv").is_file()
    store = Store(TrackingSettings(None, str(tmp_path / "runs")))
    parent = store.parent_run("curves")
    assert parent
    assert parent.metrics["runs_finished"] == 5, "with the check of the learning rate"
    assert parent.metrics["runs_missing"] == 0
    assert "| Row | Size |" in parent.tags["mlflow.note.content"]
    assert main(["scale", str(file), *flags]) == 0
    assert capsys.readouterr().out.count("finished before") == 5
    assert main(["report", "--suite", "curves", "--format", "csv", *tracking]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {line["study"] for line in lines} == {"curves"}
    (check,) = [line for line in lines if line["quantity"] == "loss of a learning-rate check" and "x 2" in line["at"]]
    assert float(check["value"]) > 0
