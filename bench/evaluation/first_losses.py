"""The losses of a row's first three updates: numbers that change if the code of the row changes.

They do not depend on the job: the row has the settings of the preset demo without a recipe, a vocabulary of 23 tokens
and a fixed batch, in float64 on the CPU, at the peak learning rate. Every run stores those of the code that made it,
and bench/measures/first_losses.csv has those of the present code, so a report notices runs that other code made.
`python -m bench.evaluation.first_losses` prints the file.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch.nn.utils import clip_grad_norm_

from bench.experiment.loading import member_row, resolve, row_files
from models.parts.batch import EOS, UNK, Batch, Tokens

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


if __name__ == "__main__":
    print("row,first,second,third")
    for name in sorted(row_files()):
        print(name, *(f"{loss:.9f}" for loss in first_losses(name)), sep=",")
