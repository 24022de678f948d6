"""Makes the rows of a report from the runs that were read: one cell per track, one number per metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from bench.measures import metric_registry, quality
from bench.measures.measure import Measure
from bench.measures.quality import Statistics
from bench.tracking.private_paths import public_text
from bench.tracking.reading import TrackedRun
from bench.tracking.speeds import TOGETHER
from reports.gathering.context import Cell, Number, Row, Track, published_table
from reports.gathering.translations import Translations

STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted", "RUNNING": "unfinished"}


@dataclass(frozen=True, eq=False)
class RunContents:
    """The stored results of the newest finished runs, by run id."""

    measures: Mapping[str, list[Measure]]
    curves: Mapping[str, pd.DataFrame]
    tables: Mapping[tuple[str, str], pd.DataFrame]
    """(run, test set) -> source, reference, hypothesis."""

    statistics: Mapping[tuple[str, str], Mapping[str, Statistics]]
    """(run, test set) -> metric -> the sentence statistics of its score."""


def make_row(
    identifier: str,
    runs: Sequence[TrackedRun],
    about: Mapping[str, str],
    tracks: Sequence[Track],
    contents: RunContents,
    texts: dict[tuple[Track, str], Translations],
) -> Row:
    """A row with its results on every track. `about` describes it if it has no run."""
    of_row = [run for run in runs if run.tags.get("row", "") == identifier]
    tags = of_row[0].tags if of_row else about
    name, year = tags.get("name") or identifier, tags.get("year", "")

    def cell(track: Track) -> Cell:
        return _cell(identifier, track, [run for run in of_row if track_key(run) == track.key], contents, texts)

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
    contents: RunContents,
    texts: dict[tuple[Track, str], Translations],
) -> Cell:
    """The results of a row on a track. The interval of a score with several seeds covers seeds and sentences."""
    finished = {seed_of(run): run for run in newest_finished(runs)}
    newest = {seed_of(run): run for run in reversed(runs)}  # sorted from old to new, so a newer run replaces an older
    failures = [
        (seed, STATES.get(run.status, run.status.lower()), public_text(run.tags.get("reason", "")))
        for seed, run in sorted(newest.items())
        if seed not in finished
    ]
    by_name: dict[str, dict[int, Measure]] = {}
    for seed, run in finished.items():
        for measure in contents.measures[run.id]:
            by_name.setdefault(measure.metric, {})[seed] = measure
    numbers = {}
    for name, of_seeds in by_name.items():
        test_set, metric = split_name(name)
        number = _number(of_seeds)
        if len(of_seeds) > 1 and metric in quality.SCORES and (track, test_set) in texts:
            statistics = texts[track, test_set].statistics.get(metric, {}).get(row, {})
            if statistics.keys() == of_seeds.keys():
                over_seeds = quality.mean_with_interval(list(statistics.values()))
                provenance = _merged_provenance(
                    [over_seeds.provenance, *(seed.provenance for seed in of_seeds.values())],
                    without=quality.sentence_interval(),
                )
                number = Number(number.value, number.unit, over_seeds.low, over_seeds.high, provenance, number.seeds)
        numbers[test_set, metric] = number
    return Cell(
        track=track,
        runs=finished,
        state="finished" if finished else STATES.get(runs[0].status, "unfinished") if runs else "not run",
        failures=tuple(failures),
        numbers=numbers,
        curves={seed: contents.curves[run.id] for seed, run in finished.items()},
    )


def _number(of_seeds: dict[int, Measure]) -> Number:
    """The mean over seeds. Of several seeds it has no interval; `_cell` computes that of scores from the sentences.

    Its provenance joins those of the seeds. If a seed has no value, neither has the mean, and the provenance is that
    seed's reason.
    """
    # A time of all rows measured together is one measurement, which stands for every seed.
    together = {seed: one for seed, one in of_seeds.items() if one.provenance.startswith(TOGETHER)}
    of_seeds = dict([next(iter(together.items()))]) if together else of_seeds
    first = next(iter(of_seeds.values()))
    values = {seed: measure.value for seed, measure in of_seeds.items()}
    if len(values) == 1:
        return Number(first.value, first.unit, first.low, first.high, first.provenance, values, first.noisy)
    if absent := [measure for measure in of_seeds.values() if measure.value is None]:
        return Number(None, first.unit, None, None, absent[0].provenance, values, absent[0].noisy)
    provenance = _merged_provenance(
        [*(measure.provenance for measure in of_seeds.values()), f"mean of {len(values)} seeds"]
    )
    mean = fmean(number for number in values.values() if number is not None)
    noisy = any(measure.noisy for measure in of_seeds.values())
    return Number(mean, first.unit, None, None, provenance, values, noisy)


def _merged_provenance(provenances: Sequence[str], without: str = "") -> str:
    """Joins every distinct piece of several provenances, without the piece `without`."""
    pieces = (piece for provenance in provenances for piece in provenance.split("; ") if piece and piece != without)
    return "; ".join(dict.fromkeys(pieces))


def split_name(name: str) -> tuple[str, str]:
    """A stored name as (test set, metric): test/bleu is ("test", "bleu"); test/bleu/length/1-5 is ("", whole name)."""
    test_set, _, metric = name.rpartition("/")
    return (
        (test_set, metric) if test_set and "/" not in test_set and metric_registry.metric(metric).score else ("", name)
    )


def track_key(run: TrackedRun) -> tuple[str, str, str]:
    """Corpus, preset and direction of a run, which identify its track."""
    return run.tags.get("corpus", ""), run.tags.get("preset", ""), run.tags.get("direction", "")


def seed_of(run: TrackedRun) -> int:
    return int(run.tags.get("seed") or 0)


def newest_finished(runs: Sequence[TrackedRun]) -> list[TrackedRun]:
    """The newest finished run of each row, track and seed, sorted by seed. `runs` are sorted from new to old."""
    newest: dict[tuple[object, ...], TrackedRun] = {}
    for run in runs:
        if run.status == "FINISHED":
            newest.setdefault((run.tags.get("row", ""), *track_key(run), seed_of(run)), run)
    return sorted(newest.values(), key=seed_of)
