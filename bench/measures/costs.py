"""The clock estimate of training cost and the machine's own ceiling, by which it is made.

The papers' estimates (published.py) are seconds on all devices x a sustained rate of one; for our runs the rate is the
machine's measured matrix-product ceiling. Model FLOPs over the clock estimate is the MFU.
"""

from __future__ import annotations

import functools
import statistics
import time

import torch

from bench.measures.measure import Measure
from bench.measures.published import clock_flops

SMALLEST, SIDE, GPU_SIDE = 256, 2048, 8192
"""Rows and columns of the matrices of `ceiling`: 17.2 GFLOP a product, far beyond any cache of a processor. A GPU does
that in 20 microseconds, as long as it takes to launch it; there a product has 1.1 TFLOP."""


def ceiling(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Measure:
    """FLOPs per second of the product of two square matrices, after two to warm up.

    On a processor the median of five of 2048 x 2048. On a GPU the fastest of twenty of 8192 x 8192: processes that
    share one take turns, and a product that had to wait for its turn says nothing about the device.
    The matrices are smaller where such a product would take longer than a second: a processor without instructions for
    bf16 needs one minute for it.
    Nothing that a model does is faster, so it is the yardstick of MFU. Measured once per process and number of threads,
    with the precision settings as they are then.
    """
    return _ceiling(device, dtype, torch.get_num_threads(), SIDE if device == "cpu" else GPU_SIDE)


@functools.cache
def _ceiling(device: str, dtype: torch.dtype, threads: int, largest: int) -> Measure:
    place = torch.device(device)
    on_cpu = place.type == "cpu"
    left, right = (torch.randn(largest, largest, device=place).to(dtype) for _ in range(2))
    side = min(SMALLEST, largest)

    def once() -> float:
        begin = time.perf_counter()
        torch.mm(left[:side, :side], right[:side, :side])
        if not on_cpu:
            torch.accelerator.synchronize()
        return time.perf_counter() - begin

    while side < largest and min(once(), once()) < 1 / 8:  # twice the side is eight times the work
        side *= 2
    for _ in range(2):
        once()
    samples = [once() for _ in range(5 if on_cpu else 20)]
    middle = statistics.median(samples)
    rate = 2 * side**3 / (middle if on_cpu else min(samples))
    spread = (max(samples) - min(samples)) / middle
    where = f"{threads} threads" if on_cpu else torch.cuda.get_device_name(place)
    chosen = f"{'median' if on_cpu else 'fastest'} of {len(samples)}"
    provenance = f"{chosen} products of {side} x {side}, {dtype}, {where}, spread {spread:.0%}"
    return Measure("ceiling_flops_per_s", rate, "FLOP/s", provenance=provenance.replace("torch.", ""))


def costs(model_flops: int, train_seconds: float, limit: Measure, devices: int = 1) -> list[Measure]:
    """The clock estimate of a run, and its MFU = model FLOPs / (device-seconds x ceiling).

    Neither is given where the run was faster than the ceiling: other work slowed down the products it was measured by.
    """
    assert limit.value is not None

    def none(why: str) -> list[Measure]:
        names = (("clock_flops", "FLOP"), ("mfu", "1"))
        return [Measure(name, None, unit, provenance=f"not measured: {why}") for name, unit in names]

    if train_seconds <= 0:
        return none("no training time")
    estimate = clock_flops(train_seconds * devices, limit.value)
    if model_flops > estimate:
        rate = model_flops / train_seconds / devices / 1e9
        return [
            limit,
            *none(
                f"updates ran at {rate:.1f} GFLOP/s, above the ceiling of {limit.value / 1e9:.1f} ({limit.provenance})"
            ),
        ]
    provenance = f"{devices} x {train_seconds:.1f} s x {limit.value / 1e9:.1f} GFLOP/s ({limit.provenance})"
    return [
        limit,
        Measure("clock_flops", estimate, "FLOP", provenance=provenance),
        Measure("mfu", model_flops / estimate, "1", provenance=f"{model_flops} model FLOPs / ({provenance})"),
    ]
