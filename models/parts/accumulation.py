"""Gradient accumulation: a batch is computed in parts, one after another, so that only one part's activations are held.

The gradient of a sum of losses is the sum of their gradients. So if the weights of the parts' losses sum to that of the
whole batch (`Batch.split`), loss and gradient are those of the whole batch, up to rounding. Two things differ: dropout
draws other random numbers, and a layer that looks at the whole batch (the gates and the balance loss of a mixture of
experts) looks at one part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from models.parts.batch import Batch

Gradients = list[Tensor | None]
"""One gradient for each trainable parameter; None for a parameter that does not enter the loss."""


def gradients_of(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Gradients:
    """Return the gradients of a loss.

    Autocast is for the forward pass; the backward pass takes its types from there. Autocast does not know "meta".
    """
    with nullcontext() if loss.is_meta else torch.autocast(loss.device.type, enabled=False):
        return list(torch.autograd.grad(loss, parameters, allow_unused=True))


def accumulated_loss(
    differentiate: Callable[[Batch], tuple[Tensor, Gradients]],
    parts: Sequence[Batch],
    parameters: Sequence[nn.Parameter],
) -> Tensor:
    """Return the sum of the parts' losses, whose backward pass gives the parameters the sum of the parts' gradients.

    Each part's gradient is computed here, before the next part, and its activations are freed. So whoever calls
    `backward` on the result need not know that there were parts.

    Args:
        differentiate: Returns the weighted loss of a part and its gradients. They are overwritten here.
        parts: The parts of the batch.
        parameters: The trainable parameters. One without a gradient in any part keeps none.
    """
    total, gradients = torch.zeros((), device=parameters[0].device), Gradients([None] * len(parameters))
    for part in parts:
        loss, found = differentiate(part)
        for index, gradient in enumerate(found):
            if gradient is not None:
                kept = gradients[index]
                gradients[index] = gradient if kept is None else kept.add_(gradient)
        total = total + loss
    return _KnownGradients.apply(total, gradients, *parameters)


class _KnownGradients(torch.autograd.Function):
    """The identity on a loss whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Gradients, *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        (factor,), gradients, ctx.gradients = grad_outputs, ctx.gradients, None
        return None, None, *(None if gradient is None else gradient.mul_(factor) for gradient in gradients)
