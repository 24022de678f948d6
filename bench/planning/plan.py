"""The plan of many jobs: the cost of each, and the hours, device-hours, FLOPs, joules, memory and disk of all."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bench.experiment.spec import Experiment
from bench.planning.calibration import calibrate, neighbours, rate_of
from bench.planning.gpus import Gpu, rate_on
from bench.planning.job_cost import LOGGED_PER_JOB, JobCost, job_cost
from bench.planning.known_runs import KnownRuns, Machine
from bench.planning.rate import Rate
from bench.planning.workload import Workload, workload_of
from bench.system.machine import available_cores, visible_gpus


@dataclass(frozen=True)
class Job:
    """A job to plan.

    Attributes:
        count: Number of jobs that cost the same, such as the trials of a sweep.
        is_trial: Whether it is a trial of a sweep, which is evaluated on the validation set only.
        is_timed: Whether its latency is measured; that of a trial only if the sweep has a goal or limit that needs it.
    """

    experiment: Experiment
    count: int = 1
    is_trial: bool = False
    is_timed: bool = True


@dataclass(frozen=True)
class Resources:
    """What the jobs run on.

    Attributes:
        workers: Jobs at the same time.
        threads: CPU threads of each job that does not set `machine.threads`.
        start_s: Seconds until a worker has started.
        gpu: The named GPU to plan for; None for this machine.
    """

    workers: int
    threads: int
    start_s: float = 0.0
    gpu: Gpu | None = None

    @classmethod
    def of(cls, workers: int | None, start_s: float, gpu: Gpu | None = None) -> Resources:
        """Those that `bench suite` and `bench sweep` choose for --workers; None is one job at a time."""
        return cls(workers or 1, max(1, available_cores() // (workers or 1)), start_s, gpu)

    def threads_of(self, experiment: Experiment) -> int:
        return experiment.machine.threads or self.threads

    def devices(self, jobs: Sequence[Job]) -> tuple[int, str]:
        """Number and kind of the devices that the jobs keep busy."""
        machine = jobs[0].experiment.machine
        if self.gpu:
            return self.workers * machine.processes, self.gpu.name
        if machine.device.type == "cuda":
            return min(len(visible_gpus()), self.workers * machine.devices), "GPU"
        threads = max(self.threads_of(job.experiment) for job in jobs)
        return min(available_cores(), self.workers * threads), "core"


@dataclass(frozen=True)
class PlannedJob:
    """A job with its predicted cost. All numbers are those of one job, also if `job.count` is larger.

    Attributes:
        train_flops: Training FLOPs by closed form; 0 for an ensemble, whose members are jobs of their own.
        decoding_flops: Decoding FLOPs of all validations and tests, as long as the references.
    """

    job: Job
    cost: JobCost
    rate: Rate
    workload: Workload

    @property
    def pairs(self) -> float:
        found = self.cost.pairs(self.job.experiment)
        limit = self.job.experiment.training.max_seconds
        if limit and self.rate.seconds_per_pair:
            found = min(found or limit / self.rate.seconds_per_pair, limit / self.rate.seconds_per_pair)
        return found or 0.0

    @property
    def updates(self) -> float:
        return self.pairs / self.cost.pairs_per_update

    @property
    def train_seconds(self) -> float:
        return self.pairs * self.rate.seconds_per_pair

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.rate.other_seconds

    @property
    def train_flops(self) -> float:
        return self.pairs * self.cost.flops_per_pair

    @property
    def decoding_flops(self) -> float:
        experiment = self.job.experiment
        validations = (0 if experiment.members else experiment.training.validations) + 1
        return validations * self.cost.validation_flops + (0.0 if self.job.is_trial else self.cost.test_flops)

    @property
    def joules(self) -> float | None:
        each = self.rate.joules_per_pair
        return None if each is None else each * self.pairs

    @property
    def memory_bytes(self) -> float:
        return self.rate.memory_bytes or self.cost.memory_bytes

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk of the finished job. The model of a trial is not kept."""
        return LOGGED_PER_JOB + (0 if self.job.is_trial else self.cost.model_bytes)


