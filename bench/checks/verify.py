"""`bench verify flops` and `bench verify costs`: FLOPs counted in three ways, and the papers' costs recomputed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.experiment.yaml_layers import read_yaml
from bench.measures import published
from bench.measures.flops import FlopCheck, verify
from bench.system import terminal

VOCABULARY = 60
LENGTHS = (7, 5)
"""Tokens of source and target in the counted sentence pairs; different, so that a mix-up of the two is noticed."""


@dataclass(frozen=True)
class Counted:
    """The FLOPs of one pass (such as forward or one decoding step) of one variant of an architecture.

    They are counted in three ways: by the closed form, on the meta device, and with real tensors.
    """

    row: str
    variant: str
    check: FlopCheck


def variants() -> Iterator[tuple[str, str, Experiment]]:
    """Yields (row, variant, experiment) of every row at the demo preset, and of the `variants` in its YAML file."""
    seen: set[Path] = set()
    for row, path in row_files().items():
        experiment = resolve(path, row=row)
        yield row, "", experiment
        if path not in seen:
            for name, settings in (read_yaml(path).get("variants") or {}).items():
                yield row, name, resolve(path, row=row, suite=[{"model": settings}])
        seen.add(path)


def count_flops(device: str) -> Iterator[Counted]:
    """Counts four passes of every variant: forward, training, encode with start, one decoding step."""
    for row, variant, experiment in variants():
        torch.manual_seed(1)
        model = experiment.build(VOCABULARY, VOCABULARY)
        for check in verify(model, *LENGTHS, device):
            yield Counted(row, variant, check)


def flops(device: str) -> bool:
    """Prints every count. Returns True if all agree.

    Raises:
        ValueError: the device does not exist.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: no GPU is visible to torch; use --device cpu")
    rows, differ = [], 0
    for counted in count_flops(device):
        check, named = counted.check, f"{counted.row}, {counted.variant}" if counted.variant else counted.row
        differ += not check.agrees
        numbers = [f"{number:,}" for number in (check.closed, check.meta, check.real)]
        rows.append([named, check.pass_name, *numbers, "equal" if check.agrees else "DIFFERS"])
    columns = [("row", "left"), ("pass", "left"), ("closed form", "right"), ("meta device", "right")]
    terminal.table([*columns, (f"real tensors, {device}", "right"), ("", "left")], rows)
    terminal.say(
        f"FLOPs of two sentence pairs of {LENGTHS[0]} + {LENGTHS[1]} tokens, {VOCABULARY} words, demo sizes; torch "
        f"{torch.__version__}. {len(rows)} passes, {differ} differ."
    )
    return not differ


def published_costs() -> bool:
    """Prints the training costs of Table 2 as published and as recomputed. Returns True if all agree."""
    found = published.verify()
    rows = [
        [
            one.row,
            one.direction,
            one.clock,
            f"{one.published:.1e}",
            f"{one.computed:.3e}",
            f"{one.error:+.1%}",
            "equal" if one.agrees else "DIFFERS",
        ]
        for one in found
    ]
    columns = [("row", "left"), ("direction", "left"), ("days x devices", "left"), ("published", "right")]
    terminal.table([*columns, ("computed", "right"), ("difference", "right"), ("", "left")], rows)
    differ = sum(not one.agrees for one in found)
    terminal.say(
        f"Training cost in FLOP by the clock, Table 2 of Vaswani et al. 2017; an ensemble is 8 x the printed single "
        f"model. {len(rows)} costs, {differ} beyond {published.TOLERANCE:.1%}."
    )
    return not differ
