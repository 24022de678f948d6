"""Everything that a store has of its runs, in the form in which it is equal after runs were moved between stores."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pandas as pd
from mlflow.entities import Run as MlflowRun

from bench.measures.quality import Statistics
from bench.tracking import logged_model
from bench.tracking.exported import ORIGIN_TAG
from bench.tracking.private_paths import public_data, public_params, public_tags
from bench.tracking.store import Store

JSON_FILES = ("corpus_stats.json", "trials.json", "importance.json", "best_so_far.json")


def content(store: Store) -> dict[str, Any]:
    """Experiments by name, and runs by the id of their origin. Ids in texts are those of the origin, links have names.

    Addresses differ between stores, and an export removes paths of the machine, so neither is part of the content. The
    description and the metrics of a suite's own run are written anew by an import, so times of these are left out.
    """
    experiments = {each.experiment_id: each for each in store.client.search_experiments() if each.name != "Default"}
    runs = store.search(list(experiments), "")
    origins = {run.info.run_id: run.data.tags.get(ORIGIN_TAG, run.info.run_id) for run in runs}

    def original(text: str) -> str:
        text = re.sub(r"\b[0-9a-f]{32}\b", lambda found: origins.get(found[0], found[0]), text)
        return re.sub(r"#/experiments/(\d+)", lambda found: f"#/experiments/{experiments[found[1]].name}", text)

    return {
        "experiments": {
            each.name: {key: original(value) for key, value in each.tags.items()} for each in experiments.values()
        },
        "runs": {
            origins[run.info.run_id]: _run(store, run, experiments[run.info.experiment_id].name, original)
            for run in runs
        },
    }


def _run(store: Store, run: MlflowRun, experiment: str, original: Any) -> dict[str, Any]:
    client, tracked = store.client, store.run(run.info.run_id)
    model = logged_model.find(client, run.info.run_id)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    tags = {key: original(value) for key, value in public_tags(run.data.tags).items() if key != ORIGIN_TAG}
    is_suite = tags.get("kind") == "suite"
    return {
        "experiment": experiment,
        "name": run.info.run_name,
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time),
        "tags": tags,
        "params": public_params(run.data.params),
        "metrics": run.data.metrics,
        "history": {
            name: [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in (() if is_suite else run.data.metrics)
        },
        "datasets": sorted(
            (d.dataset.name, d.dataset.digest, d.dataset.source, d.dataset.profile, [(t.key, t.value) for t in d.tags])
            for d in inputs
        ),
        "model": model
        and {
            "tags": model.tags,
            "params": public_params(model.params),
            "metrics": sorted(
                (m.key, m.step, m.timestamp, m.value, m.dataset_name, m.dataset_digest) for m in model.metrics or []
            ),
        },
        "measures": store.measures(tracked),
        "curves": list(_rows(store.curves(tracked))),
        "statistics": {
            name: [_statistics(one) for one in store.statistics(tracked, name.removesuffix(".npz"))]
            for name in store.list_files(tracked, "statistics")
        },
        "hypotheses": {
            name: list(_rows(store.hypotheses(tracked, name.removesuffix(".json"))))
            for name in store.list_files(tracked, "hypotheses")
        },
        "attention": {
            name: store.read_json(tracked, f"attention/{name}") for name in store.list_files(tracked, "attention")
        },
        "documents": {name: original(json.dumps(public_data(store.read_json(tracked, name)))) for name in JSON_FILES},
    }


def _rows(frame: pd.DataFrame) -> Iterable[tuple[Any, ...]]:
    return frame.itertuples(index=False, name=None)


def _statistics(one: Statistics) -> tuple[Any, ...]:
    return one.metric, one.signature, one.output_hash, one.reference_hash, one.rows_NK.tolist()


def as_lines(found: Any) -> list[str]:
    """Content as sorted lines, in which nan is equal to nan."""
    return json.dumps(found, sort_keys=True, indent=1, default=repr).splitlines()
