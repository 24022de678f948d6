"""Fixtures of the tests of sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import tiny_sweep, tracking_folder


@pytest.fixture(scope="module", autouse=True)
def cached_parsing() -> Iterator[None]:
    with tiny_sweep.cached_parsing(), tracking_folder.fast_writes():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the tiny corpus, and an empty store in `runs`."""
    return tracking_folder.create_with_corpus(tmp_path)
