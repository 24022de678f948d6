"""The contract that every architecture keeps, and the loss, optimiser and schedule that all of them share.

A translator turns source token ids into hidden states and logits, in two ways that must agree: `encode` and `decode`
read a whole target at once (teacher forcing, training); `start` and `step` write one token after another (decoding).
Everything outside models/ asks for this contract only and never names an architecture.

Letters in names: B batch  S source length  T target length  D width  H heads  V vocabulary  N real (unpadded) tokens
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.parts.batch import Batch, Tokens
from models.parts.flops import NO_FLOPS, Flops, product
from models.parts.optimization import OptimizationSettings


class State(NamedTuple):
    """All that `step` needs: two trees (tuples) of tensors, batch first.

    `source` depends on the source sentence alone, so the beams of one sentence share its values; `past` is what this
    hypothesis has written, so it follows its beam when beams are re-ordered.
    """

    source: Any
    past: Any


class Step(NamedTuple):
    """One decoding step: the hidden state that `project` takes, the next state, and where the source was looked at."""

    hidden_BD: Tensor
    state: State
    attention_BS: Tensor | None


class Translator(pl.LightningModule, ABC):
    """Base of every architecture. A subclass makes its layers and `self.output`, and writes the methods below.

    Shapes: `encode` takes ids_BS; `decode` gives hidden_BTD for the prefix ids_BT; `project` gives logits over V.
    Costs are those of one sentence (pair) without padding, by the convention of docs/flops.md.
    """

    output: nn.Linear  # hidden state -> vocabulary

    def __init__(self) -> None:
        super().__init__()
        self.optimization = OptimizationSettings()
        self.objective: Callable[[Translator, Batch], Tensor] = likelihood

    # --- what an architecture writes ------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, source: Tokens) -> Any:
        """The memory that `decode` and `start` read: the tree of tensors, batch first, that it makes of a source."""

    @abstractmethod
    def decode(self, memory: Any, target: Tokens) -> Tensor:
        """hidden_BTD of every position of the prefix `target` (BOS first), none of which sees a later one."""

    @abstractmethod
    def start(self, memory: Any) -> State:
        """The state before the first step."""

    @abstractmethod
    def step(self, previous_B: Tensor, state: State) -> Step:
        """One more position: equal to `decode` at that position."""

    @abstractmethod
    def flops_encode(self, source_length: int) -> Flops:
        """Cost of `encode`."""

    def flops_decode(self, source_length: int, target_length: int) -> Flops:
        """Cost of `decode` for all positions of the target, without `project`. Here: each costs what a step does."""
        return self.flops_step(source_length, 0) * target_length

    def flops_start(self, source_length: int) -> Flops:
        """Cost of `start`."""
        return NO_FLOPS

    @abstractmethod
    def flops_step(self, source_length: int, position: int) -> Flops:
        """Cost of `step` at a position counted from 0, without `project`."""

    def flops_spared(self) -> tuple[Flops, Flops]:
        """What `encode`, and what `decode`, does not spend on a position of padding: layers that pick the real ones."""
        return NO_FLOPS, NO_FLOPS

    def settle(self) -> None:
        """Makes the work of a pass depend on its shapes alone, which counting needs: a router assigns evenly."""

    def observed(self) -> dict[str, float]:
        """What evaluation has cost since the last call where that is no matter of shapes, such as experts per token."""
        return {}

    # --- what all of them share -----------------------------------------------------------------------------------

    def project(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary. Apart from `decode`, so that the loss pays for real positions only."""
        return self.output(hidden)

    def flops_project(self) -> Flops:
        """Cost of `project` for one position."""
        return product(1, self.output.in_features, self.output.out_features)

    def flops(self, source_length: int, target_length: int) -> Flops:
        """Cost of one sentence pair, EOS counted in both lengths."""
        return (
            self.flops_encode(source_length)
            + self.flops_decode(source_length, target_length)
            + self.flops_project() * target_length
        )

    def initial_state(self, *shape: int, like: Tensor) -> Tensor:
        """Zeros that a recurrence begins with.

        They require gradients, although nobody reads those: then a fused and an unrolled cell do the same products
        in the backward pass, and the counted cost does not depend on which one ran.
        """
        return torch.zeros(shape, dtype=like.dtype, device=like.device, requires_grad=torch.is_grad_enabled())

    def logits(self, memory: Any, batch: Batch) -> Tensor:
        """logits_NV for each real target token, sentence by sentence; `memory` is that of the batch's sources."""
        hidden_BTD = self.decode(memory, batch.prefix)
        return self.project(hidden_BTD.flatten(0, 1).index_select(0, batch.target.real_N))

    def token_losses(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """loss_N: cross entropy (nats) of each real target token, sentence by sentence."""
        logits_NV = self.logits(self.encode(batch.source), batch)
        labels_N = batch.target.ids_N
        return functional.cross_entropy(logits_NV, labels_N, label_smoothing=label_smoothing, reduction="none")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """What the objective makes of the batch, by default the likelihood, and the architecture's own terms.

        Times the share of the batch that is here: 1, unless several processes read parts of it.
        """
        loss, extra = self.objective(self, batch), self.extra_loss()
        share = batch.share if self.optimization.normalization == "token" else batch.share_of_sentences
        return (loss if extra is None else loss + extra) * share

    def extra_loss(self) -> Tensor | None:
        """What the architecture adds to the loss of the batch that it has just read, if anything."""
        return None

    def configure_optimizers(self) -> Any:
        optimization = self.optimization.optimizer
        try:
            optimizer = getattr(torch.optim, optimization.name)(
                self.trained_parameters(), lr=optimization.lr, **optimization.settings
            )
        except (AttributeError, TypeError) as error:
            raise ValueError(f"training.optimizer: {error}") from error
        # Lightning steps the scheduler after each update, so its count n belongs to update n + 1.
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: self.optimization.schedule.factor(n + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def parameter_counts(self) -> tuple[int, int]:
        """(all parameters, those outside embeddings and softmax); the second is the size that presets aim at."""
        lookups = [module for module in self.modules() if isinstance(module, nn.Embedding)]
        outside = {id(parameter) for module in [*lookups, self.output] for parameter in module.parameters()}
        counts = {id(parameter): parameter.numel() for parameter in self.parameters()}
        return sum(counts.values()), sum(count for key, count in counts.items() if key not in outside)


def likelihood(model: Translator, batch: Batch) -> Tensor:
    """Mean loss over the real target tokens of the batch, or over its sentences, as the recipe has it."""
    losses_N = model.token_losses(batch, model.optimization.label_smoothing)
    return (
        losses_N.mean() if model.optimization.normalization == "token" else losses_N.sum() / len(batch.target.lengths_B)
    )
