"""Peak memory: of the weights, of a training update, of decoding. In bytes.

On a GPU it is the most that PyTorch's allocator held at once. On the CPU it is the resident set's high-water mark,
which Linux lets a process reset, minus what was resident before; freed pages are given back first, or the peak would
hide in them. Errors: the allocator's rounding (below 2 MiB on a GPU), other threads' allocations; a working set below
some 100 KiB is lost in the noise.
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
    """Bytes of parameters and buffers, a shared one once."""
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def emptied(model: Translator) -> Translator:
    """Without what it keeps from one translation to the next, which is given up between training and evaluation."""
    mode = model.training
    model.train(not mode)
    model.train(mode)
    return model


def _resident() -> tuple[int, int]:
    """(resident set now, its high-water mark) in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    return now, peak


def working_set(work: Callable[[], object], device: torch.device) -> tuple[int | None, str]:
    """(most bytes that `work` held beyond what was held before, how that was measured or why it was not)."""
    gc.collect()
    if device.type == "cuda":
        one = torch.ones(1, 1, device=device)
        torch.mm(one, one)  # cuBLAS has its workspace before, whatever ran last: Lightning frees it after a training
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
        Path("/proc/self/clear_refs").write_text("5")  # "5" resets the high-water mark; see proc(5)
    except (OSError, AttributeError) as error:
        return None, f"not measured: the resident set's high-water mark needs Linux ({error})"
    before, _ = _resident()
    work()
    return max(0, _resident()[1] - before), "resident set, high-water mark"


def _measure(metric: str, model: Translator, work: Callable[[], object], what: str) -> Measure:
    held = weights(model)
    extra, how = working_set(work, model.device)
    value = None if extra is None else held + extra
    return Measure(metric, value, "bytes", provenance=f"weights {held} + {what}; {how}; {model.device.type}")


def decoding_memory(
    model: Translator, sources: Sequence[list[int]], settings: DecodingSettings, lengths: Sequence[int]
) -> Measure:
    """Weights and the most that translating `sources` holds, with outputs of the given lengths (EOS included)."""

    def work() -> None:
        translate(model, sources, settings, forced_lengths=lengths)

    what = f"decoding {len(sources)} sentences at once, beam {settings.beam}"
    return _measure("peak_memory_bytes", emptied(model), work, what)


def training_memory(model: Translator, batch: Batch, dtype: torch.dtype = torch.float32) -> Measure:
    """Weights and the most that one update on `batch` holds: activations, gradients, the optimiser's moments.

    Works on a copy, made before the measurement begins. Products in `dtype`, the weights as they are.
    """
    twin = emptied(copy.deepcopy(model)).train().to(model.device)  # which lays out cuDNN's weights again
    optimizer = twin.configure_optimizers()["optimizer"]
    on_device = batch.to(model.device)
    mixed = dtype == torch.bfloat16  # as it is trained: Lightning's autocast keeps a cast for each use of a weight
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
