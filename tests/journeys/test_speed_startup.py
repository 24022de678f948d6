"""`bench speed startup`: real processes from the command to the first update of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.speed import startup
from tests.helpers import tiny_job

pytestmark = pytest.mark.journey


def test_the_first_update_comes_after_the_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(startup, "SAMPLES", 1)
    tiny_job.write_corpus(tmp_path)
    flags = tiny_job.flags(tmp_path, machine__accelerator="cpu", machine__threads=1)
    command = ["speed", "startup", "transformer-base", "--seconds", "0.01", "--format", "json"]
    assert main([*command, *flags]) == 0
    [record] = json.loads(capsys.readouterr().out)
    times = {name: figure["median"] for name, figure in record["figures"].items()}
    assert list(times) == ["import_s", "first_update_s"]
    assert min(times.values()) > 0
    assert main([*command, *flags, "--training.batch_tokens", "2"]) == 2
    assert "transformer-base: the run ended before its first update: " in capsys.readouterr().err
