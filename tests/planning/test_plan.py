"""Plans of many jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.experiment.spec import Experiment
from bench.planning.gpus import find_gpu
from bench.planning.known_runs import KnownRuns, Machine
from bench.planning.plan import Job, Plan, Resources, elapsed, make_plan, seconds_from_runs
from bench.planning.workload import Workload
from tests.helpers.known_runs import HERE, known, planned, run


def test_free_workers_take_the_next_job(experiment: Experiment) -> None:
    jobs = [(replace(experiment, seed=seed), seconds) for seed, seconds in enumerate((10.0, 4.0, 5.0, 1.0), 1)]
    assert elapsed(jobs, 1) == 20
    assert elapsed(jobs, 2) == 10, "4 + 5 + 1 beside 10"
    assert elapsed(jobs, 8) == 10


def test_an_ensemble_waits_for_its_members(experiment: Experiment) -> None:
    ensemble = replace(experiment, ensemble=replace(experiment.ensemble, of=experiment.row, members=2))
    jobs = [(member, seconds) for member, seconds in zip(ensemble.members, (3.0, 8.0), strict=True)]
    assert elapsed([*jobs, (ensemble, 2.0)], 4) == 10
    assert elapsed([(ensemble, 2.0)], 1) == 2, "its members have ended before"


def test_a_worker_does_not_wait_for_the_members_of_an_ensemble(experiment: Experiment) -> None:
    ensemble = replace(experiment, ensemble=replace(experiment.ensemble, of=experiment.row, members=2))
    first, second = ensemble.members
    later = replace(experiment, seed=9)
    assert elapsed([(first, 3.0), (second, 8.0), (ensemble, 2.0), (later, 6.0)], 2) == 10, "3 + 6 beside 8 + 2"


def test_the_sums_of_a_plan(experiment: Experiment, workload: Workload) -> None:
    job = planned(experiment, workload, count=3, joules=2.0)
    plan = Plan([job], Resources(workers=2, threads=1, start_s=6.0))
    pairs = 12 * job.cost.pairs_per_update
    assert job.seconds == pytest.approx(pairs * 0.5 + 30)
    assert plan.seconds == pytest.approx(6 + 2 * job.seconds), "three jobs, two at a time"
    assert plan.total(lambda each: each.joules) == pytest.approx(3 * 2 * pairs)
    assert plan.total(lambda each: each.train_flops) == pytest.approx(3 * pairs * job.cost.flops_per_pair)
    assert plan.memory_bytes == 10e6, "two jobs at a time"


def test_a_plan_without_joules_of_each_job_has_none(experiment: Experiment, workload: Workload) -> None:
    jobs = [planned(experiment, workload), planned(experiment, workload, joules=1.0)]
    assert Plan(jobs, Resources(1, 1)).total(lambda each: each.joules) is None


def test_the_model_of_a_trial_is_not_kept(experiment: Experiment, workload: Workload) -> None:
    job = planned(experiment, workload)
    trial = replace(job, job=replace(job.job, is_trial=True))
    assert job.disk_bytes - trial.disk_bytes == job.cost.model_bytes >= 4 * job.cost.params


def test_a_budget_in_seconds(experiment: Experiment, workload: Workload) -> None:
    training = replace(experiment.training, max_updates=None, max_seconds=20.0)
    job = planned(replace(experiment, training=training), workload)
    assert (job.pairs, job.train_seconds) == (40, 20)


def test_a_job_without_known_runs_is_calibrated_once_for_all_seeds_and_budgets(
    experiment: Experiment,
) -> None:
    lines: list[str] = []
    longer = replace(experiment, training=replace(experiment.training, max_pairs=5000))
    jobs = [Job(experiment), Job(replace(experiment, seed=2)), Job(longer)]
    plan = make_plan(jobs, Resources(1, 1), KnownRuns([]), lines.append)
    assert lines == ["[1/1] calibrates transformer-base en-de"]
    assert [each.rate.source for each in plan.jobs] == ["calibration"] * 3


def test_known_runs_are_preferred(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "here", lambda *_: HERE)
    plan = make_plan([Job(experiment)], Resources(1, 1), known(run(experiment)))
    assert plan.jobs[0].rate.detail == "run 00000000 of table"


def test_a_gpu_with_too_little_memory_is_a_warning(experiment: Experiment) -> None:
    gpu = replace(find_gpu("T4"), memory=1e3)
    plan = make_plan([Job(experiment)], Resources(1, 1, gpu=gpu), KnownRuns([]))
    assert plan.devices == (1, "T4")
    assert any("and the T4 has 0 GB" in line for line in plan.warnings)
    enough = replace(gpu, memory=1.5 * plan.memory_bytes)
    two = make_plan([Job(experiment, 2)], Resources(2, 1, gpu=enough), KnownRuns([]))
    assert (two.devices, two.warnings) == ((2, "T4"), []), "each job has a GPU of its own"


def test_the_start_of_a_suite_plans_from_runs_only(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "here", lambda *_: HERE)
    training = replace(experiment.training, max_updates=None, max_pairs=2000)
    job = replace(experiment, training=training)
    resources = Resources(1, 1, start_s=5)
    assert seconds_from_runs([job], resources, known(run(job))) == pytest.approx(5 + 2000 * 0.1 + 50)
    assert seconds_from_runs([job], resources, KnownRuns([])) is None
    assert seconds_from_runs([experiment], resources, known(run(experiment))) is None, "its budget is not in pairs"
    limited = replace(job, training=replace(training, max_updates=5))
    assert seconds_from_runs([limited], resources, known(run(job))) is None, "it may end before its pairs are seen"
