"""The closed-form cost of a job."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.experiment.job_data import JobData, model_of
from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.measures.flops import FlopCounter
from bench.planning.job_cost import job_cost
from bench.planning.workload import Workload, assumed


def test_the_flops_of_an_epoch_are_those_that_training_counts(experiment: Experiment, workload: Workload) -> None:
    job_data = JobData.of(experiment)
    counter = FlopCounter(model_of(experiment, job_data))
    for indices in job_data.train.epoch(0):
        counter.add(job_data.train.local_part(indices))
    cost = job_cost(experiment, workload)
    assert cost.flops_per_pair * len(job_data.train.pairs) == pytest.approx(counter.model_flops, rel=1e-12)
    assert cost.params == model_of(experiment, job_data).parameter_counts()[0]


def test_the_budget_in_pairs(experiment: Experiment, workload: Workload) -> None:
    cost = job_cost(experiment, workload)
    each = cost.pairs_per_update

    def pairs(**limits: float | None) -> float | None:
        training = replace(experiment.training, **({"max_pairs": None, "max_updates": None} | limits))
        return cost.pairs(replace(experiment, training=training))

    assert pairs(max_updates=12) == pytest.approx(12 * each)
    assert pairs(max_pairs=100) == pytest.approx(-(-100 // each) * each), "the last batch is trained whole"
    assert pairs(max_flops=50 * cost.flops_per_pair) == pytest.approx(50)
    assert pairs(max_updates=12, max_flops=cost.flops_per_pair) == pytest.approx(1), "the first limit counts"
    assert pairs(max_seconds=60) is None


def test_a_model_of_a_papers_size_needs_no_memory() -> None:
    experiment = resolve(row_files()["transformer-big"], preset="paper", row="transformer-big")
    cost = job_cost(experiment, assumed(experiment.text))
    assert cost.params == pytest.approx(213e6, rel=0.02), "Vaswani et al. 2017, Table 3"
    assert cost.memory_bytes > 16 * cost.params, "weights, gradients and Adam's two moments in fp32"
    assert cost.model_bytes >= 4 * cost.params
    assert not torch.cuda.is_available() or torch.cuda.memory_allocated() == 0
