"""The clock estimate of training cost, ours and the papers', and the machine's own ceiling.

Table 2 of "Attention Is All You Need" (Vaswani et al. 2017) does not count operations: it multiplies training time,
number of GPUs and an estimate of the sustained rate of each GPU (its footnote 5). That is a clock estimate, printed in
a column of its own and never beside counted FLOPs; for our runs the rate is the machine's measured matrix-product
ceiling. Model FLOPs over the clock estimate is the MFU.
"""

from __future__ import annotations

import csv
import functools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.measures import Measure

PUBLISHED = Path(__file__).with_name("published.csv")
"""BLEU and training cost as printed in Table 2, with the days and devices that the cited papers report.

In the columns `clock_*`: `1 d x 96 x K80` is one day on 96 GPUs of that kind; `8 x single` an ensemble of eight.
"""

SUSTAINED_TFLOPS = {"K80": 2.8, "K40": 3.7, "M40": 6.0, "P100": 9.5}
"""Sustained single-precision rate of each GPU, TFLOPS; Vaswani et al. 2017, footnote 5."""

TOLERANCE = 0.025
"""Printed costs have two digits; 2.0 stands for up to 2.05, which is 2.5 % off."""

SECONDS_PER_DAY = 86_400
SMALLEST, SIDE = 256, 2048
"""Rows and columns of the matrices of `ceiling`: 17.2 GFLOP a product, far beyond any cache."""


def clock_flops(device_seconds: float, flops_per_second: float) -> float:
    """Seconds on all devices together x sustained rate of one device."""
    return device_seconds * flops_per_second


@dataclass(frozen=True)
class Reproduced:
    """One cost of Table 2: as printed, and by our arithmetic, in FLOPs."""

    row: str
    direction: str
    clock: str
    published: float
    computed: float

    @property
    def error(self) -> float:
        return self.computed / self.published - 1

    @property
    def agrees(self) -> bool:
        return abs(self.error) <= TOLERANCE


def read_clock(clock: str) -> float:
    """FLOPs of `DAYS d x DEVICES x NAME`.

    >>> f"{read_clock('0.5 d x 8 x P100'):.2e}"
    '3.28e+18'
    """
    days, devices, name = (part.strip() for part in clock.split(" x "))
    device_seconds = float(days.removesuffix("d")) * SECONDS_PER_DAY * int(devices)
    return clock_flops(device_seconds, SUSTAINED_TFLOPS[name] * 1e12)


def published() -> list[dict[str, str]]:
    """The rows of Table 2."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def verify() -> list[Reproduced]:
    """Every training cost of Table 2 again: nine of single models by the clock, then ensembles as 8 x the single one.

    An ensemble is held against 8 x the printed cost of its single model, which is how the table was made. The
    Transformer's cost is printed once for both directions and is one row here.
    """
    rows = published()
    singles = {row["row"]: row for row in rows if row["members"] == "1"}
    found: list[Reproduced] = []
    for row in sorted(rows, key=lambda row: int(row["members"])):
        for direction in ("en_de", "en_fr"):
            cost, clock = row[f"cost_{direction}_flops"], row[f"clock_{direction}"]
            if not cost or (row["row"].startswith("Transformer") and direction == "en_fr"):
                continue
            if clock.endswith("x single"):
                single = singles[row["row"].removesuffix(" Ensemble")]
                computed = int(row["members"]) * float(single[f"cost_{direction}_flops"])
            else:
                computed = read_clock(clock)
            label = "both" if row["row"].startswith("Transformer") else direction.replace("_", "-")
            found.append(Reproduced(row["row"], label, clock, float(cost), computed))
    return found


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
