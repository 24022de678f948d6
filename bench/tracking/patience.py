"""Waiting for a store that is away: a server or a database that does not answer is asked again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

PATIENCE = 600.0
"""Seconds that a store may be away before those who wait for it give up."""

RETRY_EVERY = 2.0
"""Seconds between two attempts."""

AWAY = ("failed with exception", "OperationalError", "Max retries exceeded")
"""What the errors say of a store that does not answer, and those of a wrong request do not."""

Answer = TypeVar("Answer")
said = logging.getLogger("bench.tracking")


def patiently(ask: Callable[[], Answer], deadline: Callable[[], float]) -> Answer:
    """Asks until the store answers. Raises MlflowException for a refusal, and once `deadline()` has passed."""
    away = False
    while True:
        try:
            answer = ask()
        except MlflowException as error:
            if time.monotonic() > deadline() or not any(words in str(error) for words in AWAY):
                raise
            if not away:
                said.warning("the tracking store does not answer; waiting for it")
            away = True
            time.sleep(RETRY_EVERY)
        else:
            if away:
                said.warning("the tracking store is back")
            return answer


class Patient:
    """An MlflowClient each of whose calls waits for a store that is away, PATIENCE seconds at most."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if not callable(call):
            return call

        def ask(*arguments: Any, **named: Any) -> Any:
            deadline = time.monotonic() + PATIENCE
            return patiently(lambda: call(*arguments, **named), lambda: deadline)

        return ask


class Backlog:
    """Metrics on their way to the store: sent in the background, in order, and again until the store has taken them."""

    def __init__(self, send: Callable[[list[Metric]], object]) -> None:
        self.send = send
        self.sender = ThreadPoolExecutor(1, "metrics")
        self.waiting: list[Future[object]] = []
        self.deadline = math.inf

    def put(self, metrics: list[Metric]) -> None:
        self.waiting.append(self.sender.submit(patiently, lambda: self.send(metrics), lambda: self.deadline))

    def flush(self) -> None:
        """Waits until all has arrived. Raises MlflowException if the store stays away for PATIENCE seconds."""
        self.deadline = time.monotonic() + PATIENCE
        try:
            for sent in self.waiting:
                sent.result()
        finally:
            self.waiting.clear()
            self.deadline = math.inf
