"""What a report says, gathered once from tracked runs: every form (page, Markdown, LaTeX, CSV) is made of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from bench.measures import Measure, costs, quality
from bench.tracking import PARENT, Store, TrackedRun
from reports.evidence import Comparison, Translations, combined, compare
from reports.formatting import METRICS

STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted", "RUNNING": "unfinished"}
TITLE = "Transformer vs. traditional models"


@dataclass(frozen=True)
class Track:
    """What the rows of one column have in common: corpus (with its direction) and preset.

    Attributes:
        label: The direction, with corpus or preset behind it where several tracks share one.
        test_sets: The first is the one of the main table.
    """

    corpus: str
    preset: str
    direction: str
    label: str = ""
    test_sets: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.corpus, self.preset, self.direction

    @property
    def test_set(self) -> str:
        return self.test_sets[0] if self.test_sets else ""

    @property
    def slug(self) -> str:
        """For file names and anchors."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.label.lower())


@dataclass(frozen=True)
class Number:
    """A measured number over the seeds of a row: their mean, its interval, and the seeds one by one."""

    value: float | None
    unit: str
    low: float | None
    high: float | None
    recipe: str
    seeds: dict[int, float | None]


@dataclass(frozen=True, eq=False)
class Cell:
    """One row on one track.

    Attributes:
        runs: The finished runs that count, by seed.
        state: finished, failed, interrupted, unfinished, or not run.
        reason: Why there is no result, or why fewer seeds than were begun.
        numbers: (test set, or nothing for costs; metric) -> number.
        curves: Learning curves by seed: columns update, name, value.
    """

    track: Track
    runs: dict[int, TrackedRun]
    state: str
    reason: str
    numbers: dict[tuple[str, str], Number]
    curves: dict[int, pd.DataFrame]

    def number(self, metric: str, test_set: str = "") -> Number | None:
        """None where it was not measured."""
        found = self.numbers.get((test_set, metric))
        return found if found and found.value is not None else None

    def value(self, metric: str, test_set: str = "") -> float | None:
        found = self.number(metric, test_set)
        return found.value if found else None


@dataclass(frozen=True)
class Published:
    """A line of table 2 of Vaswani et al. 2017; by direction."""

    row: str
    citation: str
    year: int
    members: int
    bleu: dict[str, float]
    flops: dict[str, float]
    clock: dict[str, str]


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class Context:
    """Everything that a report says.

    Attributes:
        baseline: Id of the row that the others are compared with.
        tracks: The columns: corpora with their direction and preset.
        rows: The lines, in the suite's order.
        translations: Track -> what every row made of its first test set.
        comparisons: Paired tests, each row against the baseline, and the best against each row.
        ui_url: Address of the MLflow UI that has the runs, empty if unknown.
        experiment: Id of the suite in MLflow.
        written: When the newest run began, as the date of the report: the same runs give the same bytes.
    """

    suite: str
    question: str
    baseline: str
    tracks: tuple[Track, ...]
    rows: tuple[Row, ...]
    published: tuple[Published, ...]
    translations: dict[Track, Translations]
    comparisons: tuple[Comparison, ...]
    ui_url: str
    experiment: str
    written: str

    def row(self, identifier: str) -> Row:
        return next(row for row in self.rows if row.id == identifier)

    def scored(self, track: Track) -> list[Row]:
        """The rows that have a BLEU score on a track, the highest first."""
        scores = {row.id: row.cells[track].value("bleu", track.test_set) for row in self.rows}
        found = [row for row in self.rows if scores[row.id] is not None]
        return sorted(found, key=lambda row: -(scores[row.id] or 0.0))

    def comparison(self, track: Track, one: str, other: str) -> Comparison | None:
        """The paired test of two rows, the difference being the first minus the second."""
        for found in self.comparisons:
            if found.track == track.label and (found.row, found.against) == (one, other):
                return found
            if found.track == track.label and (found.row, found.against) == (other, one):
                return found.reversed()
        return None

    def link(self, run_id: str) -> str:
        """Address of a run in the MLflow UI, or nothing."""
        return f"{self.ui_url}/#/experiments/{self.experiment}/runs/{run_id}" if self.ui_url else ""


