"""The data of a report. Every form of it (page, Markdown, LaTeX, CSV) is made from one Context."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.measures import published
from bench.measures.comparison import Comparison
from bench.measures.other_code import is_from_other_code
from bench.measures.selection import Selection
from bench.measures.tuning_curve import Expected
from bench.tracking.reading import TrackedRun
from reports.gathering.translations import Translations
from reports.text.catalogue import Catalogue

STILL_IMPROVING = "†"
"""Mark of a row that was still improving at the end of its budget, in tables and plots."""

OTHER_CODE = "‡"
"""Mark of a row with runs that other code has made than that which writes the report."""


def slug(name: str) -> str:
    """A name for files and anchors. Names that differ only in case and punctuation have the same slug."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


@dataclass(frozen=True)
class Track:
    """One translation task of a suite: a corpus with its direction, at a preset. Tables have columns for each track.

    Attributes:
        label: The direction, followed by corpus or preset where they are needed to distinguish tracks.
        test_sets: Names of the test sets; the comparison table shows the first.
    """

    corpus: str
    preset: str
    direction: str
    label: str = ""
    test_sets: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """Corpus, preset and direction: runs with the same key belong to the track."""
        return self.corpus, self.preset, self.direction

    @property
    def test_set(self) -> str:
        """The first test set, or "" without scores."""
        return self.test_sets[0] if self.test_sets else ""

    @property
    def slug(self) -> str:
        return slug(self.label)

    def among(self, others: Sequence[Track]) -> Track | None:
        """The track with the same corpus and direction among those of another suite, if possible at the same preset."""
        same = [other for other in others if (other.corpus, other.direction) == (self.corpus, self.direction)]
        return next((other for other in same if other.preset == self.preset), same[0] if same else None)


@dataclass(frozen=True)
class Number:
    """A measured number of a row: the mean over its seeds, its interval, and the value of each seed.

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
    """The results of one row on one track.

    Attributes:
        runs: The newest finished run of each seed.
        state: finished, failed, interrupted, unfinished, or not run.
        failures: Seeds that were started and have no result: seed, state, reason.
        numbers: (test set, or "" for costs; metric) -> number.
        curves: Seed -> learning curves, with columns update, name, value.
    """

    track: Track
    runs: dict[int, TrackedRun]
    state: str
    failures: tuple[tuple[int, str, str], ...]
    numbers: dict[tuple[str, str], Number]
    curves: dict[int, pd.DataFrame]

    def number(self, metric: str, test_set: str = "") -> Number | None:
        """The number of a metric; None if it was not measured."""
        found = self.numbers.get((test_set, metric))
        return found if found and found.value is not None else None

    def value(self, metric: str, test_set: str = "") -> float | None:
        """The value of a metric; None if it was not measured."""
        found = self.number(metric, test_set)
        return found.value if found else None

    @property
    def is_ensemble(self) -> bool:
        """Whether its runs are ensembles, which have no training of their own."""
        return any("members" in run.tags for run in self.runs.values())

    @property
    def still_improving(self) -> list[int]:
        """Seeds whose weights with the best validation score are those of the last validation of their budget."""
        number, found = self.number("best_update"), []
        for seed, best_update in (number.seeds if number else {}).items():
            curve = self.curves[seed]
            validated = sorted(set(curve["update"][curve["name"].str.startswith("validation/")]))
            if best_update is not None and len(validated) > 1 and best_update >= validated[-1]:
                found.append(seed)
        return found

    @functools.cached_property
    def of_other_code(self) -> list[int]:
        """Seeds whose runs were made by other code: their first losses differ from those of the present code."""
        return [seed for seed, run in self.runs.items() if is_from_other_code(run.tags)]

    def below(self, name: str) -> dict[str, Number]:
        """The measured parts of a metric: for contrastive, pronoun -> number and pronoun/3 -> number."""
        return {
            metric.removeprefix(f"{name}/"): number
            for (test_set, metric), number in self.numbers.items()
            if not test_set and metric.startswith(f"{name}/") and number.value is not None
        }


@dataclass(frozen=True)
class Published:
    """A line of table 2 of Vaswani et al. 2017. BLEU, FLOPs and training time are by direction."""

    row: str
    citation: str
    year: int
    members: int
    bleu: dict[str, float]
    flops: dict[str, float]
    clock: dict[str, str]


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the comparison: one architecture (or ensemble) of the suite, with its results on every track."""

    id: str
    name: str
    year: int | None
    paper: str
    family: str
    note: str
    published: Published | None
    cells: dict[Track, Cell]


