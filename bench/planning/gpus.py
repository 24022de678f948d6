"""Published peaks of GPUs, and the time of a job from its FLOPs on a GPU that this machine does not have."""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from bench.experiment.spec import Experiment
from bench.measures import latency
from bench.planning.job_cost import JobCost
from bench.planning.known_runs import KnownRun
from bench.planning.rate import Rate


@dataclass(frozen=True)
class Gpu:
    """A GPU as its vendor describes it.

    Attributes:
        name: As `bench plan --gpu` takes it, in any case.
        bf16: Peak of dense matrix products in bf16 with fp32 accumulation, FLOP/s.
        fp32: Peak without tensor cores, FLOP/s. TF32 is off in training (bench/system/machine.py).
        memory: Bytes.
        source: Where the numbers are published.
    """

    name: str
    bf16: float
    fp32: float
    memory: float
    source: str

    def peak(self, precision: str) -> float:
        """Peak FLOP/s at a `training.precision`. fp64 counts as half of fp32 at best."""
        return {"bf16-mixed": self.bf16, "32-true": self.fp32}.get(precision, self.fp32 / 2)


GPUS = (
    Gpu("H200", 989e12, 67e12, 141e9, "NVIDIA H200 data sheet, SXM, without sparsity"),
    Gpu("H100", 989e12, 67e12, 80e9, "NVIDIA H100 data sheet, SXM, without sparsity"),
    Gpu("A100", 312e12, 19.5e12, 80e9, "NVIDIA A100 data sheet, SXM 80 GB, without sparsity"),
    Gpu("L40S", 362e12, 91.6e12, 48e9, "NVIDIA L40S data sheet, without sparsity"),
    Gpu("L4", 121e12, 30.3e12, 24e9, "NVIDIA L4 data sheet, half of the values with sparsity"),
    Gpu("V100", 15.7e12, 15.7e12, 32e9, "NVIDIA V100 data sheet, SXM2; no bf16 tensor cores, so the peak of fp32"),
    Gpu("T4", 8.1e12, 8.1e12, 16e9, "NVIDIA T4 data sheet; no bf16 tensor cores, so the peak of fp32"),
    Gpu("RTX4090", 165e12, 82.6e12, 24e9, "NVIDIA Ada architecture white paper, bf16 with fp32 accumulation"),
)

ASSUMED_UTILISATION = 0.10
"""Training FLOP/s of a model / peak, without a measurement. Large Transformers reach 0.3 to 0.5, and small models or
recurrent networks 0.01 and less, so the hours are right within a factor of several."""

DECODING_SHARE = 0.1
"""Utilisation of decoding / that of training, assumed: a step computes one token of each hypothesis."""

START_UP_S = 20.0
"""Seconds of a job on a GPU for scores, tracking and kernels that are loaded, assumed."""


def find_gpu(name: str) -> Gpu:
    """The GPU of a name. Raises ValueError, one line, with the known names."""

    def plain(text: str) -> str:
        return "".join(filter(str.isalnum, text.lower())).removeprefix("nvidia").removeprefix("geforce")

    known = {plain(gpu.name): gpu for gpu in GPUS}
    if plain(name) in known:
        return known[plain(name)]
    near = difflib.get_close_matches(plain(name), known, 1, 0.6)
    hint = f"did you mean {known[near[0]].name}? " if near else ""
    raise ValueError(f"--gpu: unknown GPU {name!r}; {hint}known are {', '.join(gpu.name for gpu in GPUS)}")


def of_device(name: str) -> Gpu | None:
    """The GPU of a device name as CUDA reports it, such as NVIDIA H100 80GB HBM3; None if it is not in the table."""
    words = name.upper().replace("RTX ", "RTX").replace("-", " ").split()
    return next((gpu for gpu in GPUS if gpu.name in words), None)


def measured_utilisation(known: Iterable[KnownRun], precision: str) -> tuple[float, str] | None:
    """The median utilisation of runs on GPUs of the table, and where it was measured; None without such a run."""
    found = [
        (rate / gpu.peak(precision) / int(one.run.tags.get("processes", "1")), gpu.name)
        for one in known
        if (gpu := of_device(one.run.tags.get("hardware.gpu", ""))) and (rate := one.flops_per_second)
    ]
    if not found:
        return None
    names = ", ".join(dict.fromkeys(name for _, name in found))
    return statistics.median(value for value, _ in found), f"utilisation measured on {names}"


def rate_on(
    gpu: Gpu,
    experiment: Experiment,
    cost: JobCost,
    known: Iterable[KnownRun],
    *,
    is_trial: bool = False,
    is_timed: bool = True,
) -> Rate:
    """The rate of a job on a GPU: FLOPs / (peak x utilisation)."""
    precision = experiment.training.precision
    found = measured_utilisation(known, precision)
    share, how = found or (ASSUMED_UTILISATION, "utilisation assumed")
    speed = gpu.peak(precision) * share * experiment.machine.processes
    validations = (0 if experiment.members else experiment.training.validations) + 1
    decoding = validations * cost.validation_flops + (0.0 if is_trial else cost.test_flops)
    other = decoding / (gpu.fp32 * min(share, ASSUMED_UTILISATION) * DECODING_SHARE)
    other += START_UP_S + (latency.SECONDS if is_timed else 0.0)
    return Rate(cost.flops_per_pair / speed, other, None, None, "gpu", f"{gpu.name}, {how}: {share:.1%} of the peak")
