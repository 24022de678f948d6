"""The contract that every architecture keeps, and the loss, optimiser and schedule that all of them share.

A translator turns source token ids into hidden states and logits, in two ways that must agree: `encode` and `decode`
read a whole target at once (teacher forcing, training); `start` and `step` write one token after another (decoding).
Everything outside models/ asks for this contract only and never names an architecture.

Letters in names: B batch  S source length  T target length  D width  H heads  V vocabulary  N real (unpadded) tokens
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

PAD, BOS, EOS, UNK = 0, 1, 2, 3
"""Token ids that mean the same in every vocabulary: padding, begin of sentence, end of sentence, unknown."""


def sent(from_host: Tensor, device: torch.device) -> Tensor:
    """A copy on the device that the host does not wait for, as it would in torch.tensor(..., device=...)."""
    return from_host.to(device, non_blocking=True)


class Tokens(NamedTuple):
    """Token ids, padded on the right with PAD. The lengths live on the host: no shape waits for the device."""

    ids_BS: Tensor
    lengths_B: tuple[int, ...]

    @property
    def length_B(self) -> Tensor:
        """The lengths, on the device of the ids."""
        return sent(torch.tensor(self.lengths_B, device="cpu"), self.ids_BS.device)

    @property
    def mask_BS(self) -> Tensor:
        """True where a token is real."""
        position_S = torch.arange(self.ids_BS.shape[1], device=self.ids_BS.device)
        return position_S < self.length_B[:, None]

    @property
    def reversal_BS(self) -> Tensor:
        """Indices that reverse each sentence within its own length and leave the padding where it is."""
        position_S = torch.arange(self.ids_BS.shape[1], device=self.ids_BS.device)
        mirrored_BS = self.length_B[:, None] - 1 - position_S
        return torch.where(mirrored_BS >= 0, mirrored_BS, position_S)

    @property
    def real_N(self) -> Tensor:
        """Places of the real tokens in the flattened (B * S) ids, sentence by sentence."""
        position_S = torch.arange(self.ids_BS.shape[1], device="cpu")
        real_BS = position_S < torch.tensor(self.lengths_B, device="cpu")[:, None]  # a device would have to be asked
        return sent(real_BS.flatten().nonzero()[:, 0], self.ids_BS.device)

    @property
    def ids_N(self) -> Tensor:
        """The real tokens, sentence by sentence."""
        return self.ids_BS.flatten().index_select(0, self.real_N)

    def to(self, device: torch.device | str) -> Tokens:
        return Tokens(self.ids_BS.to(device, non_blocking=True), self.lengths_B)


class Block(NamedTuple):
    """What a batch costs: the lengths of its sentences, and the widths that both sides are padded to."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    padded: tuple[int, int]


class Batch(NamedTuple):
    """Sentence pairs. Both sides end in EOS; the target begins with its first word, not with BOS.

    Where several processes train one model, each holds a part of every batch, and their gradients are averaged.
    `share`, (target tokens here) x (processes) / (target tokens of all), is what its mean loss is multiplied
    by, so that the average is the mean over all tokens; `parts` are the blocks of all processes.
    """

    source: Tokens
    target: Tokens
    share: float = 1.0
    parts: tuple[Block, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Of the whole batch, whoever reads it."""
        padded = (self.source.ids_BS.shape[1], self.target.ids_BS.shape[1])
        return self.parts or (Block(self.source.lengths_B, self.target.lengths_B, padded),)

    @property
    def share_of_sentences(self) -> float:
        """What a mean over sentences is multiplied by instead of `share`: that counts sentences, not target tokens."""
        whole, part = [block.targets for block in self.blocks], self.target.lengths_B
        sentences, tokens = sum(map(len, whole)), sum(map(sum, whole))
        return self.share * (len(part) / sentences) * (tokens / sum(part))

    @property
    def prefix(self) -> Tokens:
        """What a decoder has read before it writes each token of the target: BOS, then all but the last."""
        ids_BT = functional.pad(self.target.ids_BS[:, :-1], (1, 0), value=BOS)
        return Tokens(ids_BT, self.target.lengths_B)

    def to(self, device: torch.device | str) -> Batch:
        return self._replace(source=self.source.to(device), target=self.target.to(device))


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


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of dense products, one multiply-add counted as 2: forward pass, and training step."""

    forward: int
    training: int

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.forward + other.forward, self.training + other.training)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.forward * times, self.training * times)

    __rmul__ = __mul__


NO_FLOPS = Flops(0, 0)

Layer = TypeVar("Layer", bound=nn.Module)


class Stack(nn.ModuleList, Generic[Layer]):
    """A ModuleList whose layers keep their type."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Layer]: ...


def product(rows: int, inner: int, columns: int, *, input_gradient: bool = True) -> Flops:
    """Cost of (rows x inner) @ (inner x columns).

    Forward 2 * rows * inner * columns. The backward pass makes one such product for each factor, so training costs
    3 x forward; 2 x where the input needs no gradient (frozen features).
    """
    forward = 2 * rows * inner * columns
    return Flops(forward, forward * (3 if input_gradient else 2))


@dataclass
class OptimizerSettings:
    """A torch.optim class and its arguments.

    Attributes:
        name: The class in torch.optim, such as Adam, SGD or Adadelta.
        lr: Learning rate, the peak of the schedule.
        settings: The other arguments of the class, such as {betas: [0.9, 0.98], eps: 1.0e-9}.
    """

    name: str = "Adam"
    lr: float = 1e-3
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class LearningRateSchedule:
    """Learning rate at update u (from 1): lr * min(1, u / warmup) * decay(u); decay begins after warmup + hold updates.

    Attributes:
        warmup: Updates of linear increase from 0.
        hold: Updates at the full rate after the warm-up.
        decay: none; inverse_sqrt: sqrt((warmup + hold) / u); halve: 0.5 ** (1 + (u - warmup - hold - 1) // every);
            plateau: a tenth for each validation whose loss was not the lowest so far (training.py counts them).
        every: For halve: updates between two halvings.
        floor: For plateau: the rate is not reduced below this; null: there is no such rate.
    """

    warmup: int = 0
    hold: int = 0
    decay: Literal["none", "inverse_sqrt", "halve", "plateau"] = "none"
    every: int = 1
    floor: float | None = None

    def factor(self, update: int) -> float:
        """What the learning rate is multiplied by at this update, counted from 1."""
        if update <= self.warmup:
            return update / self.warmup
        after = update - self.warmup - self.hold
        if after <= 0 or self.decay in ("none", "plateau"):
            return 1.0
        if self.decay == "inverse_sqrt":
            return (max(1, self.warmup + self.hold) / update) ** 0.5
        return 0.5 ** (1 + (after - 1) // self.every)


@dataclass
class OptimizationSettings:
    """How the loss is made and weights are moved: the same few settings for every architecture.

    Attributes:
        optimizer: Which optimiser.
        schedule: Which learning rate at which update.
        label_smoothing: Probability mass spread evenly over the vocabulary (Szegedy et al. 2016), 0 for none.
        normalization: What the loss is a mean over. token: target tokens. sentence: sentences, each with the sum over
            its tokens, as in papers whose learning rates and clipping are for that sum divided by the batch size.
    """

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: LearningRateSchedule = field(default_factory=LearningRateSchedule)
    label_smoothing: float = 0.0
    normalization: Literal["token", "sentence"] = "token"


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
