"""Results of the sweeps of a suite's rows, from the MLflow runs of their studies (see bench/sweep/run_sweep.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.measures.selection import Selection
from bench.measures.tuning_curve import Expected, curve_of_trials
from bench.tracking.reading import Reader, TrackedRun
from reports.gathering.context import SweepSummary, Track


def _studies(reader: Reader, track: Track, order: Sequence[str]) -> list[TrackedRun]:
    """The studies of the suite's rows on the corpus and preset of a track, the newest first."""
    return [
        study
        for study in reader.studies()
        if (study.tags.get("corpus"), study.tags.get("preset")) == (track.corpus, track.preset)
        and study.tags.get("row") in order
    ]


def _trials(reader: Reader, study: TrackedRun) -> pd.DataFrame:
    """The attempts of a study as a table; empty if it has stored none."""
    return pd.DataFrame(**reader.read_json(study, "trials.json"))


def expected_best_curves(
    reader: Reader, track: Track, order: Sequence[str], parent: TrackedRun | None, tuned: Mapping[str, Any]
) -> dict[str, list[Expected]]:
    """Row -> expected best validation score against the sentence pairs used for tuning.

    The curve is that of the study whose settings the suite uses. For other rows it is computed from the newest sweep on
    this track that measured the validation score (BLEU or chrF2). A study whose trials the loss selects has no curve,
    because a failed trial has no loss.
    """
    studies = _studies(reader, track, order)
    study_ids = {study.id for study in studies}
    stored = reader.read_json(parent, "best_so_far.json").get("expected", {}) if parent and tuned else {}
    found = {
        row: [Expected(**point) for point in points]
        for row, points in stored.items()
        if tuned.get(row, {}).get("study") in study_ids
    }
    for study in studies:
        selection = Selection.of_tags(study.tags)
        if (row := study.tags["row"]) in found or selection.score == "loss":
            continue
        if curve := curve_of_trials(_trials(reader, study), selection.metric):
            found[row] = curve
    return found


def read_sweeps(
    reader: Reader, track: Track, order: Sequence[str], tuned: Mapping[str, Any]
) -> tuple[SweepSummary, ...]:
    """A summary of one study for each row: the one whose settings the suite uses, or else the newest."""
    by_row: dict[str, TrackedRun] = {}
    for study in _studies(reader, track, order):
        row = study.tags["row"]
        if study.id == tuned.get(row, {}).get("study") or row not in by_row:
            by_row[row] = study
    return tuple(_sweep_summary(reader, by_row[row]) for row in order if row in by_row)


def _sweep_summary(reader: Reader, study: TrackedRun) -> SweepSummary:
    """Best settings, importance and Pareto front of a study."""
    trials, goals = _trials(reader, study), tuple(filter(None, study.tags.get("goals", "").split(", ")))
    best = {key.removeprefix("best."): value for key, value in study.tags.items() if key.startswith("best.")}
    settings = {key: value for key, value in best.items() if "." in key}  # not best.run and best.job_hash
    several = len(goals) > 1 and {"best", "settings", *goals} <= set(trials.columns)
    front = [trial for trial in trials.to_dict("records") if trial["best"]] if several else []
    points = [(tuple(float(trial[goal]) for goal in goals), json.loads(trial["settings"])) for trial in front]
    return SweepSummary(study.tags["row"], goals, settings, reader.read_json(study, "importance.json"), tuple(points))
