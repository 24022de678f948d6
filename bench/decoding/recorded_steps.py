"""Decoding steps that are launched as CUDA graphs (bench/system/cuda_graphs.py), for single sentences on a GPU.

A step launches some hundred kernels for a handful of rows. Its shapes depend on the number of hypotheses, the padded
length of the source and, in models that cache every position, on the position; so they come back from sentence to
sentence. Larger batches are computed as usual: they keep a GPU busy, and their shapes seldom come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from bench.system.cuda_graphs import Record, RecordedFunction
from models.parts.batch import Tokens
from models.parts.translator import Translator, evaluation_mode

MOST_ROWS = 16
"""Hypotheses up to which a step is recorded: those of one sentence."""

MOST_SHAPES = 512
"""Shapes that are recorded: some hundred positions for each of the padded lengths of a source."""


@contextmanager
def recorded_steps(model: Translator, enabled: bool, record: Record | None = None) -> Iterator[None]:
    """Within this block, `encode`, `step` and `project` of a repeatable model are recorded, for few rows.

    Results are the same. The weights must stay where they are, and the model must not be copied or pickled. It is in
    evaluation mode within the block, because a change of mode drops matrices that a graph reads (ConvS2S).

    Args:
        model: A model on its device.
        enabled: Whether to record at all (`machine.cuda_graphs`).
        record: Records a function; default: as a CUDA graph.
    """
    if not (enabled and model.is_repeatable(training=False)):
        yield
        return
    encode = model.encode

    def encode_ids(ids_BS: Tensor) -> Any:
        return encode(Tokens(ids_BS, ()))

    def few_rows(method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, recorded if its first argument has few rows."""
        recorded = RecordedFunction(method, MOST_SHAPES, record)
        return lambda first, *others: (recorded if len(first) <= MOST_ROWS else method)(first, *others)

    recorded_encode = few_rows(encode_ids)
    vars(model).update(  # hides the methods of the class
        encode=lambda source: recorded_encode(source.ids_BS),
        step=few_rows(model.step),
        project=few_rows(model.project),
    )
    try:
        with evaluation_mode(model):
            yield
    finally:
        for name in ("encode", "step", "project"):
            del vars(model)[name]
