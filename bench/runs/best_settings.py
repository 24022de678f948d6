"""Where the settings of a suite's rows come from, and the tuning budget that they cost. Only reads studies.

The recipe of a row comes from the equal search of the preset (bench/experiment/tuned.py), unless a setting was changed.

A suite names a sweep for a row (`sweeps: {gnmt: sweep}`). The row then takes the best settings of the sweep's newest
study at the suite's preset on one of the suite's corpora; they override its own. The seeds of the suite must differ
from the seed of the study: the best of many runs has a lucky seed, so its own score would be too high.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from bench.experiment.spec import Experiment
from bench.experiment.tuned import pairs_spent, read_tuned, recipe_of
from bench.experiment.yaml_layers import read_yaml
from bench.measures.selection import Selection
from bench.measures.tuning_curve import curve_of_trials, debts
from bench.tracking.reading import TrackedRun
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store


@dataclass(frozen=True)
class BestSettings:
    """The best settings that a finished study found for a row.

    Attributes:
        study: The MLflow run of the study.
        studies: That of each study of the sweep, row, preset and corpora; a sweep that was repeated with other ranges
            has several, and all of them were tuning.
        layer: The settings, as a layer of YAML.
    """

    sweep: str
    study: TrackedRun
    studies: list[TrackedRun]
    layer: dict[str, Any]

    @property
    def tuning_budget(self) -> float | None:
        """Trials x training budget, in sentence pairs; None if the training budget has another unit."""
        pairs = [study.tags["pairs_granted"] for study in self.studies]
        return sum(map(float, pairs)) if all(pairs) else None

    @property
    def pairs_spent(self) -> float:
        """Sentence pairs that the trials have seen."""
        return sum(float(study.tags.get("pairs_spent") or 0) for study in self.studies)


def find(sweeps: Mapping[str, str], preset: str, corpora: Collection[str], store: Store) -> dict[str, BestSettings]:
    """The best settings of each row for which a sweep is named.

    Args:
        sweeps: Row -> name of its sweep.

    Raises:
        ValueError: a sweep has no study of the row at this preset on any of these corpora, the study is not finished,
            or none of its trials is complete and within the limits.
    """
    return {row: _find_for_row(row, sweep, preset, corpora, store) for row, sweep in sweeps.items()}


def _find_for_row(row: str, sweep: str, preset: str, corpora: Collection[str], store: Store) -> BestSettings:
    key = f"sweeps: {row}: {sweep}"
    command = f"bench sweep experiments/{sweep}.yaml --row {row} --preset {preset}"
    studies = store.studies(sweep)
    of_row = [run for run in studies if (run.tags["row"], run.tags["preset"]) == (row, preset)]
    of_row = [run for run in of_row if run.tags["corpus"] in corpora]
    if not of_row:
        found = ", ".join(f"{run.tags['row']} ({run.tags['preset']}, {run.tags['corpus']})" for run in studies)
        raise ValueError(
            f"{key}: this sweep has no study of the row at preset {preset} on {' or '.join(corpora)}; its studies: "
            f"{found or 'none yet'}; run first: {command}"
        )
    study = of_row[0]
    if study.tags.get("remaining") != "0":
        remaining = study.tags.get("remaining", "all")
        raise ValueError(f"{key}: this study is not finished, {remaining} trials remain; finish it: {command}")
    with TemporaryDirectory() as folder:
        path = store.download(study, "best.yaml", Path(folder))
        if path is None:
            raise ValueError(
                f"{key}: no trial of this study is complete and within the limits; change the limits or the search "
                f"space, then run: {command}"
            )
        return BestSettings(sweep, study, of_row, read_yaml(path))


def check_seeds(best: Mapping[str, BestSettings], experiments: Sequence[Experiment]) -> None:
    """Raises ValueError if a row is to be trained with the seed by which its settings were chosen."""
    for experiment in experiments:
        settings, found = best.get(experiment.row), recipe_of(experiment)
        searches = {settings.sweep: settings.study.tags["seed"]} if settings else {}
        searches |= {found[0].search: str(found[0].seed)} if found else {}
        for name, seed in searches.items():
            if seed == str(experiment.seed):
                raise ValueError(
                    f"{experiment.row}: seed {experiment.seed} is the seed of sweep {name}; final numbers need other "
                    "seeds, because the settings were chosen by this one; set others with --seeds"
                )


def tuning_costs(best: Mapping[str, BestSettings], experiments: Sequence[Experiment]) -> dict[str, dict[str, Any]]:
    """Row -> where its settings come from, and its tuning budget granted, spent, and debt, in sentence pairs.

    The keys are `sweep`, `study`, `granted`, `spent`, `debt` and `no_search`. A row that takes the best settings of a
    sweep has the budget of the sweep, and that of the equal search if the sweep began with its recipe. A row whose
    settings come from neither has an unknown budget, null, because somebody chose them. The debt is the budget beyond
    that of the row with the smallest known one; null if it is unknown or has another unit.

    Args:
        experiments: The jobs of the suite, without ensembles.
    """
    first = {experiment.row: experiment for experiment in reversed(experiments)}
    costs: dict[str, dict[str, Any]] = {}
    for row, experiment in first.items():
        settings, tuned = best.get(row), read_tuned(experiment.preset)
        equal = tuned.pairs_granted if tuned and row in tuned.rows else 0.0
        seen = pairs_spent(experiment.preset, row) if equal else 0.0
        if settings:
            budget = settings.tuning_budget
            granted = None if budget is None else budget + equal
            spent = settings.pairs_spent + seen
            costs[row] = {"sweep": settings.sweep, "study": settings.study.id, "granted": granted, "spent": spent}
        elif found := recipe_of(experiment):
            costs[row] = {"sweep": found[0].search, "study": "", "granted": equal, "spent": seen}
        else:
            costs[row] = {"sweep": "", "study": "", "granted": None, "spent": None}
        costs[row]["no_search"] = not costs[row]["sweep"]
    # Without rows of an equal search, a sweep's whole budget is more than what is known of the other rows: nothing.
    has_equal_search = any(each["sweep"] and not each["study"] for each in costs.values())
    unknown = None if has_equal_search else 0.0
    debt = debts({row: unknown if each["no_search"] else each["granted"] for row, each in costs.items()})
    return {row: {**each, "debt": None if each["no_search"] else debt[row]} for row, each in costs.items()}


def log_tuning_costs(
    best: Mapping[str, BestSettings], experiments: Sequence[Experiment], parent: str, store: Store
) -> None:
    """Writes the tuning budgets of the rows, and their expected best scores, to the run of a suite.

    The tag `tuning` holds what `tuning_costs` returns. An ensemble has the numbers of its single row. best_so_far.json
    holds the expected best validation score (BLEU or chrF2) as a function of the sentence pairs spent, with intervals
    over orders of the trials. A study whose trials the loss selects has no curve, because a failed trial has no loss.

    Args:
        experiments: The jobs of the suite.
        parent: Id of the run of the suite.
    """
    tuning = tuning_costs(best, [experiment for experiment in experiments if not experiment.members])
    debt = {row: each["debt"] for row, each in tuning.items()}
    tuning |= {each.row: tuning[each.members[0].row] for each in experiments if each.members and each.row not in tuning}
    curves = {}
    for row, settings in best.items():
        selection = Selection.of_tags(settings.study.tags)
        if selection.score == "loss":
            continue
        # Not the runs of the study: a trial may have taken a finished run of another study.
        attempts = pd.DataFrame(**store.read_json(settings.study, "trials.json"))
        if curve := curve_of_trials(attempts, selection.metric):
            curves[row] = curve
    writer = RunWriter(store.client, parent)
    writer.tag({"tuning": json.dumps(tuning)})
    if curves:
        document = {
            "unit": "sentence pairs",
            "rows": {row: [[point.budget, point.best] for point in points] for row, points in curves.items()},
            "expected": {row: [asdict(point) for point in points] for row, points in curves.items()},
            "debt": debt,
        }
        writer.text(json.dumps(document, indent=1), "best_so_far.json")
        writer.record_files()
