"""The version of what this code writes to a store, and the check that a store has it."""

from __future__ import annotations

from mlflow.entities import Experiment as MlflowExperiment
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from bench.tracking.pages import all_experiments

STORE_FORMAT = 3
"""Version of what this code writes: tags, metrics and files of runs, logged models, and attributes of Optuna studies.

It is raised when older data can no longer be read. Format 1 is everything written before this number existed.
"""

FORMAT_TAG = "attention_ladder.format"
"""Tag of an MLflow experiment that holds the STORE_FORMAT of its runs."""

RUNS_OF_THIS_PROJECT = (
    "tags.kind = 'job' AND tags.row LIKE '%' AND tags.preset LIKE '%'",
    "tags.kind = 'suite' AND tags.suite LIKE '%' AND tags.rows LIKE '%'",
    "tags.kind = 'study' AND tags.study LIKE '%'",
)
"""Queries that find the runs of this project, of any format, but not the runs of other projects on the same server."""


def check_format(found: object, what: str, advice: str) -> None:
    """Raises ValueError if data was written in another format than STORE_FORMAT.

    Args:
        found: The format number that was stored with the data; None if there is none, which means format 1.
        what: The data, as the subject of the message.
        advice: What the user can do.
    """
    if str(found) != str(STORE_FORMAT):
        raise ValueError(
            f"{what} has format {1 if found is None else found}, written by another version of attention-ladder; "
            f"this version reads format {STORE_FORMAT}; {advice}"
        )


def check_experiments(client: MlflowClient, uri: str) -> None:
    """Raises ValueError if an experiment of a store holds runs of this project in another format.

    Experiments without the tag are searched, because a server may hold experiments of other projects.
    """
    advice = "choose another --tracking.folder or --tracking.uri, or delete this experiment from a shared server"
    untagged: list[MlflowExperiment] = []
    for experiment in all_experiments(client):
        if FORMAT_TAG in experiment.tags:
            check_format(experiment.tags[FORMAT_TAG], named(experiment.name, uri), advice)
        else:
            untagged.append(experiment)
    names = {experiment.experiment_id: experiment.name for experiment in untagged}
    for query in RUNS_OF_THIS_PROJECT if names else ():
        for run in client.search_runs(list(names), query, ViewType.ACTIVE_ONLY, 1):
            check_format(None, named(names[run.info.experiment_id], uri), advice)


def named(experiment: str, uri: str) -> str:
    """An experiment of a store, as the subject of a message about the tracking URI."""
    return f"tracking.uri: the experiment {experiment!r} in {uri}"
