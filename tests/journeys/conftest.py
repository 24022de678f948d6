"""Fixtures of the journeys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.system.machine import SIBLINGS
from tests.helpers import tiny_job
from tests.helpers.tracking_folder import create


@pytest.fixture(scope="session", autouse=True)
def measure_latency_once() -> Iterator[None]:
    """`make journeys` runs two journeys at a time: latency is measured once, as beside another worker of a suite.

    Otherwise each job would repeat it for nine seconds, in the hope of a moment without noise.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SIBLINGS, "1")
        yield


@pytest.fixture(scope="session")
def tracking_folder() -> Callable[[Path], Path]:
    """Creates a tracking folder with empty databases and returns it; its argument is the folder.

    Journeys that are about a new store begin with a folder that does not exist.
    """
    return lambda folder: create(folder)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    tiny_job.write_corpus(folder)
    return folder
