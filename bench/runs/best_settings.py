"""Best settings that sweeps found for the rows of a suite, and the tuning budget that they cost. Only reads studies.

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

from bench.experiment.spec import Experiment
from bench.experiment.yaml_layers import read_yaml
from bench.measures.selection import Selection
from bench.measures.tuning_curve import debts, expected_best
from bench.tracking.reading import TrackedRun
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store


@dataclass(frozen=True)
class BestSettings:
    """The best settings that a finished study found for a row.

    Attributes:
        study: The MLflow run of the study.
        layer: The settings, as a layer of YAML.
    """

    sweep: str
    study: TrackedRun
    layer: dict[str, Any]

    @property
    def tuning_budget(self) -> float | None:
        """Trials x training budget, in sentence pairs; None if the training budget has another unit."""
        pairs = self.study.tags["pairs_granted"]
        return float(pairs) if pairs else None


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
    of_row = (run for run in studies if (run.tags["row"], run.tags["preset"]) == (row, preset))
    study = next((run for run in of_row if run.tags["corpus"] in corpora), None)
    if study is None:
        found = ", ".join(f"{run.tags['row']} ({run.tags['preset']}, {run.tags['corpus']})" for run in studies)
        raise ValueError(
            f"{key}: this sweep has no study of the row at preset {preset} on {' or '.join(corpora)}; its studies: "
            f"{found or 'none yet'}; run first: {command}"
        )
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
        return BestSettings(sweep, study, read_yaml(path))


def check_seeds(best: Mapping[str, BestSettings], experiments: Sequence[Experiment]) -> None:
    """Raises ValueError if a row is to be trained with the seed by which its settings were chosen."""
    for experiment in experiments:
        settings = best.get(experiment.row)
        if settings and settings.study.tags["seed"] == str(experiment.seed):
            raise ValueError(
                f"{experiment.row}: seed {experiment.seed} is the seed of sweep {settings.sweep}; final numbers need "
                "other seeds, because the settings were chosen by this one; set others with --seeds"
            )


def log_tuning_costs(
    best: Mapping[str, BestSettings], rows: Sequence[str], ensembles: Mapping[str, str], parent: str, store: Store
) -> None:
    """Writes the tuning budgets of the rows, and their expected best scores, to the run of a suite.

    The tag `tuning` holds for each row its study, its granted and spent budget, and its debt, in sentence pairs. The
    debt is the budget beyond that of the row with the smallest budget; null if a budget has another unit. An ensemble
    has the numbers of its single row. best_so_far.json holds the expected best validation score (BLEU or chrF2) as a
    function of the sentence pairs spent, with intervals over orders of the trials. A study whose trials the loss
    selects has no curve, because a failed trial has no loss.

    Args:
        rows: Row ids, without ensembles.
        ensembles: Row id of an ensemble -> row id of its members.
        parent: Id of the run of the suite.
    """
    budgets = {row: best[row].tuning_budget if row in best else 0.0 for row in rows}
    debt = debts({row: pairs for row, pairs in budgets.items() if pairs is not None})
    tuning = {
        row: {
            "sweep": settings.sweep,
            "study": settings.study.id,
            "granted": settings.tuning_budget,
            "spent": float(settings.study.tags["pairs_spent"]),
            "debt": debt.get(row),
        }
        for row, settings in best.items()
    }
    tuning |= {row: tuning[single] for row, single in ensembles.items() if row not in tuning and single in tuning}
    curves = {}
    for row, settings in best.items():
        selection = Selection.of_tags(settings.study.tags)
        if selection.score == "loss":
            continue
        trials = store.trials(settings.sweep, settings.study.tags["study"])
        trials = sorted(trials, key=lambda run: int(run.tags["trial"]))
        scores = [run.metrics.get(selection.metric, 0.0) for run in trials]  # a failed trial improves nothing
        costs = [run.metrics.get("pairs", run.metrics.get("train/pairs", 0.0)) for run in trials]
        curves[row] = expected_best(scores, costs)
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
