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

SMALLEST = 2**16
"""Weights of a layer that is packed. Smaller matrices stay in the cache of a core, and packing gains nothing."""

ROWS = 64
"""Rows for which oneDNN chooses the order. The measured time is the same for orders chosen for 5, 64 and 320 rows."""


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """Within this block, the large linear layers of `model` compute with packed weights, if it is in fp32 on a CPU.

    The weights must not change within the block. Packing reads all weights once and needs as much memory again, so a
    caller that translates often with the same weights opens the block once; an inner block for the same model does
    nothing. Results differ from those of `nn.Linear` by rounding only.
    """
    layers = []
    if has_kernels():
        layers = [layer for layer in model.modules() if type(layer) is nn.Linear and can_pack(layer)]
    try:
        for layer in layers:
            layer.forward = packed_product(layer.weight.detach(), layer.bias)  # hides the method of the class
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
    )


def packed_product(weight_EA: Tensor, bias_E: Tensor | None) -> Callable[..., Tensor]:
    """Return the function x_BA -> x W^T + b, with packed W. Letters: A inputs  E outputs."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_EA, ROWS)
    product = torch.ops.mkldnn._linear_pointwise.default
    return lambda x_BA: product(x_BA, packed, bias_E, "none", [], "")
