"""`bench verify`: every row is counted, every difference is shown, and the exit code reports it."""

from __future__ import annotations

import pytest
import torch

from bench.checks import verify
from bench.cli.main import main
from bench.experiment.loading import resolve, row_files
from bench.measures import published
from bench.measures.flops import FlopCheck
from tests.helpers import tiny_job


def test_every_row_and_every_variant_is_counted() -> None:
    found = list(verify.variants())
    names = [(row, variant) for row, variant, _ in found]
    assert {row for row, _ in names} == set(row_files())
    assert ("moe", "balanced") in names
    assert ("luong", "local-p") in names
    changed = {variant: experiment.model for row, variant, experiment in found if row == "moe"}
    assert (changed[""].groups, changed["flat"].groups) == (4, 0)


def test_flops_of_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = resolve(tiny_job.FILE, flags=["--model.width", "16", "--model.inner", "32", "--model.layers", "1"])
    monkeypatch.setattr(verify, "variants", lambda: iter([("a-row", "a-variant", experiment)]))
    assert main(["verify", "flops"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("a-row, a-variant") == printed.count("equal") == 4
    assert "4 passes, 0 differ" in printed
    for what in ("forward", "training", "start", "step"):
        assert what in printed


def test_a_difference_sets_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    counted = verify.Counted("a-row", "", FlopCheck("step", 12, 12, 13))
    monkeypatch.setattr(verify, "count_flops", lambda device: iter([counted]))
    assert main(["verify", "flops"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_the_papers_costs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "costs"]) == 0
    printed = capsys.readouterr().out
    assert "14 costs, 0 beyond 2.5%" in printed
    assert "2.322e+19" in printed
    monkeypatch.setattr(published, "verify", lambda: [published.RecomputedCost("a-row", "en-de", "", 1.0, 1.03)])
    assert main(["verify", "costs"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_a_one_line_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "flops", "--device", "cuda"]) == 2
    assert "no GPU is visible" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_every_count_agrees_on_a_gpu() -> None:
    assert all(counted.check.agrees for counted in verify.count_flops("cuda"))
