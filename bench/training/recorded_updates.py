"""Training updates whose forward and backward pass is launched as one CUDA graph (bench/system/cuda_graphs.py).

Batches are padded to few shapes, and the loss is computed at every position, where the label PAD counts 0, because the
number of real positions changes from batch to batch. This is done whether an update was recorded or not, so a resumed
run, which records again, computes the same. Clipping and the optimizer are launched as usual.

bf16-mixed is as without graphs: Lightning's autocast casts a weight wherever it is used, because the gradients of a
weight that was cast once for all steps of a recurrence would be summed in bf16. In a graph these casts cost no launch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from bench.data.batches import PairBatches
from bench.measures.flops import FlopCounter
from bench.system.cuda_graphs import LENGTH_MULTIPLE, Record, RecordedFunction
from models.parts.accumulation import Gradients, gradients_of
from models.parts.batch import PAD, Batch, Tokens
from models.parts.translator import Translator

MOST_SHAPES = 256
"""Shapes that are recorded. The longer side of a batch decides its number of pairs, so there are about as many shapes
as lengths, times the few multiples that the shorter side has beside each of them. A graph takes some megabytes."""


class RecordedUpdates:
    """The loss of a batch and its gradients. Set as `Translator.differentiate`.

    The loss is the cross entropy, weighted as in `cross_entropy_loss`.

    Args:
        model: A model that `is_repeatable`, on its device.
        record: Records a function; default: as a CUDA graph.
    """

    def __init__(self, model: Translator, record: Record | None = None) -> None:
        self.model, self.parameters = model, list(model.trainable_parameters())
        self.recorded = RecordedFunction(self.compute, MOST_SHAPES, record)

    @property
    def launches(self) -> int:
        """Batches, or parts of batches, that were computed by a recorded graph."""
        return self.recorded.launches

    def __call__(self, batch: Batch) -> tuple[Tensor, Gradients]:
        weight = self.parameters[0].new_full((), self.weight(batch))
        loss, *gradients = self.recorded(batch.source.ids_BS, batch.target.ids_BS, weight)
        return loss, gradients

    def weight(self, batch: Batch) -> float:
        """Return the factor of the summed losses of all tokens, with which the sum is `cross_entropy_loss`."""
        if self.model.optimization.normalization == "token":
            return batch.loss_weight / sum(batch.target.lengths_B)
        return batch.sentence_loss_weight / len(batch.target.lengths_B)

    def compute(self, source_BS: Tensor, target_BT: Tensor, weight: Tensor) -> list[Tensor | None]:
        """Return the loss and its gradients."""
        source, target = Tokens(source_BS, ()), Tokens(target_BT, ())
        hidden_BTD = self.model.decode(self.model.encode(source), Batch(source, target).prefix)
        loss = weight * functional.cross_entropy(
            self.model.project(hidden_BTD.flatten(0, 1)),
            target_BT.flatten(),
            ignore_index=PAD,
            reduction="sum",
            label_smoothing=self.model.optimization.label_smoothing,
        )
        return [loss.detach(), *gradients_of(loss, self.parameters)]


def record_updates(
    model: Translator, data: PairBatches, flop_counter: FlopCounter, reward_share: float
) -> RecordedUpdates | None:
    """Let a model train by recorded updates, on batches of few shapes; FLOPs are counted accordingly.

    Args:
        reward_share: Share of the reward phase (`training.reward.share`).

    Returns:
        The updates; None if the model is not repeatable or the training has a reward phase. Nothing changes then.
    """
    if reward_share or not model.is_repeatable(training=True):
        return None
    model.differentiate = RecordedUpdates(model)
    data.multiple, flop_counter.projects_padding = LENGTH_MULTIPLE, True
    return model.differentiate
