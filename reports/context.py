"""What a report says, gathered once from tracked runs: every form (page, Markdown, LaTeX, CSV) is made of it."""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from bench.measures import Measure
from bench.tracking import PARENT, Store, TrackedRun
from reports.formatting import METRICS

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a report reads a hundred small files

STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted", "RUNNING": "unfinished"}


@dataclass(frozen=True)
class Track:
    """What the rows of one column have in common: corpus (with its direction) and preset."""

    corpus: str
    preset: str
    direction: str
    label: str = ""
    test_sets: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.corpus, self.preset, self.direction


@dataclass(frozen=True)
class Number:
    """A measured number over the seeds of a row: their mean, its interval, and the seeds one by one."""

    value: float | None
    unit: str
    low: float | None
    high: float | None
    recipe: str
    seeds: dict[int, float | None]


@dataclass(frozen=True)
class Cell:
    """One row on one track.

    Attributes:
        runs: The finished runs that count, by seed.
        state: finished, failed, interrupted, unfinished, or not run.
        reason: Why there is no result, or why fewer seeds than were begun.
        numbers: (test set, or nothing for costs; metric) -> number.
    """

    track: Track
    runs: dict[int, TrackedRun]
    state: str
    reason: str
    numbers: dict[tuple[str, str], Number]

    def number(self, metric: str, test_set: str = "") -> Number | None:
        found = self.numbers.get((test_set, metric))
        return found if found and found.value is not None else None


@dataclass(frozen=True)
class Published:
    """A line of table 2 of Vaswani et al. 2017."""

    row: str
    citation: str
    year: int
    members: int
    bleu: dict[str, float]
    flops: dict[str, float]
    clock: dict[str, str]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    id: str
    name: str
    year: int | None
    paper: str
    family: str
    note: str
    published: Published | None
    cells: dict[Track, Cell]


@dataclass(frozen=True)
class Context:
    """Everything that a report says.

    Attributes:
        baseline: Id of the row that the others are compared with.
        tracks: The columns: corpora with their direction and preset.
        rows: The lines, in the suite's order.
    """

    suite: str
    question: str
    baseline: str
    tracks: tuple[Track, ...]
    rows: tuple[Row, ...]
    published: tuple[Published, ...]
    notes: list[str] = field(default_factory=list)

    def row(self, identifier: str) -> Row:
        return next(row for row in self.rows if row.id == identifier)


@functools.cache
def published_table() -> tuple[Published, ...]:
    """Table 2 of Vaswani et al. 2017 as printed, and the row that the slides leave out."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))

    def numbers(line: dict[str, str], name: str) -> dict[str, float]:
        pairs = {"en-de": line[name.format("en_de")], "en-fr": line[name.format("en_fr")]}
        return {direction: float(text) for direction, text in pairs.items() if text}

    return tuple(
        Published(
            line["row"],
            line["citation"],
            int(line["year"]),
            int(line["members"]),
            numbers(line, "bleu_{}"),
            numbers(line, "cost_{}_flops"),
            {
                d: line[f"clock_{d.replace('-', '_')}"]
                for d in ("en-de", "en-fr")
                if line[f"clock_{d.replace('-', '_')}"]
            },
        )
        for line in lines
    )


def gather(store: Store, suite: str | None) -> Context:
    """Reads a suite, the newest if none is named.

    Raises:
        ValueError: there is no such suite, or it has no runs.
    """
    if suite is None:
        suites = store.suites()
        if not suites:
            raise ValueError(f"there are no runs in {store.uri}; make some with bench suite experiments/demo.yaml")
        suite = suites[0]
    runs = store.runs(suite)
    if not runs:
        raise ValueError(f"the suite {suite!r} in {store.uri} has no runs yet")
    parent = next((run.tags[PARENT] for run in runs if run.tags.get(PARENT)), None)
    tags = store.run(parent).tags if parent else {}
    measures = {run.id: store.measures(run) for run in _chosen(runs)}
    tracks = _tracks(runs, measures)
    rows = tuple(_row(identifier, runs, tracks, measures) for identifier in _order(runs, tags))
    baseline = tags.get("baseline", "")
    known = [row.id for row in rows]
    return Context(
        suite=suite,
        question=tags.get("question", ""),
        baseline=baseline if baseline in known else known[-1],
        tracks=tracks,
        rows=rows,
        published=published_table(),
    )


def _key(run: TrackedRun) -> tuple[str, str, str]:
    return run.tags.get("corpus", ""), run.tags.get("preset", ""), run.tags.get("direction", "")


def _chosen(runs: Sequence[TrackedRun]) -> list[TrackedRun]:
    """The newest finished run of each row, track and seed; `runs` come newest first."""
    newest: dict[tuple[str, ...], TrackedRun] = {}
    for run in runs:
        if run.status == "FINISHED":
            newest.setdefault((run.tags.get("row", ""), *_key(run), run.tags.get("seed", "")), run)
    return list(newest.values())


def _order(runs: Sequence[TrackedRun], tags: dict[str, str]) -> list[str]:
    """The suite's order; rows that it does not name follow by year."""
    named = [row for row in tags.get("rows", "").split(",") if row]
    others = {run.tags.get("row", ""): int(run.tags.get("year") or 0) for run in runs}
    return named + sorted((row for row in others if row not in named), key=lambda row: (others[row], row))


