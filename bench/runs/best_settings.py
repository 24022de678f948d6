"""What a table takes from sweeps: the best settings of its rows, and what finding them cost. Reads runs only.

A suite names a sweep for a row (`sweeps: {gnmt: sweep}`). The row then has the best settings of its newest study at the
suite's preset on one of the suite's corpora, above its own; its seeds must not be the study's, since the best of many
runs is lucky.
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
from bench.measures.tuning_curve import debts, expected_best
from bench.tracking.reading import TrackedRun
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store


@dataclass(frozen=True)
class Tuned:
    """A finished study of a row, and the best settings that it found, as a layer."""

    sweep: str
    study: TrackedRun
    layer: dict[str, Any]

    @property
    def granted(self) -> float | None:
        """Tuning budget in sentence pairs: trials x training budget; None where that has another unit."""
        pairs = self.study.tags["pairs_granted"]
        return float(pairs) if pairs else None


def find(sweeps: Mapping[str, str], preset: str, corpora: Collection[str], store: Store) -> dict[str, Tuned]:
    """Row -> what its sweep found.

    Raises:
        ValueError: a sweep has no study of the row at this preset on any of these corpora, it is not finished, or it
            found nothing.
    """
    return {row: _find(row, sweep, preset, corpora, store) for row, sweep in sweeps.items()}


def _find(row: str, sweep: str, preset: str, corpora: Collection[str], store: Store) -> Tuned:
    where = f"sweeps: {row}: {sweep}"
    command = f"bench sweep experiments/{sweep}.yaml --row {row} --preset {preset}"
    every = store.studies(sweep)
    of_row = (run for run in every if (run.tags["row"], run.tags["preset"]) == (row, preset))
    study = next((run for run in of_row if run.tags["corpus"] in corpora), None)
    if study is None:
        there = ", ".join(f"{run.tags['row']} ({run.tags['preset']}, {run.tags['corpus']})" for run in every)
        raise ValueError(
            f"{where}: no study of it at preset {preset} on {' or '.join(corpora)}; first {command}; there are: "
            f"{there or 'none yet'}"
        )
    if study.tags.get("left") != "0":
        raise ValueError(f"{where}: {study.tags.get('left', 'all')} trials are left; {command} continues")
    with TemporaryDirectory() as folder:
        path = store.download(study, "best.yaml", Path(folder))
        if path is None:
            raise ValueError(f"{where}: none of its trials came to an end within the limits")
        return Tuned(sweep, study, read_yaml(path))


def check_seeds(found: Mapping[str, Tuned], experiments: Sequence[Experiment]) -> None:
    """Raises ValueError if a row has a seed with which its settings were chosen."""
    for experiment in experiments:
        tuned = found.get(experiment.row)
        if tuned and tuned.study.tags["seed"] == str(experiment.seed):
            raise ValueError(
                f"{experiment.row}: seed {experiment.seed} is that of sweep {tuned.sweep}; final numbers come from "
                "fresh seeds: --seeds with others"
            )


def record(
    found: Mapping[str, Tuned], rows: Sequence[str], ensembles: Mapping[str, str], parent: str, store: Store
) -> None:
    """Writes to a suite's run what tuning its rows got and what is to be expected of it.

    The tag `tuning` holds of each row its study, granted and spent budget and its debt in sentence pairs: what it got
    beyond the row of the table that got least; null where a budget is not in pairs. That of an ensemble is that of the
    row that it is of. best_so_far.json holds the expected best validation BLEU against pairs spent, with intervals over
    re-orderings.
    """
    granted = {row: found[row].granted if row in found else 0.0 for row in rows}
    owed = debts({row: pairs for row, pairs in granted.items() if pairs is not None})
    tuning = {
        row: {
            "sweep": tuned.sweep,
            "study": tuned.study.id,
            "granted": tuned.granted,
            "spent": float(tuned.study.tags["pairs_spent"]),
            "debt": owed.get(row),
        }
        for row, tuned in found.items()
    }
    tuning |= {row: tuning[of] for row, of in ensembles.items() if row not in tuning and of in tuning}
    curves = {}
    for row, tuned in found.items():
        trials = sorted(store.trials(tuned.sweep, tuned.study.tags["study"]), key=lambda run: int(run.tags["trial"]))
        scores = [run.metrics.get("validation_bleu", 0.0) for run in trials]  # a failed one has found nothing
        costs = [run.metrics.get("pairs", run.metrics.get("train/pairs", 0.0)) for run in trials]
        curves[row] = expected_best(scores, costs)
    job = RunWriter(store.client, parent)
    job.tag({"tuning": json.dumps(tuning)})
    if curves:
        best = {
            "unit": "sentence pairs",
            "rows": {row: [[point.budget, point.best] for point in points] for row, points in curves.items()},
            "expected": {row: [asdict(point) for point in points] for row, points in curves.items()},
            "debt": owed,
        }
        job.text(json.dumps(best, indent=1), "best_so_far.json")
