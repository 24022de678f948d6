"""Reads the runs of a scaling study, from a store or an export, into a Study."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from bench.measures.measure import Measure
from bench.scaling.points import Point
from bench.tracking.private_paths import public_command
from bench.tracking.reading import SCALE_TAG, Reader, TrackedRun
from reports.gathering.gather_runs import read_each
from reports.scaling.study import RateCheck, Size, Study

RATE = "training.optimizer.lr"


def is_study(reader: Reader, suite: str) -> bool:
    """Whether the runs of this name are those of a scaling study."""
    parent = reader.parent_run(suite)
    return bool(parent and parent.tags.get(SCALE_TAG))


def gather(reader: Reader, suite: str) -> Study:
    """Reads a study. Unfinished and failed runs are named in `Study.failed`.

    Raises:
        ValueError: there is no study of this name, or its description is damaged.
    """
    parent = reader.parent_run(suite)
    described = parent.tags.get(SCALE_TAG) if parent else None
    if parent is None or not described:
        raise ValueError(f"{suite}: not a scaling study in {reader.uri}; start one with bench scale FILE")
    plan = _Plan.read(described, suite)
    newest: dict[_Key, tuple[TrackedRun, dict[str, Measure]]] = {}
    others: list[tuple[_Key, TrackedRun, dict[str, Measure]]] = []
    runs = reader.runs(suite)
    finished = [
        run
        for run in runs
        if run.status == "FINISHED" and run.tags.get("size") in plan.sizes.get(run.tags.get("row", ""), {})
    ]
    measures_of = read_each(finished, reader.measures)
    for run in finished:
        measures = {measure.metric: measure for measure in measures_of[run.id]}
        pairs, seed = int(run.params["training.max_pairs"]), int(run.tags.get("seed") or 0)
        key = _Key(run.tags["row"], run.tags["size"], pairs, seed)
        if float(run.params[RATE]) == plan.rate(key):
            newest.setdefault(key, (run, measures))
        else:
            others.append((key, run, measures))
    found = _with_equal_budgets(
        {key: point for key, (run, measures) in newest.items() if (point := _point(key, run, measures))}
    )
    about = json.loads(parent.tags.get("about") or "{}")
    started = max((run.started for run in runs), default=parent.started)
    some = next(iter(newest.values()), (None, {}))[0]
    rows = [row for row in parent.tags.get("rows", "").split(",") if row]
    expected = plan.expected(rows)
    return Study(
        name=suite,
        question=parent.tags.get("question", ""),
        date=started.strftime("%Y-%m-%d"),
        command=public_command(parent.tags.get("command", "")),
        labels={row: about.get(row, {}).get("name", row) for row in rows},
        sizes=tuple(_sizes(plan, rows, found)),
        points=tuple(found[key] for key in expected if key in found),
        rate_rule=plan.rule_sentence,
        rate_checks=tuple(_rate_checks(plan, others, found)),
        corpus=some.tags.get("corpus", "") if some else "",
        vocabulary=int(some.params.get("text.vocabulary_size") or 0) if some else 0,
        failed=tuple(str(key) for key in expected if key not in found),
        device=_device(some),
    )


@dataclass(frozen=True)
class _Key:
    """What identifies a run of the study."""

    row: str
    size: str
    pairs: int
    seed: int

    def __str__(self) -> str:
        return f"{self.row} {self.size} {self.pairs:,} pairs s{self.seed}"


@dataclass(frozen=True)
class _Plan:
    """What the run of the study says about its jobs (`Scale.parent_tags`)."""

    sizes: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
    pairs: Sequence[int]
    seeds: Sequence[int]
    rules: Mapping[str, float]
    replicates: Mapping[str, Any]
    rate_check: Mapping[str, Any] | None

    @classmethod
    def read(cls, text: str, suite: str) -> _Plan:
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{suite}: the tag {SCALE_TAG} of the study's run is damaged ({error}); run bench scale again, which "
                "writes it"
            ) from error

    def rate(self, key: _Key) -> float | None:
        """The learning rate of the rule."""
        return self.sizes[key.row][key.size]["of_rules"].get(RATE)

    def expected(self, rows: Sequence[str]) -> list[_Key]:
        """All runs that give points, in the order of rows, sizes, budgets and seeds."""
        keys = []
        for row in rows:
            for number, size in enumerate(self.sizes.get(row, {})):
                more = self.replicates["seeds"] if number < self.replicates["sizes"] else []
                seeds = dict.fromkeys([*self.seeds, *more])
                keys += [_Key(row, size, pairs, seed) for pairs, seed in itertools.product(self.pairs, seeds)]
        return keys

    @property
    def rule_sentence(self) -> str:
        """The rules as equations."""
        return "; ".join(f"{key} = recipe × (N / N of the recipe)^{power:g}" for key, power in self.rules.items())


def _point(key: _Key, run: TrackedRun, measures: Mapping[str, Measure]) -> Point | None:
    """The end point of a run; None if a number is missing, as of a run of an earlier version."""
    names = ("params_core", "params_multiplied", "params", "target_tokens", "pairs", "train_flops", "validation_loss")
    values = [measures[name].value if name in measures else None for name in names]
    if any(value is None for value in values):
        return None
    body, multiplied, every, tokens, pairs, flops, loss = (float(value or 0) for value in values)
    bleu = next((one.value for name, one in measures.items() if name.endswith("/bleu") and name.count("/") == 1), None)
    seconds = measures["wall_s"].value if "wall_s" in measures else None
    counts = int(body), int(multiplied), int(every)
    return Point(key.row, run.id, key.size, key.seed, *counts, tokens, pairs, flops, seconds, loss, bleu)


def _with_equal_budgets(points: Mapping[_Key, Point]) -> dict[_Key, Point]:
    """The points with the mean tokens and pairs of all runs of their budget.

    Seeds have other batches, so the counts of runs of one budget differ by less than a batch. Fits recognize replicates
    and the largest budget by equal counts. FLOPs stay those of the run.
    """
    runs: dict[int, list[Point]] = {}
    for key, point in points.items():
        runs.setdefault(key.pairs, []).append(point)
    means = {pairs: (fmean(p.tokens for p in of), fmean(p.pairs for p in of)) for pairs, of in runs.items()}
    return {key: replace(p, tokens=means[key.pairs][0], pairs=means[key.pairs][1]) for key, p in points.items()}


def _sizes(plan: _Plan, rows: Sequence[str], points: Mapping[_Key, Point]) -> list[Size]:
    """The sizes of which a run has finished: only a run knows its vocabulary, and so its parameters."""
    found = []
    for row in rows:
        for name, layers in plan.sizes.get(row, {}).items():
            mine = {key: point for key, point in points.items() if (key.row, key.size) == (row, name)}
            if not mine:
                continue
            first = next(iter(mine.values()))
            seeds = max(sum(key.pairs == pairs for key in mine) for pairs in plan.pairs)
            settings = ", ".join(f"{key} {value}" for key, value in layers["model"].items())
            counts = first.body, first.body_softmax, first.all
            found.append(Size(row, name, settings, *counts, float(layers["of_rules"].get(RATE) or 0), seeds))
    return found


def _rate_checks(
    plan: _Plan, others: Sequence[tuple[_Key, TrackedRun, Mapping[str, Measure]]], points: Mapping[_Key, Point]
) -> list[RateCheck]:
    """The runs with other learning rates, the newest of each, and the run of the rule among them; by row and factor."""
    found: dict[tuple[str, float], RateCheck] = {}
    for key, run, measures in others:
        rate, loss = plan.rate(key), measures["validation_loss"].value if "validation_loss" in measures else None
        if rate and loss is not None:
            factor = float(f"{float(run.params[RATE]) / rate:.3g}")
            found.setdefault((key.row, factor), RateCheck(key.row, key.size, key.pairs, factor, loss))
            if own := points.get(key):
                found[key.row, 1.0] = RateCheck(key.row, key.size, key.pairs, 1.0, own.loss)
    order = list(plan.sizes)
    return [found[key] for key in sorted(found, key=lambda key: (order.index(key[0]), key[1]))]


def _device(run: TrackedRun | None) -> str:
    """The device on which a run was timed: the GPU, or the processor and its threads."""
    if run is None:
        return ""
    gpu = run.tags.get("hardware.gpu", "none")
    return gpu if gpu != "none" else f"{run.tags.get('hardware.cpu', '')}, {run.tags.get('threads', '?')} threads"
