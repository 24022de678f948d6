"""Waiting for a store that is away: a server or a database that does not answer is asked again."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
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

SQLITE = "sqlite3.OperationalError"
"""A file is never away. It may be locked by another writer for a while; if the disk is full, waiting mends nothing."""

Answer = TypeVar("Answer")
said = logging.getLogger("bench.tracking")


def is_away(error: MlflowException) -> bool:
    """Whether the store may answer later."""
    text = str(error)
    return "locked" in text if SQLITE in text else any(words in text for words in AWAY)


def patiently(ask: Callable[[], Answer], deadline: Callable[[], float]) -> Answer:
    """Asks until the store answers. Raises MlflowException for a refusal, and once `deadline()` has passed."""
    away = False
    while True:
        try:
            answer = ask()
        except MlflowException as error:
            if time.monotonic() > deadline() or not is_away(error):
                raise
            if not away:
                said.warning("the tracking store does not answer; waiting for it")
            away = True
            time.sleep(RETRY_EVERY)
        else:
            if away:
                said.warning("the tracking store is back")
            return answer


class RetryingClient:
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


class BackgroundWriter:
    """Metrics on their way to the store: sent in the background, in order, and again until the store has taken them.

    The thread is a daemon: a process that ends without `flush`, because it failed, does not wait for the store.
    """

    def __init__(self, send: Callable[[list[Metric]], object]) -> None:
        self.send = send
        self.waiting = queue.Queue[list[Metric] | None]()  # None ends the thread
        self.sender: threading.Thread | None = None
        self.failure: Exception | None = None
        self.deadline = math.inf

    def put(self, metrics: list[Metric]) -> None:
        self.waiting.put(metrics)
        if self.sender is None:
            self.sender = threading.Thread(target=self._deliver, name="metrics", daemon=True)
            self.sender.start()

    def _deliver(self) -> None:
        while (metrics := self.waiting.get()) is not None:
            try:
                patiently(lambda metrics=metrics: self.send(metrics), lambda: self.deadline)
            except Exception as error:  # told to whoever flushes, instead of ending the thread
                self.failure = self.failure or error

    def flush(self) -> None:
        """Waits until all has arrived. Raises MlflowException if the store stays away for PATIENCE seconds."""
        if self.sender is None:
            return
        self.deadline = time.monotonic() + PATIENCE
        self.waiting.put(None)
        self.sender.join()
        self.sender, self.deadline, failure, self.failure = None, math.inf, self.failure, None
        if failure:
            raise failure
