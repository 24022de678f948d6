"""Checks that the rows of one table share the settings that a fair comparison needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # reports import this file, and must not load torch
    from bench.experiment.spec import Experiment

SHARED_SETTINGS = {
    "training": ("max_pairs", "max_updates", "max_flops", "max_seconds", "validations", "average"),
    "text": (
        "kind",
        "vocabulary_size",
        "source_vocabulary_size",
        "joint",
        "max_length",
        "max_source_length",
        "normalization",
        "bleu_tokenizer",
    ),
    "decoding": ("beam", "alpha", "length_penalty", "coverage", "prune", "pos_unk", "extra_length"),
}
"""Group -> keys of the settings that all rows of one table should share."""


def setting_differences(experiments: Sequence[Experiment]) -> list[str]:
    """The shared settings (budget, text, decoder) in which rows of one table differ, one line per setting and value."""
    lines = []
    for group, keys in SHARED_SETTINGS.items():
        for key in keys:
            values: dict[str, list[str]] = {}
            for experiment in experiments:
                rows = values.setdefault(str(getattr(getattr(experiment, group), key)), [])
                if experiment.row not in rows:
                    rows.append(experiment.row)
            count = len({experiment.row for experiment in experiments})
            usual = next((value for value, rows in values.items() if 2 * len(rows) > count), None)
            most = "" if usual is None else f", most rows {usual}"
            lines += [
                f"{', '.join(rows)}: {group}.{key} {value}{most}"
                for value, rows in values.items()
                if len(values) > 1 and value != usual
            ]
    return lines
