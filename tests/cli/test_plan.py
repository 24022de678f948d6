"""The command bench plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli.main import main
from tests.helpers import tiny_job
from tests.helpers.command_line import error_of


def write_suite(folder: Path) -> Path:
    path = folder / "table.yaml"
    path.write_text("question: none\nrows: [transformer-base]\n", encoding="utf-8")
    return path


def test_a_plan_takes_the_speed_of_the_finished_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", str(write_suite(tmp_path)), *tiny_job.flags(folder), "--format", "json"]
    assert main(arguments) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["headline"].startswith("This suite needs about ")
    assert [row["source"] for row in content["rows"]] == ["run"]


def test_a_plan_for_a_gpu_starts_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = tiny_job.flags(folder, tracking__folder=tmp_path / "runs")
    assert main(["plan", str(write_suite(tmp_path)), *flags, "--gpu", "H100"]) == 0
    assert "utilisation assumed" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--gpu", "H10"], "did you mean H100?"), (["--model.widht", "3"], "widht"), (["--trials", "2"], "is a suite")],
)
def test_invalid_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of(["plan", str(write_suite(tmp_path)), *arguments], capsys)
