"""What happens if an update does not fit in the memory of a GPU: the batches are divided into more parts.

Whoever trains (bench/runs/job.py) catches `UpdateTooLarge` and trains on from the last checkpoint with twice as many
parts (`training.accumulate`). This is done outside `train`, because a GPU may run out of memory anywhere in an update,
also in the backward pass, and a fresh start leaves nothing of the failed update behind.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch

from models.parts.batch import Batch
from models.parts.translator import Translator


class UpdateTooLarge(Exception):
    """An update did not fit in the memory of the GPU, and its batch can be divided into more parts."""


class MemoryLimit(pl.Callback):
    """Tells an update that ran out of memory from other work that did, such as a validation.

    Attributes:
        pairs: Sentence pairs of the update that is being computed; 0 between updates.
    """

    def __init__(self) -> None:
        self.pairs = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.pairs = len(batch.target.lengths_B)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.pairs = 0

    @contextmanager
    def reported(self, parts: int) -> Iterator[None]:
        """Raises UpdateTooLarge if an update in so many parts ran out of memory, and not each part was one pair."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            if self.pairs > parts:
                raise UpdateTooLarge(str(error)) from error
            raise


def free_memory(model: Translator) -> None:
    """Frees what an update that failed has left: gradients, the optimizer, and the GPU's unused blocks."""
    model.zero_grad(set_to_none=True)
    model.trainer = None
    gc.collect()
    torch.cuda.empty_cache()
