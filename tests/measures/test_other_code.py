"""Runs of other code are recognized by their first losses."""

from __future__ import annotations

import json

import pytest

from bench.measures.other_code import FIRST_LOSSES_TAG, committed, is_from_other_code


def test_a_small_difference_is_not_other_code() -> None:
    first, second, third = committed()["perceptron"]

    def differs(factor: float) -> bool:
        stored = json.dumps([first, second * factor, third])
        return is_from_other_code({"row": "perceptron", FIRST_LOSSES_TAG: stored})

    assert not differs(1 + 1e-7)
    assert differs(1 + 1e-5)
    assert not is_from_other_code({"row": "perceptron"})
    assert not is_from_other_code({"row": "a row of a user", FIRST_LOSSES_TAG: "[1.0, 2.0, 3.0]"})


@pytest.mark.parametrize("stored", ["[1.0]", "no losses", "[null, 1.0, 2.0]", "3"])
def test_what_is_not_the_losses_of_a_row_is_other_code(stored: str) -> None:
    assert is_from_other_code({"row": "perceptron", FIRST_LOSSES_TAG: stored})
