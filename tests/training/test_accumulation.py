"""Gradient accumulation: an update in parts is that of the whole batch. Contract tests compare all architectures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.training.memory_limit import UpdateTooLarge
from bench.training.reward import RewardSettings
from bench.training.trainer import TrainingResult
from models.parts.batch import Batch, Tokens
from models.parts.translator import Translator
from models.transformer import Config, Model
from tests.training.test_trainer import VOCABULARY, Attempts, settings


def without_dropout() -> Translator:
    torch.manual_seed(1)
    return Model(Config(layers=1, width=16, inner=32, heads=2, dropout=0.0), VOCABULARY, VOCABULARY)


def side(lengths: tuple[int, ...]) -> Tokens:
    return Tokens(torch.arange(len(lengths) * max(lengths)).view(len(lengths), -1), lengths)


@pytest.mark.parametrize(("parts", "sizes"), [(1, [5]), (2, [2, 3]), (3, [1, 2, 2]), (5, [1] * 5), (9, [1] * 5)])
@pytest.mark.parametrize("share", [1.0, 0.4])  # of a process in distributed training
def test_the_weights_of_the_parts_sum_to_that_of_the_batch(parts: int, sizes: list[int], share: float) -> None:
    batch = Batch(side((3, 4, 1, 2, 4)), side((2, 5, 5, 1, 3)), share)
    split = batch.split(parts)
    assert [len(part.target.lengths_B) for part in split] == sizes
    assert sum(part.loss_weight for part in split) == pytest.approx(share)
    assert sum(part.sentence_loss_weight for part in split) == pytest.approx(batch.sentence_loss_weight)
    for name in ("source", "target"):
        whole, sides = getattr(batch, name), [getattr(part, name) for part in split]
        assert torch.equal(torch.cat([side.ids_BS for side in sides]), whole.ids_BS), "the padding stays"
        assert sum((side.lengths_B for side in sides), ()) == whole.lengths_B
    assert [part.shapes for part in split] == [batch.shapes] * len(split)


def trained(folder: Path, parts: int | None, **changed: object) -> TrainingResult:
    changed = {"precision": "64-true", "accumulate": parts} | changed
    return Attempts(folder, settings(**changed)).train(module=without_dropout())


@pytest.mark.parametrize("clip", [1.0, None])
def test_training_in_parts_gives_the_same_weights_curves_and_flops(tmp_path: Path, clip: float | None) -> None:
    whole, split = (trained(tmp_path / str(parts), parts, clip=clip) for parts in (None, 3))
    for name, tensor in whole.weights.items():
        torch.testing.assert_close(split.weights[name], tensor, rtol=0, atol=1e-9)
    assert [point[:2] for point in split.curve] == [point[:2] for point in whole.curve]
    values = [[value for _, name, value in result.curve if name != "train/seconds"] for result in (split, whole)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert split.budget.flop_counter.state_dict() == whole.budget.flop_counter.state_dict()
    assert (split.budget.updates, split.budget.pairs) == (whole.budget.updates, whole.budget.pairs)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_other_precisions_train_in_parts(tmp_path: Path, precision: str) -> None:
    whole, split = (trained(tmp_path / str(parts), parts, precision=precision) for parts in (None, 3))
    losses = [[value for _, name, value in result.curve if name == "train/loss"] for result in (split, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_reward_phase_samples_in_parts(tmp_path: Path) -> None:
    rewarded = trained(tmp_path, 3, reward=RewardSettings(share=0.5, samples=3))
    assert [update for update, name, _ in rewarded.curve if name == "train/reward"] == list(range(11, 21))


class Full(Model):
    """A model that runs out of memory with more than `most` sentence pairs in an update."""

    most = 3

    def weighted_loss(self, batch: Batch) -> torch.Tensor:
        if len(batch.target.lengths_B) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().weighted_loss(batch)


def full(most: int) -> Full:
    model = Full(Config(layers=1, width=16, inner=32, heads=2), VOCABULARY, VOCABULARY)
    model.most = most
    return model


def test_an_update_that_is_too_large_is_told_from_other_work(tmp_path: Path) -> None:
    def validation_fails(_: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UpdateTooLarge, match="CUDA out of memory"):
        Attempts(tmp_path / "large").train(module=full(3))
    with pytest.raises(torch.OutOfMemoryError):  # one pair alone does not fit
        Attempts(tmp_path / "pair", settings(accumulate=60)).train(module=full(0))
    with pytest.raises(torch.OutOfMemoryError):
        Attempts(tmp_path / "validation").train(score=validation_fails)
