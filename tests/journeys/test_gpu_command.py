"""`make gpu` as a dry run on the CPU: every step but the FLOP counts, from the command to its archive of results."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import torch

from bench.checks import gpu
from tests.helpers import tiny_job

pytestmark = pytest.mark.journey


def test_the_whole_command_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    tiny_job.write_corpus(tmp_path)
    flags = [*tiny_job.corpus_flags(tmp_path), "--text.vocabulary_size", "90", "--machine.threads", "1"]
    code = gpu.main(["--device", "cpu", "--preset", "demo", "--quick", "--out", str(out), *flags])
    assert code == 0, capsys.readouterr().out
    results = json.loads((out / "summary.json").read_text())["results"]
    assert [(result["step"], result["result"]) for result in results] == [
        (step, "passed") for step in ("environment", "speed", "run", "report", "contract")
    ]
    assert json.loads((out / "environment.json").read_text())["version.torch"] == torch.__version__
    with tarfile.open(out / "results.tar.gz") as archive:
        names = {name.removeprefix("results/") for name in archive.getnames()}
    wanted = {"contract.xml", "speed.json", "report/report.html", "report/report.csv", "exported"}
    assert wanted <= names
    assert not [name for name in names if name.startswith("store")]
