"""Plans for a named GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from bench.experiment.spec import Experiment
from bench.planning.gpus import find_gpu, measured_utilisation, of_device, rate_on
from bench.planning.job_cost import job_cost
from bench.planning.known_runs import KnownRun
from bench.planning.workload import Workload
from bench.tracking.reading import Reader
from tests.helpers.known_runs import known, run


@pytest.mark.parametrize("name", ["RTX4090", "rtx 4090", "NVIDIA GeForce RTX 4090"])
def test_a_gpu_is_found_by_its_name(name: str) -> None:
    assert find_gpu(name).bf16 == 165e12


def test_an_unknown_gpu_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"--gpu: unknown GPU 'H10'; did you mean H100\? known are H200, H100, A100"):
        find_gpu("H10")


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
    ],
)
def test_device_names_of_cuda(device: str, name: str) -> None:
    found = of_device(device)
    assert found is not None
    assert found.name == name
    assert of_device("Quadro P400") is None


def test_the_time_is_flops_over_peak_and_utilisation(experiment: Experiment, workload: Workload) -> None:
    cost = job_cost(experiment, workload)
    rate = rate_on(find_gpu("A100"), experiment, cost, [])
    assert rate.seconds_per_pair == pytest.approx(cost.flops_per_pair / (19.5e12 * 0.1)), "fp32, 10 % assumed"
    assert rate.detail == "A100, utilisation assumed: 10.0% of the peak"


def test_the_utilisation_of_runs_on_a_gpu_counts(experiment: Experiment, workload: Workload) -> None:
    measures = {"wall_s": 10.0, "train_flops": 67e12, "pairs": 1.0}  # 6.7 TFLOP/s, a tenth of 67
    runs = known(run(experiment, tags={"hardware.gpu": "NVIDIA H100 80GB HBM3"}), measures=measures).runs
    found = measured_utilisation(runs, "32-true")
    assert found is not None
    assert found == (pytest.approx(0.1), "utilisation measured on H100")
    rate = rate_on(find_gpu("L4"), experiment, job_cost(experiment, workload), runs)
    assert "measured on H100" in rate.detail


def test_runs_on_a_cpu_have_no_utilisation_of_a_gpu(experiment: Experiment) -> None:
    one = KnownRun(run(experiment), "table", cast(Reader, None))
    assert measured_utilisation([replace(one)], "32-true") is None
