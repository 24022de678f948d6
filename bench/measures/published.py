"""Table 2 of "Attention Is All You Need" (Vaswani et al. 2017): its numbers, and a recomputation of its costs.

The table does not count operations: it multiplies the training time, the number of GPUs and an estimate of the
sustained rate of each GPU (its footnote 5). That is a clock estimate. It has a column of its own and is never mixed
with counted FLOPs.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

PUBLISHED = Path(__file__).with_name("published.csv")
"""BLEU and training cost as printed in Table 2, with the days and devices that the cited papers report.

In the columns `clock_*`, `1 d x 96 x K80` means one day on 96 K80 GPUs, and `8 x single` an ensemble of eight models.
"""


SUSTAINED_TFLOPS = {"K80": 2.8, "K40": 3.7, "M40": 6.0, "P100": 9.5}
"""Sustained single-precision rate of each GPU, TFLOPS; Vaswani et al. 2017, footnote 5."""

TOLERANCE = 0.025
"""Printed costs have two digits: 2.0 stands for up to 2.05, a difference of 2.5 %."""

SECONDS_PER_DAY = 86_400


def clock_flops(device_seconds: float, flops_per_second: float) -> float:
    """Returns total device-seconds x sustained rate of one device."""
    return device_seconds * flops_per_second


@dataclass(frozen=True)
class RecomputedCost:
    """One training cost of Table 2 in FLOPs, as printed and as recomputed."""

    row: str
    direction: str
    clock: str
    published: float
    computed: float

    @property
    def error(self) -> float:
        """Relative difference of the recomputed from the published cost."""
        return self.computed / self.published - 1

    @property
    def agrees(self) -> bool:
        return abs(self.error) <= TOLERANCE


def read_clock(clock: str) -> float:
    """Returns the FLOPs of `DAYS d x DEVICES x NAME`.

    >>> f"{read_clock('0.5 d x 8 x P100'):.2e}"
    '3.28e+18'
    """
    days, devices, name = (part.strip() for part in clock.split(" x "))
    device_seconds = float(days.removesuffix("d")) * SECONDS_PER_DAY * int(devices)
    return clock_flops(device_seconds, SUSTAINED_TFLOPS[name] * 1e12)


def table() -> list[dict[str, str]]:
    """Returns the rows of Table 2."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def verify() -> list[RecomputedCost]:
    """Recomputes every training cost of Table 2: nine of single models, then ensembles as 8 x the single model.

    The cost of an ensemble is compared with 8 x the printed cost of its single model, as the authors computed it. The
    cost of the Transformer is printed once for both directions and is one row here.
    """
    rows = table()
    singles = {row["row"]: row for row in rows if row["members"] == "1"}
    found: list[RecomputedCost] = []
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
            found.append(RecomputedCost(row["row"], label, clock, float(cost), computed))
    return found
