"""The table of parameter counts at paper size: every row has a line, and every count is within its tolerance."""

from __future__ import annotations

import pytest
import torch

import bench.checks.model_sizes
from bench.checks.model_sizes import SIZES, Size
from bench.cli.main import main
from bench.experiment.loading import resolve, row_files
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.runs.suite import Suite


def test_every_row_of_the_ladder_has_its_papers_size(capsys: pytest.CaptureFixture[str]) -> None:
    sized = [size.row for size in SIZES if size.preset == "paper" and not size.flags]
    assert sorted(sized) == sorted(Suite.read(EXPERIMENTS / "ladder.yaml").rows)
    assert main(["verify", "sizes"]) == 0
    printed = capsys.readouterr().out
    assert "BEYOND" not in printed
    assert len(printed.splitlines()) == len(SIZES) + 1


@pytest.mark.parametrize("size", SIZES, ids=lambda size: " ".join((size.row, size.preset, *size.flags)))
def test_a_paper_preset_has_the_vocabulary_of_its_size(size: Size) -> None:
    assert size.experiment.text.sizes == size.vocabulary


def test_a_count_beyond_its_tolerance_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (37_000, 37_000)
    count = Size("perceptron", words, 0, "").count_parameters()
    lines = [Size("perceptron", words, count + 1, "one more"), Size("perceptron", words, count / 1.02, "near", 0.03)]
    monkeypatch.setattr(bench.checks.model_sizes, "SIZES", lines)
    assert main(["verify", "sizes"]) == 1
    _, beyond, within = capsys.readouterr().out.splitlines()
    assert "BEYOND" in beyond
    assert "BEYOND" not in within


def test_the_recurrent_part_of_sutskevers_model_has_the_published_size() -> None:
    path = row_files()["lstm"]
    with torch.device("meta"):
        model = resolve(path, preset="paper", row="lstm").build(160_000, 80_000)
    assert model.parameter_counts() == (384_000_000, 64_000_000)
