"""Floating-point operations: the counter of a training run, the cost of decoding, and a count that checks both.

The convention (docs/flops.md gives the reasons): dense products and convolutions; one multiply-add = 2 FLOPs. Model
FLOPs are those of each sentence pair at its real lengths; executed FLOPs are those of the padded batch.

Training adds closed forms, as integers. `verify` checks the closed forms: it runs the model on the meta device and on
real tensors and counts the operations that PyTorch dispatches. That never happens during training.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from models.parts.batch import Batch, Tokens
from models.parts.flops import Flops
from models.parts.translator import Translator

aten: Any = torch.ops.aten


class FlopCounter:
    """Sums the FLOPs of every batch that a model is trained on.

    The costs are cached by length, so a batch needs one dictionary look-up for each sentence. The sums are Python
    integers, which are exact at any size: a paper's run is 10^19, which neither a float nor 64 bits represent exactly.

    Attributes:
        projects_padding: Whether training computes the output layer at padding, too (recorded_updates.py).
    """

    def __init__(self, model: Translator) -> None:
        self.model, self.projects_padding = model, False
        self.model_flops = 0
        self.executed_flops = 0
        self._pair: dict[tuple[int, int], int] = {}
        self._padded: dict[tuple[int, int], int] = {}
        # Caches of the instance: a cache on a method would keep every trained model in memory.
        self._step, self._sampling = functools.cache(self._cost_step), functools.cache(self._cost_sampling)

    def add(self, batch: Batch) -> None:
        """Adds one training batch: forward, loss and backward; of all processes together if several share the batch.

        Executed: all B sentences at the padded lengths S and T, except what a model skips at padding, and the output
        layer unless it `projects_padding` (`token_losses` selects the real positions first).
        """
        encoder, decoder = self.model.flops_skipped_at_padding()
        for sources, targets, padded in batch.shapes:
            for pair in zip(sources, targets, strict=True):
                cost = self._pair.get(pair)
                if cost is None:
                    cost = self._pair[pair] = self.model.flops(*pair).training
                self.model_flops += cost
            cost = self._padded.get(padded)
            if cost is None:
                body = self.model.flops_encode(padded[0]) + self.model.flops_decode(*padded)
                cost = self._padded[padded] = body.training
            projected = len(targets) * padded[1] if self.projects_padding else sum(targets)
            self.executed_flops += cost * len(sources) + self.model.flops_project().training * projected
            self.executed_flops -= encoder.training * padding(sources, padded[0])
            self.executed_flops -= decoder.training * padding(targets, padded[1])

    def add_samples(self, pairs: Batch, count: int, rows_T: Sequence[int]) -> None:
        """Adds the translations that a model sampled and was trained on (reward.py): `count` for each source, in a row.

        Sampling costs encode and start once for each source, and a step and a projection for each token, all forward.
        Training costs decode and project, forward and backward; `add` already includes the encoder of the batch.

        Args:
            rows_T: Number of rows that were computed at each step, for the executed FLOPs.
        """
        sources, targets = pairs.source.lengths_B, pairs.target.lengths_B
        source_length, target_length = pairs.source.ids_BS.shape[1], pairs.target.ids_BS.shape[1]
        for length in sources[::count]:
            self.model_flops += self._cost_start(length)
        for pair in zip(sources, targets, strict=True):
            self.model_flops += self._sampling(*pair)
        project, padded = self.model.flops_project(), self.model.flops_decode(source_length, target_length)
        encoder, decoder = self.model.flops_skipped_at_padding()
        self.executed_flops += self._cost_start(source_length) * (len(sources) // count)
        self.executed_flops -= encoder.forward * padding(sources[::count], source_length)
        for position, rows in enumerate(rows_T):
            self.executed_flops += rows * (self._step(source_length, position) + project.forward)
        self.executed_flops += len(sources) * padded.training + sum(targets) * project.training
        self.executed_flops -= decoder.training * padding(targets, target_length)

    def _cost_start(self, source_length: int) -> int:
        return (self.model.flops_encode(source_length) + self.model.flops_start(source_length)).forward

    def _cost_step(self, source_length: int, position: int) -> int:
        return self.model.flops_step(source_length, position).forward

    def _cost_sampling(self, source_length: int, target_length: int) -> int:
        steps = sum(self._step(source_length, position) for position in range(target_length))
        training = self.model.flops_decode(source_length, target_length).training
        project = self.model.flops_project()
        return steps + training + (project.forward + project.training) * target_length

    def state_dict(self) -> dict[str, int]:
        return {"model_flops": self.model_flops, "executed_flops": self.executed_flops}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.model_flops, self.executed_flops = state["model_flops"], state["executed_flops"]


def padding(lengths: Sequence[int], width: int) -> int:
    """Number of padding positions if sentences of these lengths are padded to `width`."""
    return len(lengths) * width - sum(lengths)


def decoding_flops(model: Translator, source_length: int, output_length: int, beam: int) -> int:
    """Model FLOPs to translate one sentence: encode and start once, one hypothesis at the first position, then `beam`.

    Both lengths include EOS. The beam is counted as full at every later position, because the search refills the places
    of finished hypotheses.
    """
    total = model.flops_encode(source_length).forward + model.flops_start(source_length).forward
    for position in range(output_length):
        step = model.flops_step(source_length, position) + model.flops_project()
        total += step.forward * (beam if position else 1)
    return total


# --- counting -------------------------------------------------------------------------------------------------------


def _mkldnn_rnn(x: Any, w_ih: Any, w_hh: Any, *_: Any, **__: Any) -> int:
    """One layer in one direction on CPU: every step multiplies its input and its state by one matrix each."""
    return 2 * prod(x[:-1]) * (prod(w_ih) + prod(w_hh))


def _cudnn_rnn(x: Any, weights: Any, *_: Any, **__: Any) -> int:
    """All layers and directions in one call; the vectors among the weights are biases, which are free."""
    return 2 * prod(x[:-1]) * sum(prod(weight) for weight in weights if len(weight) == 2)


def _convolution_backward(out: Any, x: Any, w: Any, *rest: Any, **__: Any) -> int:
    """Each requested gradient costs as much as the forward pass; PyTorch's formula counts the groups twice."""
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, requested = rest
    return 2 * x[0] * prod((x if transposed else out)[2:]) * prod(w) * (bool(requested[0]) + bool(requested[1]))


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(_out: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Four products for the two of the forward pass. A fifth recomputes the scores and is not a model FLOP."""
    return 2 * sdpa_flop_count(query, key, value)


FORMULAS: dict[Any, Callable[..., int]] = {
    # Operations without a formula in PyTorch 2.13, which it would count as 0:
    aten.mkldnn_rnn_layer: _mkldnn_rnn,
    aten.mkldnn_rnn_layer_backward: lambda *args, **kwargs: 2 * _mkldnn_rnn(*args, **kwargs),
    aten._cudnn_rnn: _cudnn_rnn,
    aten._cudnn_rnn_backward: lambda *args, **kwargs: 2 * _cudnn_rnn(*args, **kwargs),
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.mv: lambda matrix, _vector, **_: 2 * prod(matrix),
    aten.addmv: lambda _out, matrix, _vector, **_: 2 * prod(matrix),
    aten.dot: lambda left, _right, **_: 2 * prod(left),
    aten.addbmm: lambda _out, left, right, **_: 2 * prod(left) * right[-1],
    # Operations that PyTorch counts differently from the convention:
    aten.convolution_backward: _convolution_backward,
    aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}

_FREE = """
arange bernoulli_ cat clone constant_pad_nd copy_ detach_ empty empty_like empty_strided fill_ flip full full_like
gather index index_add index_copy index_fill index_put index_put_ index_select _index_put_impl_ lift_fresh
_local_scalar_dense masked_fill_ masked_scatter new_empty new_empty_strided new_full new_ones new_zeros nonzero normal_
ones ones_like rand random_ rand_like randint randn randn_like randperm repeat repeat_interleave roll searchsorted
scalar_tensor scatter scatter_ scatter_add select_backward select_scatter slice_backward slice_scatter stack _to_copy
scatter_add_ tril triu unfold_backward uniform_ _unsafe_view unsafe_split squeeze_ t_ transpose_ unsqueeze_ zero_ zeros
zeros_like
embedding embedding_dense_backward max_pool2d_with_indices max_pool2d_with_indices_backward native_dropout
native_dropout_backward glu glu_backward softplus_backward
all amax amin aminmax any argmax argmin bincount cummax cumsum equal logsumexp max mean min norm prod sort std sum topk
var var_mean linalg_vector_norm
_softmax _softmax_backward_data _safe_softmax _log_softmax _log_softmax_backward_data nll_loss_forward nll_loss_backward
native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward native_batch_norm
native_batch_norm_backward _fused_rms_norm _fused_rms_norm_backward _weight_norm_interface
_weight_norm_interface_backward
_thnn_fused_lstm_cell _thnn_fused_lstm_cell_backward_impl _thnn_fused_gru_cell _thnn_fused_gru_cell_backward
_fused_sdp_choice _cudnn_rnn_flatten_weight _cudnn_init_dropout_state set_
"""

FREE = frozenset(_FREE.split())
"""Operations that are free by the convention, besides views and those that PyTorch tags as pointwise: creating and
moving numbers, look-ups, sums and maxima over an axis, softmax, norms, losses, and the elementwise part of a fused
recurrent cell, whose products are dispatched separately.
"""


class _Guard(TorchDispatchMode):
    """Records every executed operation that is neither counted nor known to be free."""

    def __init__(self, counted: dict[Any, Any]) -> None:
        super().__init__()
        self.counted, self.unknown = counted, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        free = packet.__name__ in FREE or func.is_view or torch.Tag.pointwise in func.tags
        if packet not in self.counted and not free:
            self.unknown.add(str(packet))
        return func(*args, **(kwargs or {}))


class UncountedOperation(Exception):
    """An operation has no formula and is not known to be free. It must not silently count as 0."""


def count(function: Callable[[], object]) -> int:
    """Returns the FLOPs of `function`, backward passes included, from the shapes of the dispatched products.

    The guard is outside the counter, so it sees the operations that remain after compound ones are decomposed.

    Raises:
        UncountedOperation: an operation has no formula and is not known to be free; the message names it.
    """
    guard = _Guard({**flop_registry, **FORMULAS})
    with guard, FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        function()
    if guard.unknown:
        raise UncountedOperation(
            f"no FLOP formula for {', '.join(sorted(guard.unknown))}: add one to FORMULAS, or the name to FREE"
        )
    return counter.get_total_flops()


@dataclass(frozen=True)
class FlopCheck:
    """One line of `verify`: the FLOPs of one pass, by closed form, on the meta device and on real tensors."""

    pass_name: str
    closed: int
    meta: int
    real: int

    @property
    def agrees(self) -> bool:
        return self.closed == self.meta == self.real


def _batch(lengths: tuple[int, int], sentences: int, device: torch.device | str) -> Batch:
    """A batch of sentences of equal lengths, so that there is no padding."""

    def side(length: int) -> Tokens:
        return Tokens(torch.ones(sentences, length, dtype=torch.long, device=device), (length,) * sentences)

    return Batch(side(lengths[0]), side(lengths[1]))


def _counts(model: Translator, source_length: int, target_length: int, sentences: int) -> list[int]:
    """Counted FLOPs of a forward pass, a training step, encode with start, and the last decoding step."""
    batch = _batch((source_length, target_length), sentences, model.device)
    with torch.no_grad():
        model.eval()
        model.set_routing("uniform")  # so that the FLOPs depend on the shapes only
        forward = count(lambda: model.token_losses(batch))
        start = count(lambda: model.start(model.encode(batch.source)))
        state, previous_B = model.start(model.encode(batch.source)), batch.target.ids_BS[:, 0]
        for _ in range(target_length - 1):
            state = model.step(previous_B, state).state
        step = count(lambda: model.project(model.step(previous_B, state).hidden_BD))

    def train() -> Tensor:
        loss = model.token_losses(batch).mean()
        loss.backward()
        return loss

    model.train()  # cuDNN's recurrent layers have no backward pass in evaluation mode
    return [forward, count(train), start, step]


def verify(
    model: Translator, source_length: int, target_length: int, device: torch.device | str = "cpu", sentences: int = 2
) -> list[FlopCheck]:
    """Compares the closed form with the counts on the meta device and on real tensors, at one shape without padding.

    The model is copied, so its weights and gradients do not change.
    """
    last = target_length - 1
    closed: list[Flops] = [
        model.flops(source_length, target_length),
        model.flops_encode(source_length) + model.flops_start(source_length),
        model.flops_step(source_length, last) + model.flops_project(),
    ]
    expected = [closed[0].forward, closed[0].training, closed[1].forward, closed[2].forward]
    names = ["forward", "training", "start", "step"]
    meta = _counts(copy.deepcopy(model).to("meta"), source_length, target_length, sentences)
    real = _counts(copy.deepcopy(model).to(device), source_length, target_length, sentences)
    return [FlopCheck(n, e * sentences, m, r) for n, e, m, r in zip(names, expected, meta, real, strict=True)]
