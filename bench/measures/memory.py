"""Peak memory in bytes: of the weights, of a training update, and of decoding.

On a GPU it is the maximum of PyTorch's allocator. On the CPU it is the high-water mark of the resident set, which Linux
allows a process to reset, minus the resident set before; freed pages are returned first, because a peak within them
would not be seen. Errors: the rounding of the allocator (below 2 MiB on a GPU) and allocations of other threads; peaks
below about 100 KiB are lost in the noise.
"""

from __future__ import annotations

import copy
import ctypes
import gc
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from bench.decoding.beam_search import DecodingSettings, translate
from bench.measures.measure import Measure
from models.parts.batch import Batch
from models.parts.translator import Translator


def weights(model: Translator) -> int:
    """Bytes of parameters and buffers; a shared one counts once."""
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def without_caches(model: Translator) -> Translator:
    """Deletes what the model caches between translations, by switching its mode, and returns the model."""
    mode = model.training
    model.train(not mode)
    model.train(mode)
    return model


def _resident() -> tuple[int, int]:
    """(current resident set, its high-water mark) in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    now, peak = (int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    return now, peak


def working_set(work: Callable[[], object], device: torch.device) -> tuple[int | None, str]:
    """Returns (peak bytes while `work` runs minus the bytes before, how it was measured or why it was not)."""
    gc.collect()
    if device.type == "cuda":
        one = torch.ones(1, 1, device=device)
        torch.mm(one, one)  # allocates cuBLAS's workspace beforehand; Lightning frees it after a training
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, "allocator's maximum"
    if device.type != "cpu":
        return None, f"not measured: no allocator statistics for {device.type}"
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # "5" resets the high-water mark; see proc(5)
        before, _ = _resident()
    except (OSError, AttributeError, KeyError, ValueError) as error:  # a sandbox may lack a file, or a line of it
        return None, f"not measured: the resident set's high-water mark needs Linux ({error})"
    work()
    return max(0, _resident()[1] - before), "resident set, high-water mark"


def _measure(metric: str, model: Translator, work: Callable[[], object], activity: str) -> Measure:
    weight_bytes = weights(model)
    extra, how = working_set(work, model.device)
    value = None if extra is None else weight_bytes + extra
    provenance = f"weights {weight_bytes} + {activity}; {how}; {model.device.type}"
    return Measure(metric, value, "bytes", provenance=provenance)


def decoding_memory(
    model: Translator, sources: Sequence[list[int]], settings: DecodingSettings, lengths: Sequence[int]
) -> Measure:
    """Weights plus the peak while `sources` are translated to outputs of the given lengths (with EOS)."""

    def work() -> None:
        translate(model, sources, settings, forced_lengths=lengths)

    activity = f"decoding {len(sources)} sentences at once, beam {settings.beam}"
    return _measure("peak_memory_bytes", without_caches(model), work, activity)


def training_memory(model: Translator, batch: Batch, dtype: torch.dtype = torch.float32) -> Measure:
    """Weights plus the peak of one update on `batch`: activations, gradients and the optimizer's state.

    The update is made on a copy, which is created before the measurement. Matrix products are computed in `dtype`; the
    weights keep their type.
    """
    twin = without_caches(copy.deepcopy(model)).train()
    twin = twin.to(model.device)  # restores the contiguous layout of cuDNN's weights, which a copy loses
    optimizer = twin.configure_optimizers()["optimizer"]
    on_device = batch.to(model.device)
    mixed = dtype == torch.bfloat16  # as in training, where Lightning's autocast stores a cast for each use of a weight
    products = MixedPrecision("bf16-mixed", model.device.type).forward_context() if mixed else nullcontext()

    def work() -> None:
        with products:
            loss = twin.training_step(on_device, 0)
        loss.backward()
        optimizer.step()

    tokens = sum(batch.source.lengths_B) + sum(batch.target.lengths_B)
    return _measure(
        "memory_training_bytes",
        model,
        work,
        f"one update on {tokens} tokens, both sides, {dtype}".replace("torch.", ""),
    )
