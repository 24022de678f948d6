"""Reads the tracked runs of a suite into a Context; rows.py makes its rows, sweep_results.py reads its studies."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from bench.measures import quality
from bench.measures.comparison import changes, compare
from bench.measures.measure import Measure
from bench.measures.selection import Selection
from bench.tracking.private_paths import public_command
from bench.tracking.reading import JOB_DIGITS, JOBS_TAG, PLAN_TAG, Reader, TrackedRun, public_address
from reports.gathering import sweep_results
from reports.gathering.context import Context, Track, published_table
from reports.gathering.rows import RunContents, make_row, newest_finished, seed_of, split_name, track_key
from reports.gathering.translations import Translations
from reports.text.catalogue import Catalogue, load_catalogue

PARALLEL_READS = 16
"""Files that are read at the same time: a tracking server answers many requests in the time of one."""

Item = TypeVar("Item")


def gather(
    reader: Reader,
    suite: str | None,
    ui_url: str | None = None,
    language: str = "en",
    compare_with: str | None = None,
    baseline: str | None = None,
) -> Context:
    """Reads a suite, and the suite that it is compared with, if any.

    Args:
        reader: Where the runs are.
        suite: Its name; None for the newest.
        ui_url: Address of the MLflow UI; by default the reader's own address where it is a server.
        language: Language of the report.
        compare_with: Name of another suite.
        baseline: Id of the row that the others are compared with; None for that of the suite.

    Raises:
        ValueError: the suite, the row or the language does not exist, the suite has no runs, or the address is not
            http(s).
    """
    if ui_url and not ui_url.startswith(("http://", "https://")):
        raise ValueError(
            f"--ui_url: {ui_url!r} does not begin with http:// or https://; give the address of an MLflow UI"
        )
    if suite is None:
        suites = reader.suites()
        if not suites:
            raise ValueError(f"there are no runs in {reader.uri}; make some with bench suite experiments/demo.yaml")
        suite = suites[0]
    address = public_address(ui_url or reader.uri).rstrip("/")
    now = _suite(reader, suite, address, load_catalogue(language), baseline)
    if compare_with is None:
        return now
    before = _suite(reader, compare_with, address, load_catalogue(language))
    return replace(now, before=before, changes=_changes(now, before))


def _suite(reader: Reader, suite: str, ui_url: str, catalogue: Catalogue, baseline: str | None = None) -> Context:
    """The context of one suite, with its own baseline or the given row as baseline.

    Raises:
        ValueError: the suite or the row does not exist, or the suite has no runs.
    """
    runs = reader.runs(suite)
    if not runs:
        raise ValueError(f"the suite {suite!r} in {reader.uri} has no runs yet; start it with bench suite FILE")
    parent = reader.parent_run(suite)
    tags = parent.tags if parent else {}
    runs = _of_last_command_first(runs, tags)
    finished = newest_finished(runs)
    measures = read_each(finished, reader.measures)
    tracks = _tracks(runs, measures)
    with_test_set = [
        (run, test_set)
        for run in finished
        for track in tracks
        if track.key == track_key(run)
        for test_set in track.test_sets
    ]
    contents = RunContents(
        measures,
        read_each(finished, reader.curves),
        _read_each_test_set(with_test_set, lambda run, test_set: reader.hypotheses(run, test_set)),
        _read_each_test_set(
            with_test_set, lambda run, test_set: {one.metric: one for one in reader.statistics(run, test_set)}
        ),
    )
    texts = {
        (track, test_set): _translations(contents, track, test_set, finished)
        for track in tracks
        for test_set in track.test_sets
    }
    translations = {
        track: first
        for track in tracks
        if track.test_set and ((first := texts[track, track.test_set]).references or first.statistics["bleu"])
    }
    order = _order(runs, tags)
    if baseline is not None and baseline not in order:
        raise ValueError(f"--baseline: the suite {suite!r} has no row {baseline!r}; it has {', '.join(order)}")
    baseline = baseline or (tags.get("baseline", "") if tags.get("baseline") in order else order[-1])
    tuned, about = (json.loads(tags.get(name) or "{}") for name in ("tuning", "about"))
    runs_of = {track: [run for run in finished if track_key(run) == track.key] for track in tracks}
    return Context(
        suite=suite,
        question=tags.get("question", ""),
        baseline=baseline,
        tracks=tracks,
        rows=tuple(
            make_row(identifier, runs, about.get(identifier, {}), tracks, contents, texts) for identifier in order
        ),
        published=published_table(),
        translations=translations,
        comparisons=tuple(
            comparison
            for track, texts in translations.items()
            for comparison in compare(
                track.label, {row: texts.statistics["bleu"].get(row, {}) for row in order}, baseline
            )
        ),
        ui_url=ui_url,
        experiment=reader.experiment_id(suite),
        command=public_command(tags.get("command", "")),
        planned=_planned(tags),
        timed_on=speeds.where if (speeds := reader.speeds_of(suite)) else "",
        timed_alone=tuple(
            row
            for row in order
            if speeds and not any(speeds.has(run.tags) for run in finished if run.tags["row"] == row)
        ),
        written=max(run.started for run in runs).strftime("%Y-%m-%d"),
        catalogue=catalogue,
        corpus_stats={
            track: stats for track, of_track in runs_of.items() if (stats := _corpus_stats(reader, of_track))
        },
        attention={track: _attention(reader, of_track) for track, of_track in runs_of.items()},
        tuning={
            track: best
            for track in tracks
            if (best := sweep_results.expected_best_curves(reader, track, order, parent, tuned))
        },
        tuned=tuned,
        sweeps={track: found for track in tracks if (found := sweep_results.read_sweeps(reader, track, order, tuned))},
    )


def _of_last_command_first(runs: Sequence[TrackedRun], tags: Mapping[str, str]) -> list[TrackedRun]:
    """The runs, from new to old, but before all others those of the jobs that the suite's last command named.

    A suite may have been run with other settings since these jobs finished, and its report shows the last command.

    Args:
        tags: Of the run of the suite.
    """
    jobs = set(tags.get(JOBS_TAG, "").split())
    return sorted(runs, key=lambda run: bool(jobs) and run.tags.get("job_hash", "")[:JOB_DIGITS] not in jobs)


def _planned(tags: Mapping[str, str]) -> tuple[float, float] | None:
    """Predicted and real seconds of a suite, from the tags of its run; None if one is missing or not positive."""
    try:
        found = json.loads(tags.get(PLAN_TAG) or "{}")
        planned, took = float(found.get("planned_s") or 0), float(found.get("took_s") or 0)
    except (ValueError, TypeError, AttributeError):  # an export of somebody else
        return None
    return (planned, took) if 0 < planned < math.inf and 0 < took < math.inf else None


def read_each(runs: Sequence[TrackedRun], read: Callable[[TrackedRun], Item]) -> dict[str, Item]:
    """Run id -> what `read` returns for the run. Many runs are read at the same time."""
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return dict(zip((run.id for run in runs), pool.map(read, runs), strict=True))


def _read_each_test_set(
    pairs: Sequence[tuple[TrackedRun, str]], read: Callable[[TrackedRun, str], Item]
) -> dict[tuple[str, str], Item]:
    """(run id, test set) -> what `read` returns for them. Many are read at the same time."""
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        found = pool.map(lambda pair: read(*pair), pairs)
        return {(run.id, test_set): item for (run, test_set), item in zip(pairs, found, strict=True)}


def _corpus_stats(reader: Reader, runs: Sequence[TrackedRun]) -> Mapping[str, Any]:
    """The corpus statistics of a track, from the first run that has stored them: all runs share the corpus."""
    return next((stats for run in runs[:3] if (stats := reader.read_json(run, "corpus_stats.json"))), {})


def _attention(reader: Reader, runs: Sequence[TrackedRun]) -> dict[str, Mapping[str, Any]]:
    """Row -> attention of its first seed in one sentence: source, target, weights of the last layer (mean of heads).

    Every run stores one sentence, and `bench attention` adds others. Of several, the one that most rows have is read.
    """
    rows: dict[str, TrackedRun] = {}
    for run in runs:
        rows.setdefault(run.tags.get("row", ""), run)
    files = read_each(
        list(rows.values()), lambda run: [n for n in reader.list_files(run, "attention") if n.endswith(".json")]
    )
    count = Counter(name for names in files.values() for name in names)
    found = {}
    for row, run in rows.items():
        if names := sorted(files[run.id], key=lambda name: (-count[name], name)):
            read = reader.read_json(run, f"attention/{names[0]}").get("attention", [])
            for one in (one for one in read if one["kind"] == "cross"):
                weights_QK = np.mean(one["maps"][-1], axis=0)
                found[row] = {"source": one["columns"], "target": one["rows"], "weights": weights_QK.tolist()}
    return found


def _changes(now: Context, before: Context) -> tuple[Any, ...]:
    """The paired test of each row against itself in the other suite, on the tracks that both suites have."""
    found = []
    for track, texts in now.translations.items():
        earlier = track.among(before.tracks)
        if earlier in before.translations:
            statistics = (of.statistics["bleu"] for of in (texts, before.translations[earlier]))
            found += changes(track.label, *statistics)
    return tuple(found)


def _order(runs: Sequence[TrackedRun], tags: dict[str, str]) -> list[str]:
    """Ids of the rows in the order of the suite. Rows that the suite does not name follow by year."""
    named = [row for row in tags.get("rows", "").split(",") if row]
    others = {run.tags.get("row", ""): run.tags.get("year", "") for run in runs}
    return named + sorted((row for row in others if row not in named), key=lambda row: (others[row], row))


def _tracks(runs: Sequence[TrackedRun], measures: Mapping[str, list[Measure]]) -> tuple[Track, ...]:
    """The tracks, the oldest first, each with the shortest label that distinguishes it."""
    test_sets: dict[tuple[str, str, str], list[str]] = {}
    for run in reversed(runs):
        names = test_sets.setdefault(track_key(run), [])
        for measure in measures.get(run.id, []):
            test_set, _ = split_name(measure.metric)
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


def _translations(contents: RunContents, track: Track, test_set: str, finished: Sequence[TrackedRun]) -> Translations:
    """The translations of a test set by all rows. Runs whose references differ from those of the first are left out.

    So is BLEU with another tokenizer than that of the newest run: such a run of an earlier version cannot be compared.
    Runs that were exported without sentences have only the statistics of sentences, with a hash of the references.
    """
    found = Translations(track.direction, test_set, [], [], {}, {metric: {} for metric in quality.SCORE_METRICS})
    runs = [run for run in finished if track_key(run) == track.key]
    newest = max(runs, key=lambda run: run.started, default=None)
    tokenizer = Selection.of_tags(newest.tags if newest else {}).tokenizer
    reference_hash = ""
    for run in runs:
        table, statistics = contents.tables[run.id, test_set], dict(contents.statistics[run.id, test_set])
        row, seed, lines = run.tags.get("row", ""), seed_of(run), list(table["hypothesis"])
        if lines and not found.references:
            found.sources.extend(table["source"])
            found.references.extend(table["reference"])
        hashes = {one.reference_hash for one in statistics.values()}
        reference_hash = reference_hash or next(iter(hashes), "")
        if list(table["reference"]) != found.references if lines else hashes != {reference_hash}:
            continue
        if lines:
            found.hypotheses.setdefault(row, {})[seed] = lines
        if Selection.of_tags(run.tags).tokenizer != tokenizer:
            statistics.pop("bleu", None)
        for metric, of_sentences in statistics.items():
            found.statistics.setdefault(metric, {}).setdefault(row, {})[seed] = of_sentences
    return found
