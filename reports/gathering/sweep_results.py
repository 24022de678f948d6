"""What sweeps found for the rows of a suite, as their own runs in MLflow tell it (bench/tuning.py writes them)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.measures.tuning_curve import Expected, expected_best
from bench.tracking.reading import Reader, TrackedRun
from reports.gathering.context import Swept, Track


def _studies(reader: Reader, track: Track, order: Sequence[str]) -> list[TrackedRun]:
    """Of rows of the suite, on the track's text at its preset; the newest first."""
    return [
        study
        for study in reader.studies()
        if (study.tags.get("corpus"), study.tags.get("preset")) == (track.corpus, track.preset)
        and study.tags.get("row") in order
    ]


def _trials(reader: Reader, study: TrackedRun) -> pd.DataFrame:
    with reader.artifact(study, "trials.json") as path:
        return pd.DataFrame(**json.loads(path.read_text())) if path else pd.DataFrame()


def expected(
    reader: Reader, track: Track, order: Sequence[str], own: TrackedRun | None, tuned: Mapping[str, Any]
) -> dict[str, list[Expected]]:
    """Row -> expected best validation BLEU against pairs spent.

    Of the study that the suite took its settings from; of other rows, of the newest sweep on this track that measured
    it. A trial that failed has found nothing: its score is 0.
    """
    studies = _studies(reader, track, order)
    here = {study.id for study in studies}
    kept = reader.read_json(own, "best_so_far.json").get("expected", {}) if own and tuned else {}
    found = {
        row: [Expected(**point) for point in points]
        for row, points in kept.items()
        if tuned.get(row, {}).get("study") in here
    }
    for study in studies:
        if (row := study.tags["row"]) in found:
            continue
        trials = _trials(reader, study)
        if {"validation_bleu", "pairs"} <= set(trials.columns):
            if "trial" in trials:  # an attempt that was lost is part of the job that went on
                trials = pd.DataFrame(trials.groupby("trial", sort=False)[["validation_bleu", "pairs"]].max())
            bleu, pairs = (trials[name].astype(float) for name in ("validation_bleu", "pairs"))
            scores, pairs = (column.fillna(0.0).tolist() for column in (bleu, pairs))
            if any(pairs) and len(bleu.dropna()):  # a sweep by another goal may have asked for no BLEU
                found[row] = expected_best(scores, pairs)
    return found


def read(reader: Reader, track: Track, order: Sequence[str], tuned: Mapping[str, Any]) -> tuple[Swept, ...]:
    """Of each row that was swept the study that the suite took its settings from, or else the newest."""
    chosen: dict[str, TrackedRun] = {}
    for study in _studies(reader, track, order):
        row = study.tags["row"]
        if study.id == tuned.get(row, {}).get("study") or row not in chosen:
            chosen[row] = study
    return tuple(_swept(reader, chosen[row]) for row in order if row in chosen)


def _swept(reader: Reader, study: TrackedRun) -> Swept:
    trials, goals = _trials(reader, study), tuple(filter(None, study.tags.get("goals", "").split(", ")))
    best = {key.removeprefix("best."): value for key, value in study.tags.items() if key.startswith("best.")}
    settings = {key: value for key, value in best.items() if "." in key}  # not best.run and best.job_hash
    several = len(goals) > 1 and {"best", "settings", *goals} <= set(trials.columns)
    front = [trial for trial in trials.to_dict("records") if trial["best"]] if several else []
    points = [(tuple(float(trial[goal]) for goal in goals), json.loads(trial["settings"])) for trial in front]
    return Swept(study.tags["row"], goals, settings, reader.read_json(study, "importance.json"), tuple(points))