@dataclass(frozen=True)
class Plan:
    """The predicted cost of all jobs of a file."""

    jobs: list[PlannedJob]
    resources: Resources
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the start of the command to its end: the jobs in their order, on the workers."""
        expanded = [
            (planned.job.experiment, planned.seconds) for planned in self.jobs for _ in range(planned.job.count)
        ]
        return self.resources.start_s + elapsed(expanded, self.resources.workers)

    @property
    def devices(self) -> tuple[int, str]:
        return self.resources.devices([planned.job for planned in self.jobs])

    @property
    def device_hours(self) -> float:
        return self.seconds / 3600 * self.devices[0]

    def total(self, value: Callable[[PlannedJob], float | None]) -> float | None:
        """The sum of a number over all jobs; None if a job does not have it."""
        values = [(value(planned), planned.job.count) for planned in self.jobs]
        return None if any(each is None for each, _ in values) else sum((each or 0.0) * n for each, n in values)

    @property
    def memory_bytes(self) -> float:
        """Peak memory of the jobs that run at the same time: the largest ones."""
        sizes = sorted((planned.memory_bytes for planned in self.jobs for _ in range(planned.job.count)), reverse=True)
        return sum(sizes[: self.resources.workers])


def elapsed(jobs: Sequence[tuple[Experiment, float]], workers: int) -> float:
    """Seconds until all jobs have ended, if each free worker takes the first job that can start, as in a suite.

    An ensemble can start when those of its members that are among the jobs have ended.
    """
    unfinished = {experiment.job_hash for experiment, _ in jobs}
    waiting = [
        (experiment.job_hash, {member.job_hash for member in experiment.members}, seconds)
        for experiment, seconds in jobs
    ]
    running: list[tuple[float, str]] = []  # a heap of the times at which jobs end
    now = 0.0
    while waiting or running:
        ready = next((number for number, (_, members, _) in enumerate(waiting) if not members & unfinished), None)
        if ready is not None and len(running) < max(1, workers):
            job_hash, _, seconds = waiting.pop(ready)
            heapq.heappush(running, (now + seconds, job_hash))
        else:
            now, job_hash = heapq.heappop(running)
            unfinished.discard(job_hash)
    return now


BUDGET = ("max_pairs", "max_updates", "max_flops", "max_seconds", "schedule")
"""Training settings that change how long a job is, but not its speed."""


def _speed_key(job: Job) -> str:
    """What decides the speed of a job: its settings without seed, budget and learning rate."""
    settings = {key: value for key, value in job.experiment.settings.items() if key not in ("seed", "about")}
    training = {key: value for key, value in settings["training"].items() if key not in BUDGET}
    training["optimizer"] = training["optimizer"] | {"lr": None}
    return json.dumps([settings | {"training": training}, job.is_trial], default=str)


def make_plan(
    jobs: Sequence[Job], resources: Resources, known: KnownRuns, on_progress: Callable[[str], None] = lambda _: None
) -> Plan:
    """Plans the jobs: the speed is that of finished runs, else measured here, else the peak of the named GPU.

    Args:
        known: Finished runs.
        on_progress: Called with a line of text before a row is calibrated.

    Raises:
        ValueError: a setting is invalid, or a corpus cannot be read.
    """
    costs: dict[str, tuple[Workload, JobCost]] = {}
    rates: dict[str, Rate] = {}
    missing: list[Job] = []
    for job in jobs:
        key = _speed_key(job)
        if key in costs:
            continue
        workload = workload_of(job.experiment)
        costs[key] = workload, job_cost(job.experiment, workload)
        if rate := _known_rate(job, costs[key], resources, known):
            rates[key] = rate
        else:
            missing.append(job)
    if missing:
        busy = min(resources.workers, sum(job.count for job in jobs))
        with neighbours(busy - 1, resources.threads, str(missing[0].experiment.machine.device)):
            for number, job in enumerate(missing, 1):
                experiment, (workload, _) = job.experiment, costs[_speed_key(job)]
                on_progress(f"[{number}/{len(missing)}] calibrates {experiment.row} {experiment.direction}")
                measured = calibrate(experiment, workload, resources.threads_of(experiment))
                rates[_speed_key(job)] = rate_of(
                    measured, experiment, workload, is_trial=job.is_trial, is_timed=job.is_timed
                )
    planned = [PlannedJob(job, costs[key][1], rates[key], costs[key][0]) for job in jobs for key in [_speed_key(job)]]
    plan = Plan(planned, resources)
    return replace(plan, warnings=_warnings(plan))


def _known_rate(job: Job, costs: tuple[Workload, JobCost], resources: Resources, known: KnownRuns) -> Rate | None:
    """The rate of a job from finished runs or for the named GPU; None if it must be measured here."""
    experiment, (workload, cost) = job.experiment, costs
    if resources.gpu:
        runs = known.of_row(experiment)
        return rate_on(resources.gpu, experiment, cost, runs, is_trial=job.is_trial, is_timed=job.is_timed)
    machine = Machine.here(experiment, resources.threads_of(experiment))
    rate = known.rate(experiment, machine, workload.target_tokens_per_pair)
    if rate and job.is_trial:  # a trial is not tested: its share of the decoding is that of the validations
        validations = (experiment.training.validations + 1) * cost.validation_flops
        share = validations / max(1.0, validations + cost.test_flops)
        return replace(rate, other_seconds=rate.other_seconds * share, detail=f"{rate.detail}; without tests")
    return rate


def _warnings(plan: Plan) -> list[str]:
    found = dict.fromkeys(planned.workload.provenance for planned in plan.jobs if planned.workload.provenance)
    lines = [f"{text}." for text in found]
    gpu = plan.resources.gpu
    largest = max(planned.memory_bytes for planned in plan.jobs)
    if gpu and largest > gpu.memory:  # each job has a GPU of its own
        needed, available = largest / 1e9, gpu.memory / 1e9
        lines.append(f"The largest job needs {needed:.1f} GB of memory, and the {gpu.name} has {available:.0f} GB.")
    return lines


# --- at the start of a suite ----------------------------------------------------------------------------------------


def seconds_from_runs(experiments: Sequence[Experiment], resources: Resources, known: KnownRuns) -> float | None:
    """Seconds that the jobs will take, from finished runs on the same corpus only; None if a job has no such run.

    No corpus is read and no model is built, so this takes no noticeable time. A job whose budget is limited by anything
    but sentence pairs gives None.
    """
    jobs: list[tuple[Experiment, float]] = []
    for experiment in experiments:
        machine = Machine.here(experiment, resources.threads_of(experiment))
        rate = known.rate(experiment, machine, None)
        pairs = 0.0 if experiment.members else experiment.training.max_pairs
        training = experiment.training
        if rate is None or pairs is None or training.max_updates or training.max_flops or training.max_seconds:
            return None
        jobs.append((experiment, pairs * rate.seconds_per_pair + rate.other_seconds))
    return resources.start_s + elapsed(jobs, resources.workers)
