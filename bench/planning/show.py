"""Prints a plan: a table with a sentence above it, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from itertools import groupby

from bench.measures import latency
from bench.planning.calibration import TRACKING_S
from bench.planning.plan import Plan, PlannedJob
from bench.system import formatting, terminal

CALIBRATED = "The speed was measured with random weights and tokens"
"""How the note begins below a table with calibrated rows."""


def predicted_and_real(planned_s: float, took_s: float, continued: int = 0) -> str:
    """The line after a suite whose duration was predicted at its start.

    Args:
        continued: Number of jobs that earlier commands had begun, so that the suite had less to do than was planned.
    """
    difference = took_s / planned_s - 1
    sign = formatting.fixed(100 * difference, 0) if difference < 0 else f"+{formatting.fixed(100 * difference, 0)}"
    planned, took = map(formatting.hours_and_minutes, (planned_s, took_s))
    if continued:
        jobs = "1 job" if continued == 1 else f"{continued} jobs"
        return f"planned {planned} for whole jobs, took {took}: {jobs} had begun before"
    return f"planned {planned}, took {took} ({sign}{formatting.SPACE}%)"


def size(number: float) -> str:
    """Bytes as MB or GB, with three significant digits."""
    unit, scale = ("GB", 1e9) if number >= 1e9 else ("MB", 1e6)
    return f"{formatting.significant(number / scale)}{formatting.SPACE}{unit}"


def headline(plan: Plan, kind: str) -> str:
    """The sentence: This suite needs about 1.9 hours of 2 cores (20 rows, 2 directions, 1 seed), 0.2 GB of disk."""
    count, device = plan.devices
    hours = plan.seconds / 3600
    if hours >= 1:
        time = f"{hours:,.1f} hours" if hours < 100 else f"{hours:,.0f} hours ({hours / 24:,.0f} days)"
    else:
        minutes = plan.seconds / 60
        time = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{plan.seconds:.0f} seconds"
    experiments = [planned.job.experiment for planned in plan.jobs]
    numbers = [
        _plural(len({experiment.row for experiment in experiments}), "row"),
        _plural(len({experiment.direction for experiment in experiments}), "direction"),
    ]
    if sizes := {experiment.about.size for experiment in experiments} - {""}:
        budgets = len({experiment.training.max_pairs for experiment in experiments})
        numbers += [_plural(len(sizes), "size"), _plural(budgets, "budget")]
    trials = max(planned.job.count for planned in plan.jobs)
    if any(planned.job.is_trial for planned in plan.jobs):
        numbers.append(f"{_plural(trials, 'trial')} for each row")
    else:
        members = {member.job_hash for experiment in experiments for member in experiment.members}
        own_seeds = {experiment.seed for experiment in experiments if experiment.job_hash not in members}
        numbers.append(_plural(len(own_seeds), "seed"))
    disk = plan.total(lambda planned: planned.disk_bytes) or 0.0
    return f"This {kind} needs about {time} of {_plural(count, device)} ({', '.join(numbers)}), {size(disk)} of disk."


def _plural(number: int, noun: str) -> str:
    ending = "" if number == 1 or noun.isupper() or noun[-1].isdigit() else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


Key = tuple[str, str, str, str]


def groups(plan: Plan) -> list[tuple[Key, list[PlannedJob]]]:
    """The jobs of each row, size, preset and corpus, in the order of the plan."""

    def key(planned: PlannedJob) -> Key:
        experiment = planned.job.experiment
        return experiment.row, experiment.about.size, experiment.preset, experiment.corpus_name

    order = {found: number for number, found in enumerate(dict.fromkeys(map(key, plan.jobs)))}
    ordered = sorted(plan.jobs, key=lambda planned: order[key(planned)])
    return [(found, list(members)) for found, members in groupby(ordered, key)]


def records(plan: Plan) -> list[dict[str, object]]:
    """A record for each row, size and corpus, and one of the totals; the same names in JSON and CSV."""
    found = []
    for (row, model_size, preset, corpus), members in groups(plan):
        first = members[0]
        part = Plan(members, plan.resources)
        jobs = sum(planned.job.count for planned in members)
        found.append(
            {"row": row, "size": model_size, "preset": preset, "corpus": corpus, "jobs": jobs}
            | {"params": first.cost.params, "updates": round(_mean(members, lambda planned: planned.updates))}
            | {"pairs": round(_mean(members, lambda planned: planned.pairs))}
            | _sums(part)
            | {"hours_per_job": _mean(members, lambda planned: planned.seconds) / 3600}
            | {"train_hours_per_job": _mean(members, lambda planned: planned.train_seconds) / 3600}
            | {"memory_bytes": round(max(planned.memory_bytes for planned in members))}
            | {"source": first.rate.source, "detail": first.rate.detail, "spread": first.rate.spread}
            | {"lengths": first.workload.provenance}
        )
    return found


def _mean(members: Sequence[PlannedJob], value: Callable[[PlannedJob], float]) -> float:
    """The mean of a number over jobs: those of a scaling study have several budgets."""
    return sum(value(planned) * planned.job.count for planned in members) / sum(each.job.count for each in members)


def _sums(plan: Plan) -> dict[str, object]:
    """The sums over the jobs of a plan. `job_hours` are the hours of all jobs one after the other."""
    seconds = plan.total(lambda planned: planned.seconds) or 0.0
    return {
        "train_flops": round(plan.total(lambda planned: planned.train_flops) or 0),
        "decoding_flops": round(plan.total(lambda planned: planned.decoding_flops) or 0),
        "job_hours": seconds / 3600,
        "energy_j": plan.total(lambda planned: planned.joules),
        "disk_bytes": round(plan.total(lambda planned: planned.disk_bytes) or 0),
    }


def totals(plan: Plan) -> dict[str, object]:
    """The numbers of the whole plan."""
    count, device = plan.devices
    return {
        "jobs": sum(planned.job.count for planned in plan.jobs),
        "workers": plan.resources.workers,
        "threads": plan.resources.threads,
        "devices": count,
        "device": device,
        "hours": plan.seconds / 3600,
        "device_hours": plan.device_hours,
        **_sums(plan),
        "memory_bytes": round(plan.memory_bytes),
    }


def as_json(plan: Plan, kind: str) -> str:
    content = {"kind": kind, "headline": headline(plan, kind).replace(formatting.SPACE, " "), "total": totals(plan)}
    return json.dumps(content | {"rows": records(plan), "warnings": plan.warnings}, indent=1)


def as_csv(plan: Plan) -> str:
    """A line for each row and corpus, then one with the totals, whose row is `total`."""
    lines = [*records(plan), {"row": "total", **totals(plan)}]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in line.items()} for line in lines)
    return text.getvalue()


def print_table(plan: Plan, kind: str) -> None:
    """Prints the headline, a line for each row and corpus, the totals, and where the numbers come from."""
    terminal.say(headline(plan, kind))
    directions = len({planned.job.experiment.corpus_name for planned in plan.jobs}) > 1
    columns = [("row", "left"), *([("corpus", "left")] if directions else []), ("jobs", "right"), ("params", "right")]
    columns += [("training FLOPs", "right"), ("decoding FLOPs", "right"), ("time per job", "right")]
    columns += [("of which training", "right"), ("all jobs", "right"), ("joules", "right"), ("memory", "right")]
    columns += [("disk", "right"), ("speed from", "left")]
    lines = [_line(plan, key, members, directions) for key, members in groups(plan)]
    all_jobs = _amounts(plan)
    jobs = sum(planned.job.count for planned in plan.jobs)
    total = ["total", *([""] if directions else []), str(jobs), "", *all_jobs[:2], "", "", *all_jobs[2:4]]
    lines.append([*total, size(plan.memory_bytes), all_jobs[4], ""])
    terminal.table(columns, lines)
    for note in notes(plan):
        terminal.say(note)


def _amounts(plan: Plan) -> list[str]:
    """Training FLOPs, decoding FLOPs, seconds, joules and disk of all jobs, as text."""

    def text(value: Callable[[PlannedJob], float | None], show: Callable[[float], str]) -> str:
        found = plan.total(value)
        return formatting.MISSING if found is None else show(found)

    return [
        text(lambda planned: planned.train_flops, formatting.power_of_ten),
        text(lambda planned: planned.decoding_flops, formatting.power_of_ten),
        text(lambda planned: planned.seconds, formatting.hours_and_minutes),
        text(lambda planned: planned.joules, formatting.quantity),
        text(lambda planned: planned.disk_bytes, size),
    ]


def _line(plan: Plan, key: Key, members: Sequence[PlannedJob], directions: bool) -> list[str]:
    row, model_size, _, corpus = key
    amounts, first = _amounts(Plan(list(members), plan.resources)), members[0]
    spread = f", ± {formatting.percent(first.rate.spread / 2)}" if first.rate.spread is not None else ""
    means = _mean(members, lambda planned: planned.seconds), _mean(members, lambda planned: planned.train_seconds)
    each = list(map(formatting.hours_and_minutes, means))
    return [
        f"{row} {model_size}".strip(),
        *([corpus] if directions else []),
        str(sum(planned.job.count for planned in members)),
        formatting.count(first.cost.params),
        *amounts[:2],
        *each,
        *amounts[2:4],
        size(max(planned.memory_bytes for planned in members)),
        amounts[4],
        f"{first.rate.detail}{spread}",
    ]


def notes(plan: Plan) -> list[str]:
    """What a reader must know of the numbers, one sentence or two for each source."""
    resources, sources = plan.resources, {planned.rate.source for planned in plan.jobs}
    device = plan.devices[1]
    found = [
        f"{_plural(resources.workers, 'job')} at a time; {plan.device_hours:,.2f} {device}-hours. FLOPs by the "
        "convention of docs/flops.md; memory of weights, activations and optimizer, without Python."
    ]
    if "calibration" in sources:
        busy = f", while {_plural(resources.workers - 1, 'other process')} computed" if resources.workers > 1 else ""
        found.append(
            f"{CALIBRATED}{busy}: updates, greedy and beam translation. Assumed: {latency.SECONDS:.0f} s of latency "
            f"measurement and {TRACKING_S:.0f} s of tracking for each job."
        )
    if "gpu" in sources and resources.gpu:
        gpu = resources.gpu
        found.append(
            f"{gpu.name}: {gpu.bf16 / 1e12:,.0f} TFLOP/s in bf16, {gpu.fp32 / 1e12:,.0f} in fp32, "
            f"{gpu.memory / 1e9:.0f} GB ({gpu.source}). Without a measured run the utilisation is an assumption, and "
            "hours may be wrong by a factor of several; --from FOLDER takes it from an export of runs on a GPU."
        )
    return found + plan.warnings
