"""What a report says: every form of it (page, Markdown, LaTeX, CSV) is made of one Context."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.measures import published
from bench.measures.tuning_curve import Expected
from bench.tracking.reading import TrackedRun
from reports.gathering.comparison import Comparison, Translations
from reports.text.catalogue import Catalogue


def slug(name: str) -> str:
    """For file names and anchors; names that differ in case and punctuation alone have the same."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


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
        return slug(self.label)

    def among(self, others: Sequence[Track]) -> Track | None:
        """The track of another suite with the same text, at the same preset if there is one."""
        same = [other for other in others if (other.corpus, other.direction) == (self.corpus, self.direction)]
        return next((other for other in same if other.preset == self.preset), same[0] if same else None)


@dataclass(frozen=True)
class Number:
    """A measured number over the seeds of a row: their mean, its interval, and the seeds one by one.

    Attributes:
        noisy: True if the timing of any seed was noisy.
    """

    value: float | None
    unit: str
    low: float | None
    high: float | None
    provenance: str
    seeds: dict[int, float | None]
    noisy: bool = False


@dataclass(frozen=True, eq=False)
class Cell:
    """One row on one track.

    Attributes:
        runs: The finished runs that count, by seed.
        state: finished, failed, interrupted, unfinished, or not run.
        failures: Seeds that were begun and have no result: seed, state, reason.
        numbers: (test set, or nothing for costs; metric) -> number.
        curves: Learning curves by seed: columns update, name, value.
    """

    track: Track
    runs: dict[int, TrackedRun]
    state: str
    failures: tuple[tuple[int, str, str], ...]
    numbers: dict[tuple[str, str], Number]
    curves: dict[int, pd.DataFrame]

    def number(self, metric: str, test_set: str = "") -> Number | None:
        """None where it was not measured."""
        found = self.numbers.get((test_set, metric))
        return found if found and found.value is not None else None

    def value(self, metric: str, test_set: str = "") -> float | None:
        found = self.number(metric, test_set)
        return found.value if found else None

    def below(self, name: str) -> dict[str, Number]:
        """What was measured of parts: of contrastive, for example, pronoun -> number and pronoun/3 -> number."""
        return {
            metric.removeprefix(f"{name}/"): number
            for (test_set, metric), number in self.numbers.items()
            if not test_set and metric.startswith(f"{name}/") and number.value is not None
        }


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


@dataclass(frozen=True)
class Swept:
    """What a sweep found for a row.

    Attributes:
        goals: The metrics that it was to make better.
        settings: Key -> the best value, in the first goal, as it is tracked.
        importance: Key -> its part of the variance of the first goal over the trials (PED-ANOVA); empty with too few.
        front: With several goals the Pareto front: each trial's values of the goals, and its settings.
    """

    row: str
    goals: tuple[str, ...]
    settings: Mapping[str, str]
    importance: Mapping[str, float]
    front: tuple[tuple[tuple[float, ...], Mapping[str, Any]], ...]


@dataclass(frozen=True, eq=False)
class Context:
    """Everything that a report says.

    Attributes:
        baseline: Id of the row that the others are compared with.
        tracks: The columns: corpora with their direction and preset.
        rows: The lines, in the suite's order.
        translations: Track -> what every row made of its first test set.
        comparisons: Paired tests, each row against the baseline, and each against the best.
        passports: Track -> what is known of its corpus; attention: track -> row -> where it looks.
        tuning: Track -> row -> expected best validation BLEU against the sentence pairs that a sweep spent.
        tuned: Row -> the tuning of its settings in sentence pairs: granted, spent, debt (what it got beyond the row
            that got least); empty where the suite took no settings from sweeps.
        sweeps: Track -> what sweeps found for its rows.
        before: The suite that this one is compared with, and the paired tests of each row against itself there.
        ui_url: Address of the MLflow UI that has the runs, empty if unknown.
        experiment: Id of the suite in MLflow.
        command: The command that was last given for it, empty if its runs were not made by one.
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
    command: str
    written: str
    catalogue: Catalogue
    passports: Mapping[Track, Mapping[str, Any]]
    attention: Mapping[Track, Mapping[str, Mapping[str, Any]]]
    tuning: Mapping[Track, Mapping[str, Sequence[Expected]]]
    tuned: Mapping[str, Mapping[str, Any]]
    sweeps: Mapping[Track, tuple[Swept, ...]]
    before: Context | None = None
    changes: tuple[Comparison, ...] = ()

    def row(self, identifier: str) -> Row:
        return next(row for row in self.rows if row.id == identifier)

    def scored(self, track: Track) -> list[Row]:
        """The rows that have a BLEU score on a track, the highest first."""
        scores = {row.id: row.cells[track].value("bleu", track.test_set) for row in self.rows}
        found = [row for row in self.rows if scores[row.id] is not None]
        return sorted(found, key=lambda row: -(scores[row.id] or 0.0))

    def comparison(self, track: Track, row: str, against: str) -> Comparison | None:
        """The test of a row among those of all rows against another one."""
        key = track.label, row, against
        return next((found for found in self.comparisons if (found.track, found.row, found.against) == key), None)

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
        for line in published.table()
    )
