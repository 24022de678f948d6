"""The clock estimate of training cost and the machine's own ceiling, by which it is made.

The papers' estimates (published.py) are seconds on all devices x a sustained rate of one; for our runs the rate is the
machine's measured matrix-product ceiling. Model FLOPs over the clock estimate is the MFU.
"""

from __future__ import annotations

import functools
import statistics
import time

import torch

from bench.measures import Measure
from bench.measures.published import clock_flops

SMALLEST, SIDE = 256, 2048
"""Rows and columns of the matrices of `ceiling`: 17.2 GFLOP a product, far beyond any cache."""


def ceiling(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Measure:
    """FLOPs per second of the product of two 2048 x 2048 matrices: median of five (of fifty on a GPU), after two.

    The matrices are smaller where such a product would take longer than a second: a processor without instructions for
    bf16 needs one minute for it.
    Nothing that a model does is faster, so it is the yardstick of MFU. Measured once per process and number of threads,
    with the precision settings (TF32) as they are then.
    """
    return _ceiling(device, dtype, torch.get_num_threads(), SIDE)


@functools.cache
def _ceiling(device: str, dtype: torch.dtype, threads: int, largest: int) -> Measure:
    place = torch.device(device)
    left, right = (torch.randn(largest, largest, device=place).to(dtype) for _ in range(2))
    side = min(SMALLEST, largest)

    def once() -> float:
        begin = time.perf_counter()
        torch.mm(left[:side, :side], right[:side, :side])
        if place.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - begin

    while side < largest and min(once(), once()) < 1 / 8:  # twice the side is eight times the work
        side *= 2
    for _ in range(2):
        once()
    samples = [once() for _ in range(5 if place.type == "cpu" else 50)]
    rate = 2 * side**3 / statistics.median(samples)
    spread = (max(samples) - min(samples)) / statistics.median(samples)
    where = f"{threads} threads" if place.type == "cpu" else torch.cuda.get_device_name(place)
    recipe = f"median of {len(samples)} products of {side} x {side}, {dtype}, {where}, spread {spread:.0%}"
    return Measure("ceiling_flops_per_s", rate, "FLOP/s", recipe=recipe.replace("torch.", ""))


def costs(model_flops: int, train_seconds: float, limit: Measure, devices: int = 1) -> list[Measure]:
    """The clock estimate of a run, and its MFU = model FLOPs / (device-seconds x ceiling)."""
    assert limit.value is not None
    if train_seconds <= 0:
        return [
            Measure(name, None, unit, recipe="not measured: no training time")
            for name, unit in (("clock_flops", "FLOP"), ("mfu", "1"))
        ]
    estimate = clock_flops(train_seconds * devices, limit.value)
    recipe = f"{devices} x {train_seconds:.1f} s x {limit.value / 1e9:.1f} GFLOP/s ({limit.recipe})"
    return [
        limit,
        Measure("clock_flops", estimate, "FLOP", recipe=recipe),
        Measure("mfu", model_flops / estimate, "1", recipe=f"{model_flops} model FLOPs / ({recipe})"),
    ]
