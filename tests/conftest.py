"""Options of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="Where tests/test_contract.py runs the models: cpu or cuda.")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device of --device. A GPU is not to round to TF32: fp32 is held to 1e-4."""
    chosen = torch.device(str(request.config.getoption("--device")))
    if chosen.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by deterministic algorithms
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield chosen
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def same_bits(device: torch.device) -> Iterator[None]:
    """On a GPU, algorithms whose sums have a fixed order; on a CPU there are no others."""
    torch.use_deterministic_algorithms(device.type == "cuda")
    yield
    torch.use_deterministic_algorithms(False)
