"""From tracked runs to a Context: the only part of a report that reads runs."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from bench.measures import quality, registry
from bench.measures.measure import Measure
from bench.measures.quality import Statistics
from bench.tracking.reading import Reader, TrackedRun
from reports.gathering import sweep_results
from reports.gathering.comparison import Translations, changes, compare
from reports.gathering.context import Cell, Context, Number, Row, Track, published_table
from reports.text.catalogue import Catalogue, load_catalogue

STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted", "RUNNING": "unfinished"}
READERS = 16
"""Files that are read at once: a server answers many questions in the time of one."""

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Read:
    """What the runs that count hold, by the id of the run."""

    measures: Mapping[str, list[Measure]]
    curves: Mapping[str, pd.DataFrame]
    tables: Mapping[tuple[str, str], pd.DataFrame]
    """(run, test set) -> source, reference, hypothesis."""

    statistics: Mapping[tuple[str, str], Mapping[str, Statistics]]
    """(run, test set) -> metric -> what its scores are made of."""


def gather(
    reader: Reader, suite: str | None, ui_url: str | None = None, language: str = "en", compare_with: str | None = None
) -> Context:
    """Reads a suite, the newest if none is named, and one that it is compared with.

    Args:
        reader: Where the runs are.
        suite: Its name.
        ui_url: Address of the MLflow UI; by default the reader's own address where it is a server.
        language: Of the report.
        compare_with: Another suite.

    Raises:
        ValueError: there is no such suite or language, or the suite has no runs, or the address is none.
    """
    if ui_url and not ui_url.startswith(("http://", "https://")):
        raise ValueError(f"--ui_url: {ui_url!r} does not begin with http:// or https://")
    if suite is None:
        suites = reader.suites()
        if not suites:
            raise ValueError(f"there are no runs in {reader.uri}; make some with bench suite experiments/demo.yaml")
        suite = suites[0]
    address = public(ui_url or reader.uri).rstrip("/")
    now = _suite(reader, suite, address, load_catalogue(language))
    if compare_with is None:
        return now
    before = _suite(reader, compare_with, address, load_catalogue(language))
    return replace(now, before=before, changes=_changes(now, before))


def public(address: str) -> str:
    """The address of a server without a name and password in it; nothing if it is a place on this machine."""
    if not address.startswith(("http://", "https://")):
        return ""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _suite(reader: Reader, suite: str, ui_url: str, language: Catalogue) -> Context:
    runs = reader.runs(suite)
    if not runs:
        raise ValueError(f"the suite {suite!r} in {reader.uri} has no runs yet")
    own = reader.parent_run(suite)
    tags = own.tags if own else {}
    chosen = _chosen(runs)
    measures = _each(chosen, reader.measures)
    tracks = _tracks(runs, measures)
    wanted = [
        (run, test_set) for run in chosen for track in tracks if track.key == _key(run) for test_set in track.test_sets
    ]
    read = Read(
        measures,
        _each(chosen, reader.curves),
        _many(wanted, lambda run, test_set: reader.hypotheses(run, test_set)),
        _many(wanted, lambda run, test_set: {kept.metric: kept for kept in reader.statistics(run, test_set)}),
    )
    texts = {
        (track, test_set): _translations(read, track, test_set, chosen)
        for track in tracks
        for test_set in track.test_sets
    }
    translations = {
        track: first for track in tracks if track.test_set and (first := texts[track, track.test_set]).references
    }
    order = _order(runs, tags)
    tuned, about = (json.loads(tags.get(name) or "{}") for name in ("tuning", "about"))
    first = {track: [run for run in chosen if _key(run) == track.key] for track in tracks}
    return Context(
        suite=suite,
        question=tags.get("question", ""),
        baseline=(baseline := tags.get("baseline", "") if tags.get("baseline") in order else order[-1]),
        tracks=tracks,
        rows=tuple(_row(identifier, runs, about.get(identifier, {}), tracks, read, texts) for identifier in order),
        published=published_table(),
        translations=translations,
        comparisons=tuple(
            comparison
            for track, texts in translations.items()
            for comparison in compare(track.label, texts, baseline, [row for row in order if row in texts.hypotheses])
        ),
        ui_url=ui_url,
        experiment=reader.experiment_id(suite),
        command=tags.get("command", ""),
        written=max(run.started for run in runs).strftime("%Y-%m-%d"),
        catalogue=language,
        passports={
            track: found for track, of in first.items() if (found := _first(of, lambda run: _passport(reader, run)))
        },
        attention={track: _attention(reader, of) for track, of in first.items()},
        tuning={track: best for track in tracks if (best := sweep_results.expected(reader, track, order, own, tuned))},
        tuned=tuned,
        sweeps={track: found for track in tracks if (found := sweep_results.read(reader, track, order, tuned))},
    )


def _each(runs: Sequence[TrackedRun], read: Callable[[TrackedRun], Item]) -> dict[str, Item]:
    """Something of every run, many at once."""
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip((run.id for run in runs), pool.map(read, runs), strict=True))


def _many(
    wanted: Sequence[tuple[TrackedRun, str]], read: Callable[[TrackedRun, str], Item]
) -> dict[tuple[str, str], Item]:
    """Something of every run and test set, many at once."""
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda pair: read(*pair), wanted)
        return {(run.id, test_set): item for (run, test_set), item in zip(wanted, found, strict=True)}


def _first(runs: Sequence[TrackedRun], read: Callable[[TrackedRun], Mapping[str, Any]]) -> Mapping[str, Any]:
    """What the first run that has it says: the runs of a track share their corpus."""
    return next((found for run in runs[:3] if (found := read(run))), {})


def _passport(reader: Reader, run: TrackedRun) -> Mapping[str, Any]:
    return reader.read_json(run, "corpus_stats.json")


def _attention(reader: Reader, runs: Sequence[TrackedRun]) -> dict[str, Mapping[str, Any]]:
    """Row -> where its first seed looks: tokens of source and target, and the weights of the last layer.

    Every run keeps one sentence, and `bench attention` any other. Of several, the one that most rows have.
    """
    rows: dict[str, TrackedRun] = {}
    for run in runs:
        rows.setdefault(run.tags.get("row", ""), run)
    kept = _each(
        list(rows.values()), lambda run: [n for n in reader.list_files(run, "attention") if n.endswith(".json")]
    )
    count = Counter(name for names in kept.values() for name in names)
    found = {}
    for row, run in rows.items():
        if names := sorted(kept[run.id], key=lambda name: (-count[name], name)):
            read = reader.read_json(run, f"attention/{names[0]}").get("attention", [])
            for one in (one for one in read if one["kind"] == "cross"):
                weights_QK = np.mean(one["maps"][-1], axis=0)
                found[row] = {"source": one["columns"], "target": one["rows"], "weights": weights_QK.tolist()}
    return found


def _changes(now: Context, before: Context) -> tuple[Any, ...]:
    """The paired test of each row against itself in the other suite, on tracks that both have."""
    found = []
    for track, texts in now.translations.items():
        earlier = track.among(before.tracks)
        if earlier in before.translations:
            found += changes(track.label, texts, before.translations[earlier])
    return tuple(found)


def _split(name: str) -> tuple[str, str]:
    """A tracked name as (test set, metric): test/bleu is a score of test, test/bleu/length/1-5 stands for itself."""
    test_set, _, metric = name.rpartition("/")
    return (test_set, metric) if test_set and "/" not in test_set and registry.metric(metric).score else ("", name)


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


def _tracks(runs: Sequence[TrackedRun], measures: Mapping[str, list[Measure]]) -> tuple[Track, ...]:
    """The columns, the oldest first, with the shortest label that tells them apart."""
    test_sets: dict[tuple[str, str, str], list[str]] = {}
    for run in reversed(runs):
        names = test_sets.setdefault(_key(run), [])
        for measure in measures.get(run.id, []):
            test_set, _ = _split(measure.metric)
            if test_set and test_set not in names:
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


def _translations(read: Read, track: Track, test_set: str, chosen: Sequence[TrackedRun]) -> Translations:
    """What the rows made of a test set. A row that was given other sentences than the first is left out."""
    found = Translations(track.direction, test_set, [], [], {}, {metric: {} for metric in quality.METRICS})
    for run in chosen:
        if _key(run) != track.key:
            continue
        table = read.tables[run.id, test_set]
        if table.empty:
            continue
        if not found.references:
            found.sources.extend(table["source"])
            found.references.extend(table["reference"])
        if list(table["reference"]) != found.references:
            continue
        row, seed, lines = run.tags.get("row", ""), _seed(run), list(table["hypothesis"])
        found.hypotheses.setdefault(row, {})[seed] = lines
        kept = dict(read.statistics[run.id, test_set])
        if "bleu" not in kept:  # an older run has kept none
            kept["bleu"] = _bleu(tuple(lines), tuple(found.references))
        for metric, of in kept.items():
            found.statistics[metric].setdefault(row, {})[seed] = of
    return found


@functools.lru_cache(maxsize=4096)
def _bleu(hypotheses: tuple[str, ...], references: tuple[str, ...]) -> Statistics:
    return quality.statistics(hypotheses, references)


def _row(
    identifier: str,
    runs: Sequence[TrackedRun],
    about: Mapping[str, str],
    tracks: Sequence[Track],
    read: Read,
    texts: dict[tuple[Track, str], Translations],
) -> Row:
    own = [run for run in runs if run.tags.get("row", "") == identifier]
    tags = own[0].tags if own else about
    name, year = tags.get("name") or identifier, tags.get("year", "")

    def cell(track: Track) -> Cell:
        return _cell(identifier, track, [run for run in own if _key(run) == track.key], read, texts)

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
    read: Read,
    texts: dict[tuple[Track, str], Translations],
) -> Cell:
    finished = {_seed(run): run for run in _chosen(runs)}
    begun = {_seed(run): run for run in reversed(runs)}  # the newest of each seed stays
    failures = [
        (seed, STATES.get(run.status, run.status.lower()), run.tags.get("reason", ""))
        for seed, run in sorted(begun.items())
        if seed not in finished
    ]
    by_name: dict[str, dict[int, Measure]] = {}
    for seed, run in finished.items():
        for measure in read.measures[run.id]:
            by_name.setdefault(measure.metric, {})[seed] = measure
    numbers = {}
    for name, of_seeds in by_name.items():
        test_set, metric = _split(name)
        number = _number(of_seeds)
        if len(of_seeds) > 1 and metric in quality.METRICS and (track, test_set) in texts:
            kept = texts[track, test_set].statistics[metric].get(row, {})
            if kept.keys() == of_seeds.keys():
                over = quality.measure(list(kept.values()))
                provenance = _together(
                    [over.provenance, *(seed.provenance for seed in of_seeds.values())], but=quality.sentence_interval()
                )
                number = Number(number.value, number.unit, over.low, over.high, provenance, number.seeds)
        numbers[test_set, metric] = number
    return Cell(
        track=track,
        runs=finished,
        state="finished" if finished else STATES.get(runs[0].status, "unfinished") if runs else "not run",
        failures=tuple(failures),
        numbers=numbers,
        curves={seed: read.curves[run.id] for seed, run in finished.items()},
    )


def _number(of_seeds: dict[int, Measure]) -> Number:
    """The mean over seeds, without an interval if there are several; scores get theirs from the sentences.

    Its recipe has every piece of the seeds' recipes once; or if a seed has no value, that seed's reason.
    """
    first = next(iter(of_seeds.values()))
    values = {seed: measure.value for seed, measure in of_seeds.items()}
    if len(of_seeds) == 1:
        return Number(first.value, first.unit, first.low, first.high, first.provenance, values, first.noisy)
    if absent := [measure for measure in of_seeds.values() if measure.value is None]:
        return Number(None, first.unit, None, None, absent[0].provenance, values, absent[0].noisy)
    provenance = _together([*(measure.provenance for measure in of_seeds.values()), f"mean of {len(values)} seeds"])
    mean = fmean(number for number in values.values() if number is not None)
    noisy = any(measure.noisy for measure in of_seeds.values())
    return Number(mean, first.unit, None, None, provenance, values, noisy)


def _together(recipes: Sequence[str], but: str = "") -> str:
    """Joins every distinct piece of several provenances, without the piece `but`."""
    pieces = (piece for provenance in recipes for piece in provenance.split("; ") if piece and piece != but)
    return "; ".join(dict.fromkeys(pieces))
