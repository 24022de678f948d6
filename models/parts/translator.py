"""The contract of all architectures: the base class `Translator`, with the loss and the optimizer that they share.

A translator maps source token ids to hidden states and logits, in two ways that must give the same numbers: `encode`
and `decode` process a whole target at once (teacher forcing, in training); `start` and `step` process one token at a
time (in decoding). Code outside models/ uses this contract only and never names an architecture.

Letters in names: B batch  S source length  T target length  D width  V vocabulary  N real (unpadded) tokens
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from models.parts.accumulation import Gradients, accumulated_loss, gradients_of
from models.parts.batch import Batch, Tokens
from models.parts.cross_entropy import cross_entropy
from models.parts.flops import NO_FLOPS, Flops, matmul_flops
from models.parts.optimization import OptimizationSettings

Routing = Literal["learned", "uniform"]
"""How a mixture of experts assigns tokens in evaluation mode; see `Translator.set_routing`."""


class State(NamedTuple):
    """The state of decoding: two trees (nested tuples) of tensors, batch first.

    Attributes:
        source: What depends on the source sentence only. All hypotheses in the beam of a sentence share these values.
        past: What depends on the tokens written so far. Beam search reorders it together with the hypotheses.
    """

    source: Any
    past: Any


class Step(NamedTuple):
    """The result of one decoding step.

    Attributes:
        hidden_BD: The input of `project`.
        state: The state for the next step.
        attention_BS: Attention weights over the source positions; None for an architecture without attention.
    """

    hidden_BD: Tensor
    state: State
    attention_BS: Tensor | None


class Translator(pl.LightningModule, ABC):
    """Base class of every architecture. A subclass creates its layers and `self.output`, and writes the methods below.

    Shapes: `encode` takes ids_BS; `decode` returns hidden_BTD for the prefix ids_BT; `project` returns logits over V.
    FLOPs are those of one sentence (or sentence pair) without padding, by the convention of docs/flops.md.
    """

    output: nn.Linear  # hidden state -> logits over the target vocabulary

    def __init__(self) -> None:
        super().__init__()
        self.optimization = OptimizationSettings()
        self.objective: Callable[[Translator, Batch], Tensor] = cross_entropy_loss
        self.differentiate: Callable[[Batch], tuple[Tensor, Gradients]] | None = None  # see `training_step`

    # --- what an architecture writes ------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, source: Tokens) -> Any:
        """Return the memory, the representation of the source that `decode` and `start` read.

        It is a tree (nested tuples) of tensors, batch first.
        """

    @abstractmethod
    def decode(self, memory: Any, target: Tokens) -> Tensor:
        """Return hidden_BTD for every position of the prefix `target` (BOS first). No position may see a later one."""

    @abstractmethod
    def start(self, memory: Any) -> State:
        """Return the state before the first decoding step."""

    @abstractmethod
    def step(self, previous_B: Tensor, state: State) -> Step:
        """Process one more target token; the result must equal `decode` at that position.

        On a CPU, two threads decode different batches at the same time. So `encode`, `start` and `step` must keep what
        depends on a batch in `memory` and in the state, not in the module.
        """

    @abstractmethod
    def flops_encode(self, source_length: int) -> Flops:
        """Return the FLOPs of `encode`."""

    def flops_decode(self, source_length: int, target_length: int) -> Flops:
        """Return the FLOPs of `decode` for all target positions, without `project`.

        Default: those of `start`, and at each position those of a step.
        """
        return self.flops_start(source_length) + self.flops_step(source_length, 0) * target_length

    def flops_start(self, source_length: int) -> Flops:
        """Return the FLOPs of `start`."""
        return NO_FLOPS

    @abstractmethod
    def flops_step(self, source_length: int, position: int) -> Flops:
        """Return the FLOPs of `step` at a position (counted from 0), without `project`."""

    # --- mixtures of experts only: the defaults are right for every other architecture ------------------------------

    def set_routing(self, routing: Routing) -> None:
        """Choose how tokens are assigned to experts in evaluation mode.

        learned: by the trained gates (the default). A gate with thresholds then assigns each token to more or fewer
        experts than k, depending on the data. uniform: by rank in the batch, so that all experts get the same number of
        tokens. The cost of a pass then depends on shapes only, which is necessary to count FLOPs.
        """

    def pop_routing_statistics(self) -> dict[str, float]:
        """Return statistics of evaluation mode since the last call, such as experts_per_token, and reset them."""
        return {}

    def is_repeatable(self, *, training: bool) -> bool:
        """Return whether all batches of a shape need the same operations, and none is read back from the device.

        A GPU can then record an update, or a step of decoding, and repeat it. In training, a fused recurrence with
        dropout between its layers cannot be repeated: whenever the random numbers are seeded, cuDNN reads a seed back
        and moves the state of its dropout.
        """
        recurrences = (module for module in self.modules() if isinstance(module, nn.RNNBase))
        return not training or not any(recurrence.dropout for recurrence in recurrences)

    def flops_skipped_at_padding(self) -> tuple[Flops, Flops]:
        """Return the FLOPs that `encode` and `decode` do not spend on one position of padding.

        They are those of layers that compute real positions only.
        """
        return NO_FLOPS, NO_FLOPS

    # --- what all architectures share -----------------------------------------------------------------------------

    def project(self, hidden: Tensor) -> Tensor:
        """Return logits over the vocabulary. Separate from `decode`, so that the loss computes real positions only."""
        return self.output(hidden)

    def flops_project(self) -> Flops:
        """Return the FLOPs of `project` for one position."""
        return matmul_flops(1, self.output.in_features, self.output.out_features)

    def flops(self, source_length: int, target_length: int) -> Flops:
        """Return the FLOPs of one sentence pair; both lengths include EOS."""
        return (
            self.flops_encode(source_length)
            + self.flops_decode(source_length, target_length)
            + self.flops_project() * target_length
        )

    def initial_state(self, *shape: int, like: Tensor) -> Tensor:
        """Return the zeros with which a recurrence begins, on the device of `like`.

        They have the precision of the weights, also where autocast makes products coarser: a state that is rounded to
        bf16 at every position loses all that is smaller than 2^-9 of it. They require gradients so that a fused and an
        unrolled cell compute the same products in the backward pass; otherwise the counted FLOPs would depend on which
        of the two ran.
        """
        dtype = next(self.parameters()).dtype
        return torch.zeros(shape, dtype=dtype, device=like.device, requires_grad=torch.is_grad_enabled())

    def logits(self, memory: Any, batch: Batch) -> Tensor:
        """Return logits_NV for each real target token, sentence by sentence; `memory` is `encode(batch.source)`."""
        hidden_BTD = self.decode(memory, batch.prefix)
        return self.project(hidden_BTD.flatten(0, 1).index_select(0, batch.target.real_index_N))

    def token_losses(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return loss_N, the cross entropy in nats of each real target token, sentence by sentence."""
        logits_NV = self.logits(self.encode(batch.source), batch)
        labels_N = batch.target.ids_N
        return cross_entropy(logits_NV, labels_N, label_smoothing)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, computed in `accumulate` parts if the optimization settings say so.

        If `differentiate` is set, it computes loss and gradients of each part (bench/training/recorded_updates.py).
        """
        count, parameters = self.optimization.accumulate or 1, list(self.trainable_parameters())

        def differentiate(part: Batch) -> tuple[Tensor, Gradients]:
            loss = self.weighted_loss(part)
            return loss.detach(), gradients_of(loss, parameters)

        if count == 1 and self.differentiate is None:
            return self.weighted_loss(batch)
        return accumulated_loss(self.differentiate or differentiate, batch.split(count), parameters)

    def weighted_loss(self, batch: Batch) -> Tensor:
        """Return the objective (by default the cross entropy) plus the auxiliary loss, each weighted.

        The weight is that of this part of a batch; it is 1 for a whole batch.
        """
        loss, auxiliary = self.objective(self, batch), self.auxiliary_loss()
        return loss if auxiliary is None else loss + auxiliary * batch.loss_weight

    def auxiliary_loss(self) -> Tensor | None:
        """Return the architecture's own loss term for the last batch, or None. Resets it."""
        return None

    def configure_optimizers(self) -> Any:
        settings = self.optimization.optimizer
        try:
            optimizer = getattr(torch.optim, settings.name)(
                self.trainable_parameters(), lr=settings.lr, **settings.settings
            )
        except (AttributeError, TypeError) as error:
            raise ValueError(f"training.optimizer: {error}") from error
        # Lightning steps the scheduler after each update, so step n of the scheduler sets the rate of update n + 1.
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: self.optimization.schedule.factor(n + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def trainable_parameters(self) -> Iterable[nn.Parameter]:
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def parameter_counts(self) -> tuple[int, int]:
        """Return (all parameters, parameters outside embeddings and softmax). Presets are sized by the second."""
        lookups = [module for module in self.modules() if isinstance(module, nn.Embedding)]
        outside = {id(parameter) for module in [*lookups, self.output] for parameter in module.parameters()}
        counts = {id(parameter): parameter.numel() for parameter in self.parameters()}
        return sum(counts.values()), sum(count for key, count in counts.items() if key not in outside)

    def multiplied_parameters(self) -> int:
        """Return the parameters that a token is multiplied with: all but look-up tables; a tied table counts once.

        This is the size of a model in scaling curves (bench/scaling/): the FLOPs of a token follow it, and look-up
        tables, which grow with the vocabulary, cost none.
        """
        tables = {id(p): p.numel() for m in self.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        for parameter in self.output.parameters():
            tables.pop(id(parameter), None)
        return self.parameter_counts()[0] - sum(tables.values())


def cross_entropy_loss(model: Translator, batch: Batch) -> Tensor:
    """Return the weighted mean cross entropy of the batch: over real target tokens, or sentences (`normalization`)."""
    losses_N = model.token_losses(batch, model.optimization.label_smoothing)
    if model.optimization.normalization == "token":
        return losses_N.mean() * batch.loss_weight
    return losses_N.sum() / len(batch.target.lengths_B) * batch.sentence_loss_weight


@contextmanager
def evaluation_mode(model: Translator) -> Iterator[None]:
    """Inference mode, with all modules in evaluation mode. On exit each module returns to its previous mode."""
    in_training = [module for module in model.modules() if module.training]
    if in_training:  # setting the mode of every module takes as long as a step of decoding
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in in_training:
            module.training = True