@functools.cache
def published_table() -> tuple[Published, ...]:
    """Table 2 of Vaswani et al. 2017 as printed, and the row that the slides leave out."""
    directions = {"en-de": "en_de", "en-fr": "en_fr"}
    return tuple(
        Published(
            line["row"],
            line["citation"],
            int(line["year"]),
            int(line["members"]),
            {d: float(line[f"bleu_{key}"]) for d, key in directions.items() if line[f"bleu_{key}"]},
            {d: float(line[f"cost_{key}_flops"]) for d, key in directions.items() if line[f"cost_{key}_flops"]},
            {d: line[f"clock_{key}"] for d, key in directions.items() if line[f"clock_{key}"]},
        )
        for line in costs.published()
    )


def gather(store: Store, suite: str | None, ui_url: str | None = None) -> Context:
    """Reads a suite, the newest if none is named.

    Args:
        store: Where the runs are.
        suite: Its name.
        ui_url: Address of the MLflow UI; by default the store's own address where it is a server.

    Raises:
        ValueError: there is no such suite, or it has no runs, or the address is none.
    """
    if suite is None:
        suites = store.suites()
        if not suites:
            raise ValueError(f"there are no runs in {store.uri}; make some with bench suite experiments/demo.yaml")
        suite = suites[0]
    runs = store.runs(suite)
    if not runs:
        raise ValueError(f"the suite {suite!r} in {store.uri} has no runs yet")
    if ui_url and not ui_url.startswith(("http://", "https://")):
        raise ValueError(f"--ui_url: {ui_url!r} does not begin with http:// or https://")
    parent = next((run.tags[PARENT] for run in runs if run.tags.get(PARENT)), None)
    tags = store.run(parent).tags if parent else {}
    chosen = _chosen(runs)
    measures = {run.id: store.measures(run) for run in chosen}
    curves = {run.id: store.curves(run) for run in chosen}
    tracks = _tracks(runs, measures)
    texts = {
        (track, test_set): _translations(store, track, test_set, chosen)
        for track in tracks
        for test_set in track.test_sets
    }
    translations = {
        track: texts[track, track.test_set]
        for track in tracks
        if track.test_set and texts[track, track.test_set].references
    }
    order = _order(runs, tags)
    rows = tuple(_row(identifier, runs, tracks, measures, curves, texts) for identifier in order)
    baseline = tags.get("baseline", "") if tags.get("baseline") in order else order[-1]
    return Context(
        suite=suite,
        question=tags.get("question", ""),
        baseline=baseline,
        tracks=tracks,
        rows=rows,
        published=published_table(),
        translations=translations,
        comparisons=tuple(
            comparison
            for track, texts in translations.items()
            for comparison in compare(track.label, texts, baseline, [row for row in order if row in texts.hypotheses])
        ),
        ui_url=(ui_url or (store.uri if store.uri.startswith(("http://", "https://")) else "")).rstrip("/"),
        experiment=store.experiment(suite),
        written=max(run.started for run in runs).strftime("%Y-%m-%d"),
    )


def _key(run: TrackedRun) -> tuple[str, str, str]:
    return run.tags.get("corpus", ""), run.tags.get("preset", ""), run.tags.get("direction", "")


def _seed(run: TrackedRun) -> int:
    return int(run.tags.get("seed") or 0)


def _chosen(runs: Sequence[TrackedRun]) -> list[TrackedRun]:
    """The newest finished run of each row, track and seed, by seed; `runs` come newest first."""
    newest: dict[tuple[object, ...], TrackedRun] = {}
    for run in runs:
        if run.status == "FINISHED":
            newest.setdefault((run.tags.get("row", ""), *_key(run), _seed(run)), run)
    return sorted(newest.values(), key=_seed)


def _order(runs: Sequence[TrackedRun], tags: dict[str, str]) -> list[str]:
    """The suite's order; rows that it does not name follow by year."""
    named = [row for row in tags.get("rows", "").split(",") if row]
    others = {run.tags.get("row", ""): run.tags.get("year", "") for run in runs}
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
        parts = [direction.upper() or corpus or "all"]
        parts += [corpus] if len({other[0] for other in same}) > 1 else []
        parts += [preset] if len([other for other in same if other[0] == corpus]) > 1 else []
        return " ".join(parts)

    return tuple(Track(*key, label(key), tuple(test_sets[key])) for key in keys)


