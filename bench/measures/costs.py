"""The clock estimate of training cost, and the machine's measured rate on which it is based.

The papers' estimates (published.py) multiply the seconds on all devices by a sustained rate of one device. For our runs
the rate is the machine's measured rate of matrix products, its ceiling. MFU is model FLOPs / clock estimate.
"""

from __future__ import annotations

import functools
import statistics
import time

import torch

from bench.measures.measure import Measure
from bench.measures.published import clock_flops

SMALLEST, SIDE, GPU_SIDE = 256, 2048, 8192
"""Sides of the matrices of `ceiling`. A product of 2048 x 2048 is 17.2 GFLOP, far beyond the cache of any processor. A
GPU computes it in 20 microseconds, which is as long as a launch takes; there a product has 1.1 TFLOP.
"""


def ceiling(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Measure:
    """The rate of matrix products in FLOP/s: the upper limit for any model, and so the reference for MFU.

    On a processor it is the median of five products of 2048 x 2048. On a GPU it is the fastest of twenty products of
    8192 x 8192, because processes that share a GPU take turns, and a product that waited for its turn does not show the
    rate of the device. The matrices are smaller where a product would take more than a second: without instructions for
    bf16 a processor needs one minute. Two products warm up. Measured once per process and number of threads, with the
    precision settings of that moment.
    """
    return _ceiling(device, dtype, torch.get_num_threads(), SIDE if device == "cpu" else GPU_SIDE)


@functools.cache
def _ceiling(device: str, dtype: torch.dtype, threads: int, largest: int) -> Measure:
    where = torch.device(device)
    on_cpu = where.type == "cpu"
    left, right = (torch.randn(largest, largest, device=where).to(dtype) for _ in range(2))
    side = min(SMALLEST, largest)

    def sample() -> float:
        begin = time.perf_counter()
        torch.mm(left[:side, :side], right[:side, :side])
        if not on_cpu:
            torch.accelerator.synchronize()
        return time.perf_counter() - begin

    while side < largest and min(sample(), sample()) < 1 / 8:  # twice the side is eight times the work
        side *= 2
    for _ in range(2):
        sample()
    samples = [sample() for _ in range(5 if on_cpu else 20)]
    middle = statistics.median(samples)
    rate = 2 * side**3 / (middle if on_cpu else min(samples))
    spread = (max(samples) - min(samples)) / middle
    hardware = f"{threads} threads" if on_cpu else torch.cuda.get_device_name(where)
    statistic = f"{'median' if on_cpu else 'fastest'} of {len(samples)}"
    provenance = f"{statistic} products of {side} x {side}, {dtype}, {hardware}, spread {spread:.0%}"
    return Measure("ceiling_flops_per_s", rate, "FLOP/s", provenance=provenance.replace("torch.", ""))


def costs(model_flops: int, train_seconds: float, limit: Measure, devices: int = 1) -> list[Measure]:
    """The ceiling, the clock estimate of a run, and its MFU = model FLOPs / (device-seconds x ceiling).

    Estimate and MFU are None if the run was faster than the ceiling: then other work had slowed down the products from
    which the ceiling was measured.

    Args:
        limit: From `ceiling`.
    """
    assert limit.value is not None

    def not_measured(reason: str) -> list[Measure]:
        names = (("clock_flops", "FLOP"), ("mfu", "1"))
        return [Measure(name, None, unit, provenance=f"not measured: {reason}") for name, unit in names]

    if train_seconds <= 0:
        return not_measured("no training time")
    estimate = clock_flops(train_seconds * devices, limit.value)
    if model_flops > estimate:
        rate = model_flops / train_seconds / devices / 1e9
        return [
            limit,
            *not_measured(
                f"updates ran at {rate:.1f} GFLOP/s, above the ceiling of {limit.value / 1e9:.1f} ({limit.provenance})"
            ),
        ]
    provenance = f"{devices} x {train_seconds:.1f} s x {limit.value / 1e9:.1f} GFLOP/s ({limit.provenance})"
    return [
        limit,
        Measure("clock_flops", estimate, "FLOP", provenance=provenance),
        Measure("mfu", model_flops / estimate, "1", provenance=f"{model_flops} model FLOPs / ({provenance})"),
    ]
