"""What the rows of one table should share, and where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # reports ask what is shared, and need no torch for it
    from bench.experiment.spec import Experiment

SHARED = {
    "training": ("max_pairs", "max_updates", "max_flops", "max_seconds", "validations", "average"),
    "text": ("kind", "vocabulary_size", "source_vocabulary_size", "joint", "max_length", "max_source_length"),
    "decoding": ("beam", "alpha", "length_penalty", "coverage", "prune", "pos_unk", "extra_length"),
}
"""Settings that the rows of one table should share."""


def unequal(experiments: Sequence[Experiment]) -> list[str]:
    """In what rows of one table differ although they should not: budget, text, decoder. One line each."""
    lines = []
    for group, keys in SHARED.items():
        for key in keys:
            values: dict[str, list[str]] = {}
            for experiment in experiments:
                rows = values.setdefault(str(getattr(getattr(experiment, group), key)), [])
                if experiment.row not in rows:
                    rows.append(experiment.row)
            if len(values) > 1:
                usual = max(values, key=lambda value: len(values[value]))
                lines += [
                    f"{', '.join(rows)}: {group}.{key} {value}, the others {usual}"
                    for value, rows in values.items()
                    if value != usual
                ]
    return lines
