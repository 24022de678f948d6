"""`bench models`: the table of models, with the size and cost of every row at each preset."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.experiment.loading import presets_of, resolve, row_files
from bench.experiment.spec import Experiment
from bench.system import terminal

LENGTH = 25
"""Tokens on each side of the sentence pair whose training cost is printed."""


def size_and_cost(experiment: Experiment) -> tuple[int, int, int]:
    """Returns (parameters, those outside embeddings and softmax, training FLOPs of a pair of 25 + 25 tokens)."""
    with torch.device("meta"):
        model = experiment.build(*experiment.text.sizes)
    return *model.parameter_counts(), model.flops(LENGTH, LENGTH).training


def show(presets: Sequence[str] | None) -> None:
    """Prints a line for each row and preset, oldest architecture first.

    Raises:
        ValueError: a preset does not exist.
    """
    lines = []
    for row, path in row_files().items():
        for preset in presets or presets_of(path, row):
            experiment = resolve(path, preset=preset, row=row)
            about = experiment.about
            total, core, cost = size_and_cost(experiment)
            sizes = " / ".join(f"{size:,}" for size in dict.fromkeys(experiment.text.sizes))
            vocabulary = f"{sizes} {experiment.text.kind}"
            numbers = [f"{total / 1e6:,.2f}", f"{core / 1e6:,.2f}", f"{cost / 1e9:,.3f}", vocabulary]
            lines.append(((about.year, row), [row, about.name, str(about.year), about.paper, preset, *numbers]))
    columns = [("row", "left"), ("name", "left"), ("year", "right"), ("paper", "left"), ("preset", "left")]
    columns += [("params (M)", "right"), ("without embeddings (M)", "right")]
    columns += [("training GFLOP per pair", "right"), ("vocabulary", "right")]
    terminal.table(columns, [line for _, line in sorted(lines, key=lambda entry: entry[0])])
    terminal.say(f"A pair has {LENGTH} + {LENGTH} tokens; FLOPs by the convention of docs/flops.md.")