def _tracks(runs: Sequence[TrackedRun], measures: dict[str, list[Measure]]) -> tuple[Track, ...]:
    """The columns, the oldest first, with the shortest label that tells them apart."""
    test_sets: dict[tuple[str, str, str], list[str]] = {}
    for run in reversed(runs):
        names = test_sets.setdefault(_key(run), [])
        for measure in measures.get(run.id, []):
            test_set, slash, _ = measure.metric.rpartition("/")
            if slash and test_set not in names:
                names.append(test_set)
    keys = list(test_sets)

    def label(key: tuple[str, str, str]) -> str:
        corpus, preset, direction = key
        same = [other for other in keys if other[2] == direction]
        parts = [direction.upper() or "?"]
        parts += [corpus] if len({other[0] for other in same}) > 1 else []
        parts += [preset] if len([other for other in same if other[0] == corpus]) > 1 else []
        return " ".join(parts)

    return tuple(Track(*key, label(key), tuple(test_sets[key])) for key in keys)


def _row(
    identifier: str, runs: Sequence[TrackedRun], tracks: Sequence[Track], measures: dict[str, list[Measure]]
) -> Row:
    own = [run for run in runs if run.tags.get("row", "") == identifier]
    tags = own[0].tags if own else {}
    name = tags.get("name") or identifier
    year = tags.get("year", "")
    return Row(
        id=identifier,
        name=name,
        year=int(year) if year.isdigit() and int(year) else None,
        paper=tags.get("paper", ""),
        family=tags.get("family", ""),
        note=tags.get("note", ""),
        published=next((line for line in published_table() if line.row == name), None),
        cells={track: _cell(track, [run for run in own if _key(run) == track.key], measures) for track in tracks},
    )


def _cell(track: Track, runs: Sequence[TrackedRun], measures: dict[str, list[Measure]]) -> Cell:
    chosen = sorted(_chosen(runs), key=lambda run: int(run.tags.get("seed") or 0))
    finished = {int(run.tags.get("seed") or 0): run for run in chosen}
    begun = {int(run.tags.get("seed") or 0): run for run in reversed(runs)}
    failures = [
        f"seed {seed} {STATES.get(run.status, run.status.lower())}"
        + (f": {run.tags['reason']}" if run.tags.get("reason") else "")
        for seed, run in sorted(begun.items())
        if seed not in finished
    ]
    state = "finished" if finished else STATES.get(runs[0].status, "unfinished") if runs else "not run"
    by_name: dict[str, dict[int, Measure]] = {}
    for seed, run in finished.items():
        for measure in measures[run.id]:
            by_name.setdefault(measure.metric, {})[seed] = measure
    numbers = {}
    for name, of_seeds in by_name.items():
        test_set, _, metric = name.rpartition("/")
        numbers[test_set, metric] = _number(of_seeds)
    return Cell(track, finished, state, "; ".join(failures), numbers)


def _number(of_seeds: dict[int, Measure]) -> Number:
    """The mean over seeds. An interval over seeds needs the sentences (see significance); costs get none."""
    first = next(iter(of_seeds.values()))
    values = {seed: measure.value for seed, measure in of_seeds.items()}
    if len(of_seeds) == 1:
        return Number(first.value, first.unit, first.low, first.high, first.recipe, values)
    known = [number for number in values.values() if number is not None]
    mean = fmean(known) if len(known) == len(values) else None
    return Number(mean, first.unit, None, None, f"{first.recipe}; mean of {len(known)} seeds", values)


def metric_order(names: Sequence[str]) -> list[str]:
    """The metrics in the order of the formatting table, others behind."""
    known = list(METRICS)
    return sorted(set(names), key=lambda name: (known.index(name) if name in known else len(known), name))
