"""Finished runs for plans: 100 s of updates on 1,000 pairs of 20 target tokens, and 50 s of other work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from bench.experiment.spec import Experiment, flatten
from bench.measures.measure import Measure
from bench.planning.job_cost import job_cost
from bench.planning.known_runs import KnownRuns, Machine
from bench.planning.plan import Job, PlannedJob
from bench.planning.rate import Rate
from bench.planning.workload import Workload
from bench.tracking.reading import Reader, TrackedRun

START = datetime(2026, 1, 1, tzinfo=UTC)
HERE = Machine("cpu A", "none", 1)
MEASURES = {"wall_s": 100.0, "pairs": 1000.0, "target_tokens_per_s": 200.0, "memory_training_bytes": 7e6}


class Runs:
    """A reader of runs that all have the same measures."""

    uri = "runs"

    def __init__(self, runs: Sequence[TrackedRun], measures: Mapping[str, float]) -> None:
        self.given, self.measured = runs, measures

    def suites(self) -> list[str]:
        return ["table"]

    def runs(self, suite: str) -> list[TrackedRun]:
        return list(self.given)

    def measures(self, run: TrackedRun) -> list[Measure]:
        return [Measure(name, value, "") for name, value in self.measured.items()]


def run(
    experiment: Experiment, number: int = 1, seconds: float = 150, tags: Mapping[str, str] | None = None
) -> TrackedRun:
    about = {"row": experiment.row, "preset": experiment.preset, "corpus": experiment.corpus_name}
    about |= {"hardware.cpu": "cpu A", "hardware.gpu": "none", "threads": "1"} | dict(tags or {})
    params = {key: str(value) for key, value in flatten(experiment.settings).items()}
    ended = START + timedelta(seconds=seconds)
    return TrackedRun(f"{number:032}", "run", "FINISHED", START, about, params, {}, ended=ended)


def known(*runs: TrackedRun, measures: Mapping[str, float] = MEASURES) -> KnownRuns:
    return KnownRuns([cast(Reader, Runs(runs, measures))])


def planned(experiment: Experiment, workload: Workload, count: int = 1, joules: float | None = None) -> PlannedJob:
    rate = Rate(0.5, 30.0, joules, 5e6, "run", "run x")
    return PlannedJob(Job(experiment, count), job_cost(experiment, workload), rate, workload)
