"""An evaluation without the measurements that take longer than the rest of a tiny job."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import bench.evaluation.evaluate


@contextlib.contextmanager
def without_timings() -> Iterator[None]:
    """While the block runs, a job does not measure latency, and multiplies small matrices for its cost estimate.

    Both have tests of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.evaluation.evaluate.latency, "measure", lambda *_: [])
        patch.setattr(bench.evaluation.evaluate.costs, "SIDE", 128)
        yield
