"""Fixtures of the tests of jobs and suites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import tracking_folder


@pytest.fixture(scope="module", autouse=True)
def fast_writes() -> Iterator[None]:
    with tracking_folder.fast_writes():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the tiny corpus, and an empty store in `runs`."""
    return tracking_folder.create_with_corpus(tmp_path)
