"""All experiments and all runs of an MLflow store, whose answers have at most 1,000 of them.

A server that several projects share has more experiments than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlflow.entities import Experiment, Run, ViewType
from mlflow.tracking import MlflowClient

PAGE = 1000


def all_experiments(client: MlflowClient) -> Iterator[Experiment]:
    """All active experiments."""
    token, first = None, True
    while token or first:
        page = client.search_experiments(ViewType.ACTIVE_ONLY, PAGE, page_token=token)
        yield from page
        token, first = page.token, False


def all_runs(client: MlflowClient, experiments: Sequence[str], query: str) -> Iterator[Run]:
    """All active runs of some experiments that match a query, newest first."""
    token, first = None, True
    while token or first:
        page = client.search_runs(
            list(experiments), query, ViewType.ACTIVE_ONLY, PAGE, ["attributes.start_time DESC"], token
        )
        yield from page
        token, first = page.token, False
