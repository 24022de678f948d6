"""Retries: a call to a server or database that does not answer is repeated until it does."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mlflow.entities import DatasetInput, Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

MAX_OUTAGE_SECONDS = 600.0
"""Seconds that a store may be unreachable before a waiting call fails."""

RETRY_SECONDS = 2.0
"""Seconds between two attempts."""

OUTAGE_TEXTS = ("failed with exception", "OperationalError", "Max retries exceeded")
"""Texts in the errors of a store that does not answer. Errors of invalid requests do not contain them."""

SQLITE_ERROR = "sqlite3.OperationalError"
"""Text in every error of a SQLite file. Only a lock is temporary: waiting does not help if the disk is full."""

CONFLICT_TEXTS = ("IntegrityError", "UniqueViolation")
"""Texts in the errors of a database that already has what a request would add: SQLite's, and PostgreSQL's."""

Result = TypeVar("Result")
logger = logging.getLogger("bench.tracking")


def is_outage(error: MlflowException) -> bool:
    """Whether the store may answer if the call is repeated later."""
    text = str(error)
    return "locked" in text if SQLITE_ERROR in text else any(words in text for words in OUTAGE_TEXTS)


def retry_until(call: Callable[[], Result], deadline: Callable[[], float]) -> Result:
    """Repeats a call until the store answers, and returns the answer.

    Args:
        deadline: Returns the time (of `time.monotonic`) after which the call is not repeated.

    Raises:
        MlflowException: the store refuses the request, or does not answer before the deadline.
    """
    waiting = False
    while True:
        try:
            result = call()
        except MlflowException as error:
            if time.monotonic() > deadline() or not is_outage(error):
                raise
            if not waiting:
                logger.warning("the tracking store does not answer; waiting for it")
            waiting = True
            time.sleep(RETRY_SECONDS)
        else:
            if waiting:
                logger.warning("the tracking store answers again")
            return result


def log_datasets(client: MlflowClient, run_id: str, inputs: list[DatasetInput]) -> None:
    """Logs data sets as inputs of a run, also if another process logs the same ones for the first time just now.

    MLflow looks whether a data set exists before it adds it, and the database refuses what was added in between. The
    repeated request finds it.
    """
    try:
        client.log_inputs(run_id, inputs)
    except MlflowException as error:
        if not any(words in str(error) for words in CONFLICT_TEXTS):
            raise
        client.log_inputs(run_id, inputs)


class RetryingClient:
    """An MlflowClient whose calls wait for an unreachable store, each for MAX_OUTAGE_SECONDS at most."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method):
            return method

        def retrying(*args: Any, **kwargs: Any) -> Any:
            deadline = time.monotonic() + MAX_OUTAGE_SECONDS
            return retry_until(lambda: method(*args, **kwargs), lambda: deadline)

        return retrying


class BackgroundWriter:
    """Sends metrics to the store from a thread, in order, and repeats each batch until the store has accepted it.

    The thread is a daemon, so that a process that failed and does not call `flush` ends without waiting for the store.
    """

    def __init__(self, send: Callable[[list[Metric]], object]) -> None:
        self.send = send
        self.batches = queue.Queue[list[Metric] | None]()  # None ends the thread
        self.thread: threading.Thread | None = None
        self.failure: Exception | None = None
        self.deadline = math.inf

    def put(self, metrics: list[Metric]) -> None:
        self.batches.put(metrics)
        if self.thread is None:
            self.thread = threading.Thread(target=self._send_batches, name="metrics", daemon=True)
            self.thread.start()

    def _send_batches(self) -> None:
        while (metrics := self.batches.get()) is not None:
            try:
                retry_until(lambda metrics=metrics: self.send(metrics), lambda: self.deadline)
            except Exception as error:  # `flush` raises it; here it would end the thread
                self.failure = self.failure or error

    def flush(self) -> None:
        """Waits until the store has all batches. Raises MlflowException if it stays unreachable or refuses one."""
        if self.thread is None:
            return
        self.deadline = time.monotonic() + MAX_OUTAGE_SECONDS
        self.batches.put(None)
        self.thread.join()
        self.thread, self.deadline, failure, self.failure = None, math.inf, self.failure, None
        if failure:
            raise failure
