"""The first losses of every row. If these numbers change, rows compute something else: say so in CHANGELOG.md.

Print the new ones with: python -m tests.evaluation.test_first_losses
"""

from __future__ import annotations

import json

import pytest
import torch

from bench.evaluation import first_losses
from bench.experiment.loading import row_files
from bench.tracking.reading import FIRST_LOSSES_TAG
from tests.helpers import tiny_sweep

LOSSES = {
    "bahdanau": (3.140587806, 3.116796734, 3.093246219),
    "bytenet": (3.194577020, 3.164818096, 3.135767497),
    "cnn": (3.256484148, 3.243988205, 3.231509304),
    "convs2s": (3.158539012, 3.169220963, 3.171241182),
    "convs2s-ensemble": (3.158539012, 3.169220963, 3.171241182),
    "deep-att": (3.150923857, 3.127015846, 3.103290987),
    "deep-att-ensemble": (3.150923857, 3.127015846, 3.103290987),
    "gnmt": (3.138152690, 3.130809774, 3.123447020),
    "gnmt-ensemble": (3.138152690, 3.130809774, 3.123447020),
    "gru": (3.248435118, 3.217475786, 3.186924181),
    "lstm": (3.125058275, 3.121093728, 3.117124111),
    "luong": (3.242234483, 3.223370964, 3.204608597),
    "mlp": (3.174445478, 3.161905838, 3.149416950),
    "mlp-relu": (3.139488508, 3.343144922, 3.240928728),
    "moe": (3.367685915, 3.341477091, 3.323718789),
    "perceptron": (3.135494216, 3.093964757, 3.052731172),
    "rnn": (3.145624568, 3.136527367, 3.127437860),
    "self-attention": (3.813734274, 3.528248075, 3.827635037),
    "transformer-base": (3.719122579, 3.602126156, 3.849219372),
    "transformer-big": (4.167817283, 4.163295929, 4.283723469),
}
"""Row -> its losses; an ensemble has those of a member."""


def test_first_losses_of_every_row() -> None:
    """It builds and trains every row of the ladder, which takes some seconds."""
    with tiny_sweep.cached_parsing():
        found = {row: first_losses.first_losses(row) for row in row_files()}
    assert found.keys() == LOSSES.keys()
    for row, losses in LOSSES.items():
        assert found[row] == pytest.approx(losses, rel=first_losses.TOLERANCE), row


def test_a_small_difference_is_not_other_code() -> None:
    losses = LOSSES["perceptron"]

    def differs(factor: float) -> bool:
        stored = json.dumps([losses[0], losses[1] * factor, losses[2]])
        return first_losses.is_from_other_code({"row": "perceptron", FIRST_LOSSES_TAG: stored})

    assert not differs(1 + 1e-7)
    assert differs(1 + 1e-5)
    assert not first_losses.is_from_other_code({"row": "perceptron"})


@pytest.mark.parametrize("stored", ["[1.0]", "no losses", "[null, 1.0, 2.0]", "3"])
def test_what_is_not_the_losses_of_a_row_is_other_code(stored: str) -> None:
    assert first_losses.is_from_other_code({"row": "perceptron", FIRST_LOSSES_TAG: stored})
    assert first_losses.is_from_other_code({"row": "no such row", FIRST_LOSSES_TAG: "[1.0, 2.0, 3.0]"})


def test_random_numbers_do_not_change() -> None:
    first_losses.first_losses.cache_clear()
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    first_losses.first_losses("mlp-relu")
    assert torch.equal(torch.rand(4), wanted)


if __name__ == "__main__":
    for name in row_files():
        print(f'    "{name}": ({", ".join(f"{loss:.9f}" for loss in first_losses.first_losses(name))}),')
