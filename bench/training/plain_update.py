"""An update as training makes it, without Lightning and the callbacks of a run: for measurements of speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from models.parts.batch import Batch
from models.parts.translator import Translator


def plain_update(
    model: Translator, batches: Iterator[Batch], precision: str, clip: float | None
) -> Callable[[], Batch]:
    """A function that makes the next update and returns its batch. On a GPU it does not wait for the device.

    An update reads a batch, copies it to the device, and makes the forward pass, the backward pass, the clipping, and
    the steps of optimizer and schedule.

    Args:
        model: The model, on its device, with its `optimization` set.
        batches: The batches of the updates.
        precision: As `training.precision`.
        clip: As `training.clip`.
    """
    device, configured = model.device, model.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    mixed = MixedPrecision("bf16-mixed", device.type) if precision == "bf16-mixed" else None  # that of a run

    def update() -> Batch:
        batch = next(batches).to(device)
        with mixed.forward_context() if mixed else nullcontext():
            loss = model.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        scheduler.step()
        return batch

    return update
