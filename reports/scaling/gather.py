"""Reads the runs of a scaling study, from a store or an export, into a Study."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.measures.measure import Measure
from bench.scaling.points import Point
from bench.system.facts import COMMIT
from bench.tracking.private_paths import public_command
from bench.tracking.reading import STUDY_FILE, STUDY_TAG, Reader, TrackedRun
from reports.gathering.gather_runs import read_each
from reports.scaling.study import DirectPair, RateCheck, Size, Study

LOSS = "validation_excess_loss"
"""The loss that is fitted and compared; docs/scaling.md says why it is not the one without label smoothing."""

LEAST_LOSS = 1e-6
"""Nats per token. The excess loss is a difference, so that of a perfect model may be 0, or below by rounding."""

NUMBERS = ("params_core", "params_multiplied", "params", "target_tokens", "pairs", "train_flops", LOSS)
"""Metrics that a point needs."""


def is_study(reader: Reader, suite: str) -> bool:
    """Whether the runs of this name are those of a scaling study."""
    parent = reader.parent_run(suite)
    return bool(parent and parent.tags.get(STUDY_TAG))


def gather(reader: Reader, suite: str) -> Study:
    """Reads a study. Unfinished and failed runs are named in `Study.failed`.

    Raises:
        ValueError: there is no study of this name, or its description is damaged.
    """
    parent = reader.parent_run(suite)
    if parent is None or not parent.tags.get(STUDY_TAG):
        raise ValueError(f"{suite}: not a scaling study in {reader.uri}; start one with bench scale FILE")
    try:
        plan = _Plan.of(reader.read_json(parent, STUDY_FILE))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{suite}: the file {STUDY_FILE} of the study's run is damaged ({error}); run bench scale again, which "
            "writes it"
        ) from error
    runs = reader.runs(suite)
    newest: dict[str, TrackedRun] = {}
    for run in runs:
        if run.status == "FINISHED":
            newest.setdefault(run.tags.get("job_hash", ""), run)
    finished = {job: newest[job.job_hash] for job in plan.all_jobs if job.job_hash in newest}
    measures = read_each(list(finished.values()), reader.measures)
    without_loss = {job for job, run in finished.items() if all(measure.metric != LOSS for measure in measures[run.id])}
    devices = list(dict.fromkeys(_device(finished[job]) for job in plan.jobs if job in finished))
    found: dict[_Job, Point] = {}
    for job, run in finished.items():
        numbers = {measure.metric: measure.value for measure in measures[run.id]}
        if point := _point(job, run, numbers):
            # Seconds of different devices cannot be compared.
            found[job] = point if len(devices) == 1 else replace(point, seconds=None)
    points = {job: found[job] for job in plan.jobs if job in found and job.factor == 1}
    about = json.loads(parent.tags.get("about") or "{}")
    rows = [row for row in parent.tags.get("rows", "").split(",") if row]
    some = next(iter(finished.values()), None)
    return Study(
        name=suite,
        question=parent.tags.get("question", ""),
        date=max((run.started for run in runs), default=parent.started).strftime("%Y-%m-%d"),
        command=public_command(parent.tags.get("command", "")),
        labels={row: about.get(row, {}).get("name", row) for row in rows},
        sizes=tuple(_sizes(plan, rows, points)),
        points=tuple(points[job] for job in plan.in_order(rows) if job in points),
        rate_rule="; ".join(f"{key} = recipe × (N / N of the recipe)^{power:g}" for key, power in plan.rules.items()),
        rate_checks=tuple(_rate_checks(plan, rows, found)),
        corpus=some.tags.get("corpus", "") if some else "",
        vocabulary=int(some.params.get("text.vocabulary_size") or 0) if some else 0,
        failed=tuple(
            f"{job} (finished without {LOSS}: add --again)" if job in without_loss else str(job)
            for job in dict.fromkeys([*plan.in_order(rows), *plan.all_jobs])
            if job not in found and job.row in rows
        ),
        device="; ".join(devices),
        loss_provenance=_loss_provenance(measures.values()),
        commits=tuple(sorted({run.tags.get(COMMIT, "")[:7] for run in finished.values()} - {""})),
        score=_score(measure.metric for of_run in measures.values() for measure in of_run),
        direct=tuple(
            DirectPair(flops, *runs)
            for flops, *both in plan.direct
            if all(runs := [tuple(found[job] for job in jobs if job in found and job.row in rows) for jobs in both])
        ),
        planned_direct=tuple((first[0].row, second[0].row, flops) for flops, first, second in plan.direct),
    )


@dataclass(frozen=True)
class _Job:
    """A job of the study, as `Scale.describe` writes it.

    Attributes:
        pairs: Its budget; None for a direct pair.
        factor: Learning rate / that of the rule.
        flops: Its budget, if it is one of a direct pair.
    """

    row: str
    size: str
    pairs: int | None
    seed: int
    factor: float
    job_hash: str
    flops: float | None = None

    def __str__(self) -> str:
        rate = "" if self.factor == 1 else f", learning rate x {self.factor:g}"
        budget = f"{self.flops:.3g} FLOPs" if self.pairs is None else f"{self.pairs:,} pairs"
        return f"{self.row} {self.size} {budget} s{self.seed}{rate}"


@dataclass(frozen=True)
class _Plan:
    """What the run of the study says about its jobs.

    Attributes:
        sizes: Row -> size -> settings of the model, and learning rate of the rule.
        jobs: Those of the curves, and those that check learning rates.
        direct: Budget in FLOPs of each direct pair, and the jobs of both rows.
    """

    rules: Mapping[str, float]
    sizes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    jobs: Sequence[_Job]
    direct: Sequence[tuple[float, list[_Job], list[_Job]]]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> _Plan:
        jobs = [_Job(**job) for job in content["jobs"]]
        direct = []
        for pair in content.get("direct", []):
            flops = float(pair["flops"])
            of_row: dict[str, list[_Job]] = {}
            for run in pair["runs"]:
                of_row.setdefault(run["row"], []).append(_Job(**run, flops=flops))
            first, second = of_row.values()
            direct.append((flops, first, second))
        return cls(content["rules"], content["sizes"], jobs, direct)

    @property
    def all_jobs(self) -> list[_Job]:
        """The jobs of the curves, of the checks, and of the direct pairs."""
        return [*self.jobs, *(job for _, *both in self.direct for jobs in both for job in jobs)]

    def in_order(self, rows: Sequence[str]) -> list[_Job]:
        """The jobs by row, size, budget and seed; those that check learning rates last."""

        def place(job: _Job) -> tuple[Any, ...]:
            return (
                job.factor != 1,
                rows.index(job.row),
                list(self.sizes[job.row]).index(job.size),
                job.pairs or 0,
                job.seed,
            )

        return sorted((job for job in self.jobs if job.row in rows), key=place)


def _point(job: _Job, run: TrackedRun, numbers: Mapping[str, float | None]) -> Point | None:
    """The end point of a run; None if a number is missing or not finite."""
    values = [numbers.get(name) for name in NUMBERS]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    body, multiplied, every, tokens, pairs, flops, loss = (float(value or 0) for value in values)
    bleu = numbers.get(_score(numbers))
    counts, seconds, loss = (int(body), int(multiplied), int(every)), numbers.get("wall_s"), max(loss, LEAST_LOSS)
    return Point(job.row, run.id, job.size, job.seed, *counts, tokens, pairs, flops, seconds, loss, bleu)


def _loss_provenance(measures: Iterable[Sequence[Measure]]) -> str:
    """How the loss was measured in the first of these runs that has one; "" if none has."""
    found = (measure.provenance for of_run in measures for measure in of_run if measure.metric == LOSS)
    return next(found, "")


def _score(numbers: Iterable[str]) -> str:
    """The metric with the BLEU of the first test set, such as test/bleu; "" if there is none."""
    return next((name for name in numbers if name.endswith("/bleu") and name.count("/") == 1), "")


def _sizes(plan: _Plan, rows: Sequence[str], points: Mapping[_Job, Point]) -> list[Size]:
    """The sizes of which a run has finished: only a run knows its vocabulary, and so its parameters."""
    found = []
    for row in rows:
        for name, size in plan.sizes.get(row, {}).items():
            mine = {job: point for job, point in points.items() if (job.row, job.size) == (row, name)}
            if not mine:
                continue
            first = next(iter(mine.values()))
            seeds = max(Counter(job.pairs for job in mine).values())
            settings = ", ".join(f"{key} {value}" for key, value in size["model"].items())
            counts = first.body, first.body_softmax, first.all
            found.append(Size(row, name, settings, *counts, float(size["rate"]), seeds))
    return found


def _rate_checks(plan: _Plan, rows: Sequence[str], points: Mapping[_Job, Point]) -> list[RateCheck]:
    """The runs with other learning rates and the run of the rule among them, by row, budget, size and factor."""
    checks = [job for job in plan.in_order(rows) if job.factor != 1]
    checked = {(job.row, job.size, job.pairs, job.seed) for job in checks}
    both = [job for job in plan.in_order(rows) if (job.row, job.size, job.pairs, job.seed) in checked and job in points]
    ordered = sorted(
        both,
        key=lambda job: (rows.index(job.row), job.pairs or 0, list(plan.sizes[job.row]).index(job.size), job.factor),
    )
    return [
        RateCheck(
            job.row, job.size, job.pairs or 0, job.factor, points[job].loss, points[job].flops, points[job].seconds
        )
        for job in ordered
    ]


def _device(run: TrackedRun) -> str:
    """The device on which a run was timed: the GPU, or the processor and its threads."""
    gpu = run.tags.get("hardware.gpu", "none")
    return gpu if gpu != "none" else f"{run.tags.get('hardware.cpu', '')}, {run.tags.get('threads', '?')} threads"