def _translations(store: Store, track: Track, test_set: str, chosen: Sequence[TrackedRun]) -> Translations:
    """What the rows made of a test set. A row that was given other sentences than the first is left out."""
    found = Translations(track.direction, test_set, [], [], {})
    for run in chosen:
        if _key(run) != track.key:
            continue
        table = store.hypotheses(run, test_set)
        if table.empty:
            continue
        if not found.references:
            found.sources.extend(table["source"])
            found.references.extend(table["reference"])
        if list(table["reference"]) == found.references:
            found.hypotheses.setdefault(run.tags.get("row", ""), {})[_seed(run)] = list(table["hypothesis"])
    return found


def _row(
    identifier: str,
    runs: Sequence[TrackedRun],
    tracks: Sequence[Track],
    measures: dict[str, list[Measure]],
    curves: dict[str, pd.DataFrame],
    texts: dict[tuple[Track, str], Translations],
) -> Row:
    own = [run for run in runs if run.tags.get("row", "") == identifier]
    tags = own[0].tags if own else {}
    name, year = tags.get("name") or identifier, tags.get("year", "")

    def cell(track: Track) -> Cell:
        return _cell(identifier, track, [run for run in own if _key(run) == track.key], measures, curves, texts)

    return Row(
        id=identifier,
        name=name,
        year=int(year) if year.isdigit() and int(year) else None,
        paper=tags.get("paper", ""),
        family=tags.get("family", ""),
        note=tags.get("note", ""),
        published=next((line for line in published_table() if line.row == name), None),
        cells={track: cell(track) for track in tracks},
    )


def _cell(
    row: str,
    track: Track,
    runs: Sequence[TrackedRun],
    measures: dict[str, list[Measure]],
    curves: dict[str, pd.DataFrame],
    texts: dict[tuple[Track, str], Translations],
) -> Cell:
    finished = {_seed(run): run for run in _chosen(runs)}
    begun = {_seed(run): run for run in reversed(runs)}  # the newest of each seed stays
    failures = [
        f"seed {seed} {STATES.get(run.status, run.status.lower())}"
        + (f" ({run.tags['reason']})" if run.tags.get("reason") else "")
        for seed, run in sorted(begun.items())
        if seed not in finished
    ]
    by_name: dict[str, dict[int, Measure]] = {}
    for seed, run in finished.items():
        for measure in measures[run.id]:
            by_name.setdefault(measure.metric, {})[seed] = measure
    numbers = {}
    for name, of_seeds in by_name.items():
        test_set, _, metric = name.rpartition("/")
        number = _number(of_seeds)
        if len(of_seeds) > 1 and metric in quality.METRICS and (track, test_set) in texts:
            read = texts[track, test_set]
            outputs = read.hypotheses.get(row, {})
            if set(outputs) == set(of_seeds):
                over = combined(read.references, list(outputs.values()), metric)
                number = Number(number.value, number.unit, over.low, over.high, over.recipe, number.seeds)
        numbers[test_set, metric] = number
    return Cell(
        track=track,
        runs=finished,
        state="finished" if finished else STATES.get(runs[0].status, "unfinished") if runs else "not run",
        reason="; ".join(failures),
        numbers=numbers,
        curves={seed: curves[run.id] for seed, run in finished.items()},
    )


def _number(of_seeds: dict[int, Measure]) -> Number:
    """The mean over seeds, without an interval if there are several; scores get theirs from the sentences."""
    first = next(iter(of_seeds.values()))
    values = {seed: measure.value for seed, measure in of_seeds.items()}
    if len(of_seeds) == 1:
        return Number(first.value, first.unit, first.low, first.high, first.recipe, values)
    known = [number for number in values.values() if number is not None]
    mean = fmean(known) if len(known) == len(values) else None
    return Number(mean, first.unit, None, None, f"{first.recipe}; mean of {len(values)} seeds", values)


def metric_order(names: Sequence[str]) -> list[str]:
    """The metrics in the order of the formatting table, others behind."""
    known = list(METRICS)
    return sorted(set(names), key=lambda name: (known.index(name) if name in known else len(known), name))
