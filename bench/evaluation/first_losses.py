"""The losses of a row's first three updates: numbers that change if the code of the row changes.

They do not depend on the job: the row has the settings of the preset demo without a recipe, a vocabulary of 23 tokens
and a fixed batch, in float64 on the CPU, at the peak learning rate. Every run stores those of the code that made it, so
that a report notices runs that other code made. tests/evaluation/test_first_losses.py has the values of every row.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn.utils import clip_grad_norm_

from bench.experiment.loading import member_row, resolve, row_files
from bench.tracking.reading import FIRST_LOSSES_TAG
from models.parts.batch import EOS, UNK, Batch, Tokens

TOLERANCE = 1e-6
"""Largest relative difference of equal losses. Initial weights are drawn in float32, whose last bit depends on the
processor; a change of the code moves a loss by more than 1e-4."""

VOCABULARY = 23
UPDATES = 3
SOURCE_LENGTHS, TARGET_LENGTHS = (4, 2, 3), (2, 4, 3)


@functools.cache
def first_losses(row: str) -> tuple[float, ...]:
    """The losses of the first updates of a row, those of a member for an ensemble; empty for an unknown row.

    The state of torch's random generator stays as it is.
    """
    path = row_files().get(row)
    if path is None:
        return ()
    job = resolve(path, preset="demo", row=member_row(path, row) or row, tuned=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = job.build(VOCABULARY, VOCABULARY).double()
        model.optimization = job.training
        optimizer = model.configure_optimizers()["optimizer"]
        batch, losses = _batch(), []
        for number in range(UPDATES):
            optimizer.zero_grad()
            loss = model.training_step(batch, number)
            loss.backward()
            if job.training.clip:
                clip_grad_norm_(model.parameters(), job.training.clip)
            optimizer.step()
            losses.append(loss.item())
    return tuple(losses)


def _batch() -> Batch:
    """The same three sentence pairs in every version."""
    return Batch(_sentences(SOURCE_LENGTHS, 3), _sentences(TARGET_LENGTHS, 5))


def _sentences(lengths: Sequence[int], stride: int) -> Tokens:
    """Sentences in which each token follows from its position, with EOS at the end and PAD after it."""
    ids_BS = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for sentence, length in enumerate(lengths):
        for position in range(length - 1):
            ids_BS[sentence, position] = UNK + 1 + (7 * sentence + stride * position) % (VOCABULARY - UNK - 1)
        ids_BS[sentence, length - 1] = EOS
    return Tokens(ids_BS, tuple(lengths))


def is_from_other_code(tags: Mapping[str, str]) -> bool:
    """Whether the first losses of a run differ from those of this code. False for a run that has stored none."""
    if FIRST_LOSSES_TAG not in tags:
        return False
    try:
        stored = [float(loss) for loss in json.loads(tags[FIRST_LOSSES_TAG])]
    except (ValueError, TypeError):
        return True
    here = first_losses(tags.get("row", ""))
    return len(stored) != len(here) or not all(
        math.isclose(one, other, rel_tol=TOLERANCE) for one, other in zip(stored, here, strict=True)
    )
