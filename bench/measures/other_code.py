"""Recognizes runs that other code made: their first losses are not those in first_losses.csv.

The file has the losses of every row of the ladder; a test computes them again, so they are those of the present code.
"""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path

FIRST_LOSSES_TAG = "first_losses"
"""Tag of a run that holds, as JSON, the losses of bench/evaluation/first_losses.py."""

TOLERANCE = 1e-6
"""Largest relative difference of equal losses. Initial weights are drawn in float32, whose last bit depends on the
processor; a change of the code moves a loss by more than 1e-4."""

FILE = Path(__file__).with_name("first_losses.csv")


@functools.cache
def committed() -> dict[str, tuple[float, ...]]:
    """Row -> its losses; an ensemble has those of a member."""
    with FILE.open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    return {row: tuple(map(float, losses)) for row, *losses in lines}


def is_from_other_code(tags: Mapping[str, str]) -> bool:
    """Whether the first losses of a run are not those of the present code.

    False for a run that has stored none, and for a row of which no losses are committed, such as a user's own.
    """
    here = committed().get(tags.get("row", ""))
    if here is None or FIRST_LOSSES_TAG not in tags:
        return False
    try:
        stored = [float(loss) for loss in json.loads(tags[FIRST_LOSSES_TAG])]
    except (ValueError, TypeError):
        return True
    return len(stored) != len(here) or not all(
        math.isclose(one, other, rel_tol=TOLERANCE) for one, other in zip(stored, here, strict=True)
    )
