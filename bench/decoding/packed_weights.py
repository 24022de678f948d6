"""Linear layers with packed weights, for decoding on a CPU.

A decoding step multiplies few rows, one for each hypothesis, with whole weight matrices. `nn.Linear` gives the weights
to the matrix product as they are stored. oneDNN can first copy them into the order in which its kernels read them
(packed weights), as PyTorch's own compiler does for inference. The product of 5 rows with 8,000 x 256 weights then
takes a quarter of the time, that of 320 rows four fifths (docs/latency.md). Layers of other classes are left alone,
such as the weight-normalised ones of ConvS2S and `nn.LSTM`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALLEST = 2**17
"""Weights of a layer that is packed. With fewer, the product of one row takes longer with packed weights."""

IN_CACHE = 2**20
"""Weights of all packed layers from which on a step reads them from beyond the cores' own caches.

With fewer, the product of a single row is faster as `nn.Linear` computes it, in every layer.
"""

ROWS = 64
"""Rows for which oneDNN chooses the order. The measured time is the same for orders chosen for 5, 64 and 320 rows."""


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """Within this block, the large linear layers of `model` compute with packed weights, if it is in fp32 on a CPU.

    The weights must not change within the block, and the model must not be copied or pickled. Packing reads all weights
    once and needs as much memory again, so a caller that translates often with the same weights opens the block once;
    an inner block for the same model does nothing. Results differ from those of `nn.Linear` by rounding only.

    For every new number of rows oneDNN makes a kernel for each layer, which takes a moment, and keeps up to 1,024 of
    them until the process ends: at most about half a gigabyte (ONEDNN_PRIMITIVE_CACHE_CAPACITY limits their number).
    """
    layers = []
    if has_kernels():
        layers = [layer for layer in model.modules() if type(layer) is nn.Linear and can_pack(layer)]
    fewest_rows = 2 if sum(layer.weight.numel() for layer in layers) < IN_CACHE else 1
    try:
        for layer in layers:
            layer.forward = packed_product(layer, fewest_rows)  # hides the method of the class
        yield
    finally:
        for layer in layers:  # another thread that translates with this model may have been here already
            vars(layer).pop("forward", None)


def has_kernels() -> bool:
    """Whether this build of PyTorch has the kernels, and fp32 is computed in fp32."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and not torch.is_autocast_enabled("cpu")


def can_pack(layer: nn.Linear) -> bool:
    """Whether the layer is large enough, in fp32 on a CPU, and not packed by an outer block."""
    return (
        "forward" not in vars(layer)
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and layer.weight.numel() >= SMALLEST
        and (layer.bias is None or layer.bias.is_contiguous())
        and not layer._forward_pre_hooks  # one may compute the weights, as old weight normalisation does
    )


def packed_product(layer: nn.Linear, fewest_rows: int) -> Callable[..., Tensor]:
    """Return the function x_BA -> x W^T + b of a layer, with packed W from `fewest_rows` rows on.

    Letters: A inputs  E outputs.
    """
    weight_EA, bias_E = layer.weight.detach(), layer.bias
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_EA, ROWS)
    product = torch.ops.mkldnn._linear_pointwise.default

    def multiply(x_BA: Tensor) -> Tensor:
        too_few = x_BA.numel() < fewest_rows * layer.in_features
        if too_few or x_BA.dtype != torch.float32:  # another dtype: autocast, or a mistake that `linear` reports
            return functional.linear(x_BA, weight_EA, bias_E)
        return product(x_BA, packed, bias_E, "none", [], "")

    return multiply
