"""What all architectures share (padded tokens, the loss, the schedules), compared with literal values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.parts.batch import BOS, EOS, PAD, Batch, Tokens
from models.parts.optimization import LearningRateSchedule, OptimizationSettings
from models.parts.translator import cross_entropy_loss
from models.transformer import Config, Model
from tests.helpers.partial_translator import Partial

THREE = Tokens(torch.tensor([[5, 6, 7, EOS], [8, EOS, 0, 0], [9, 10, EOS, 0]]), (4, 2, 3))


def test_masks_and_indices_of_real_tokens() -> None:
    assert THREE.length_B.tolist() == [4, 2, 3]
    assert THREE.mask_BS.int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert THREE.real_index_N.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 10]
    assert THREE.ids_N.tolist() == [5, 6, 7, EOS, 8, EOS, 9, 10, EOS]
    assert THREE.ids_BS.gather(1, THREE.reversal_BS).tolist() == [[EOS, 7, 6, 5], [EOS, 8, 0, 0], [EOS, 10, 9, 0]]
    assert all(found.dtype == torch.long for found in (THREE.length_B, THREE.real_index_N, THREE.reversal_BS))


def test_masks_and_indices_on_another_device() -> None:
    """The lengths are known on the host, so nothing is read from the device."""
    on_meta = THREE.to("meta")
    for found in (on_meta.length_B, on_meta.mask_BS, on_meta.reversal_BS, on_meta.real_index_N, on_meta.ids_N):
        assert found.is_meta
    assert on_meta.real_index_N.shape == (9,)


class TokenIdLoss(Partial):
    """A translator whose loss of a token is the token's id."""

    def token_losses(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        return batch.target.ids_N.float()


def test_loss_is_a_mean_over_tokens_or_over_sentences() -> None:
    model, pairs = TokenIdLoss(), Batch(THREE, THREE)
    assert cross_entropy_loss(model, pairs).item() == pytest.approx((5 + 6 + 7 + EOS + 8 + EOS + 9 + 10 + EOS) / 9)
    model.optimization = OptimizationSettings(normalization="sentence")
    assert cross_entropy_loss(model, pairs).item() == pytest.approx((5 + 6 + 7 + EOS + 8 + EOS + 9 + 10 + EOS) / 3)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (LearningRateSchedule(), {1: 1.0, 99: 1.0}),
        (LearningRateSchedule(warmup=4), {1: 0.25, 4: 1.0, 5: 1.0}),
        (LearningRateSchedule(warmup=4, decay="inverse_sqrt"), {2: 0.5, 4: 1.0, 16: 0.5}),
        (LearningRateSchedule(warmup=4, hold=5, decay="inverse_sqrt"), {9: 1.0, 36: 0.5}),
        # The full rate for 6 updates, half of it for the next 3, and halved again after every 3 updates.
        (LearningRateSchedule(hold=6, decay="halve", every=3), {6: 1.0, 7: 0.5, 9: 0.5, 10: 0.25, 12: 0.25, 13: 0.125}),
        (LearningRateSchedule(warmup=2, decay="plateau"), {1: 0.5, 50: 1.0}),
    ],
    ids=lambda value: value.decay if isinstance(value, LearningRateSchedule) else "",
)
def test_learning_rate_schedules_in_updates(schedule: LearningRateSchedule, factors: dict[int, float]) -> None:
    assert {update: schedule.factor(update) for update in factors} == factors


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (LearningRateSchedule(decay="linear"), {0.0: 1.0, 0.25: 0.75, 1.0: 0.0, 1.01: 0.0}),
        (LearningRateSchedule(decay="linear", warmup_share=0.5), {0.0: 0.0, 0.25: 0.5, 0.5: 1.0, 0.75: 0.5, 1.0: 0.0}),
        (LearningRateSchedule(decay="one_minus_sqrt"), {0.0: 1.0, 0.25: 0.5, 1.0: 0.0}),
        # A quarter of the decay at 0.6 = 0.2 + 0.8 * 0.25 + ...: p = (0.4 - 0.2) / 0.8 = 0.25 and 1 - sqrt(p) = 0.5.
        (LearningRateSchedule(decay="one_minus_sqrt", warmup_share=0.2), {0.1: 0.5, 0.2: 1.0, 0.4: 0.5, 1.0: 0.0}),
    ],
)
def test_learning_rate_schedules_in_shares_of_the_budget(
    schedule: LearningRateSchedule, factors: dict[float, float]
) -> None:
    assert {share: schedule.factor_at(share) for share in factors} == pytest.approx(factors)
    assert {schedule.factor(update) for update in (1, 50)} == {1.0}, "the harness applies the share"


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (LearningRateSchedule(warmup=50, decay="linear"), "decay linear counts in shares of the budget, but warmup 50"),
        (LearningRateSchedule(hold=9, decay="one_minus_sqrt"), "hold 9 count updates; set both to 0"),
        (LearningRateSchedule(warmup_share=0.1), "warmup_share: 0.1 counts in shares of the budget, but decay none"),
        (LearningRateSchedule(warmup_share=1.0, decay="linear"), "warmup_share: 1.0 is not a share; at least 0, less"),
    ],
)
def test_updates_and_shares_are_not_mixed(schedule: LearningRateSchedule, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule.check()


def test_label_smoothing_equals_its_equation() -> None:
    """(1 - eps) (-log p(y)) + eps / V sum_v (-log p(v)); eps is spread over all V words, including the label y."""
    torch.manual_seed(1)
    model = Model(Config(layers=1, width=8, inner=8, heads=1, dropout=0.0), 11, 11)
    pairs = Batch(THREE, THREE)
    logs_NV = model.logits(model.encode(THREE), pairs).log_softmax(-1)
    label_N = logs_NV.gather(1, THREE.ids_N[:, None])[:, 0]
    model.optimization = OptimizationSettings(label_smoothing=0.1)
    wanted = -(0.9 * label_N + 0.1 * logs_NV.mean(-1)).mean()
    assert cross_entropy_loss(model, pairs).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_the_input_of_the_decoder_is_padded_like_the_target() -> None:
    """BOS takes the place of EOS, which no sentence reads, however long the others of its batch are."""
    target = Tokens(torch.tensor([[5, 6, EOS, PAD, PAD], [5, 6, 7, 8, EOS]]), (3, 5))
    prefix = Batch(target, target).prefix
    assert prefix.ids_BS.tolist() == [[BOS, 5, 6, PAD, PAD], [BOS, 5, 6, 7, 8]]
    assert prefix.length_B.tolist() == list(prefix.lengths_B)