@dataclass(frozen=True)
class SweepSummary:
    """The result of a sweep for one row.

    Attributes:
        goals: The metrics that it optimized.
        settings: Key -> value in the best trial by the first goal, as stored.
        importance: Key -> share of the variance of the first goal over the trials (PED-ANOVA); empty with few trials.
        front: With several goals the Pareto front: values of the goals and settings of each trial.
    """

    row: str
    goals: tuple[str, ...]
    settings: Mapping[str, str]
    importance: Mapping[str, float]
    front: tuple[tuple[tuple[float, ...], Mapping[str, Any]], ...]


@dataclass(frozen=True, eq=False)
class Context:
    """Everything that a report shows.

    Attributes:
        baseline: Id of the row that the suite compares the others with.
        rows: The rows in the order of the suite.
        translations: Track -> the translations of its first test set by all rows.
        comparisons: Paired tests: each row against the baseline, and each row against the highest.
        corpus_stats: Track -> the stored statistics of its corpus.
        attention: Track -> row -> attention weights of one sentence, with its tokens.
        tuning: Track -> row -> expected best validation score against the sentence pairs used for tuning.
        tuned: Row -> sentence pairs of its tuning: granted, spent, and debt (the amount above that of the row with the
            least), or `no_search` if its settings come from none; empty if the suite has recorded no tuning.
        sweeps: Track -> the results of sweeps for its rows.
        before: The suite that this one is compared with; None without --compare.
        changes: Paired tests of each row against itself in `before`.
        ui_url: Address of the MLflow UI that shows the runs; empty if unknown.
        experiment: Id of the suite's experiment in MLflow.
        command: The last command of the suite; empty if its runs were started one by one.
        planned: Predicted and real seconds of the last command of the suite; None if nothing was predicted.
        timed_on: The machine on which the times of all rows were measured together; empty if each run has its own.
        timed_alone: Rows that were not among them and have the times of their runs.
        written: Start of the newest run, as the date of the report, so that the same runs give the same bytes.
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
    corpus_stats: Mapping[Track, Mapping[str, Any]]
    attention: Mapping[Track, Mapping[str, Mapping[str, Any]]]
    tuning: Mapping[Track, Mapping[str, Sequence[Expected]]]
    tuned: Mapping[str, Mapping[str, Any]]
    sweeps: Mapping[Track, tuple[SweepSummary, ...]]
    before: Context | None = None
    changes: tuple[Comparison, ...] = ()
    planned: tuple[float, float] | None = None
    timed_on: str = ""
    timed_alone: tuple[str, ...] = ()

    def has_sentences(self, track: Track) -> bool:
        """Whether the sentences of a track can be shown. An export without text has only their statistics."""
        return track in self.translations and bool(self.translations[track].references)

    def row(self, identifier: str) -> Row:
        """The row with an id."""
        return next(row for row in self.rows if row.id == identifier)

    def scored(self, track: Track) -> list[Row]:
        """The rows with a BLEU score on a track, sorted from high to low."""
        scores = {row.id: row.cells[track].value("bleu", track.test_set) for row in self.rows}
        found = [row for row in self.rows if scores[row.id] is not None]
        return sorted(found, key=lambda row: -(scores[row.id] or 0.0))

    def selection(self, track: Track) -> Selection:
        """What selected the weights on a track, and its tokenizer of BLEU, by its newest run."""
        runs = [run for row in self.rows for run in row.cells[track].runs.values()]
        newest = max(runs, key=lambda run: run.started, default=None)
        return Selection.of_tags(newest.tags if newest else {})

    def comparison(self, track: Track, row: str, against: str) -> Comparison | None:
        """The paired test of a row against another row of this suite; None if it was not tested."""
        key = track.label, row, against
        return next((found for found in self.comparisons if (found.track, found.row, found.against) == key), None)

    def link(self, run_id: str) -> str:
        """Address of a run in the MLflow UI; empty if the UI is unknown."""
        return f"{self.ui_url}/#/experiments/{self.experiment}/runs/{run_id}" if self.ui_url else ""


@functools.cache
def published_table() -> tuple[Published, ...]:
    """Table 2 of Vaswani et al. 2017 as printed, including Deep-Att + PosUnk Ensemble, which the source slides omit."""
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
