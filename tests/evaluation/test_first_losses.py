"""The first losses of every row. If they change, rows compute something else: say so in CHANGELOG.md."""

from __future__ import annotations

import pytest
import torch

from bench.evaluation import first_losses
from bench.experiment.loading import row_files
from bench.measures.other_code import TOLERANCE, committed
from tests.helpers import tiny_sweep


def test_the_committed_losses_are_those_of_the_code() -> None:
    """It builds and trains every row of the ladder, which takes some seconds."""
    with tiny_sweep.cached_parsing():
        found = {row: first_losses.first_losses(row) for row in row_files()}
    assert found.keys() == committed().keys()
    for row, losses in committed().items():
        assert found[row] == pytest.approx(losses, rel=TOLERANCE), row


def test_random_numbers_do_not_change() -> None:
    first_losses.first_losses.cache_clear()
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    first_losses.first_losses("mlp-relu")
    assert torch.equal(torch.rand(4), wanted)
