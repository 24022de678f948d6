"""Learning curves: what a checkpoint keeps of the updates since the last point."""

from __future__ import annotations

import torch

from bench.experiment.loading import resolve, row_files
from bench.measures.flops import FlopCounter
from bench.training.budget import BudgetSettings, BudgetTracker, LearningCurves


def new_curves() -> LearningCurves:
    model = resolve(row_files()["mlp"], row="mlp", tuned=False).build(20, 20)
    budget = BudgetTracker(BudgetSettings(max_updates=10), FlopCounter(model))
    return LearningCurves(budget, lambda _: None, lambda _: None)


def test_losses_since_the_last_point_survive_a_checkpoint_to_the_bit() -> None:
    """With two processes they are means of two float32 numbers, which are in general no float32."""
    one = torch.tensor(1.0)
    between = (one.item() + torch.nextafter(one, torch.tensor(2.0)).item()) / 2
    before, after = new_curves(), new_curves()
    before.record("loss", torch.tensor(between, dtype=torch.float64))
    after.load_state_dict(before.state_dict())
    assert after.recent_values() == {"loss": [between]}
