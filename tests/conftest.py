"""Command-line options and shared fixtures of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest
import torch

# No test measures speed: on a busy machine an example may take long.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="Device of the tests that run models on one: cpu or cuda.")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device of --device. TF32 is turned off, because the tests compare fp32 results with a tolerance of 1e-4."""
    device = torch.device(str(request.config.getoption("--device")))
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by deterministic algorithms
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield device
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def same_bits(device: torch.device) -> Iterator[None]:
    """Use algorithms whose sums have a fixed order. Only a GPU has others."""
    torch.use_deterministic_algorithms(device.type == "cuda")
    yield
    torch.use_deterministic_algorithms(False)
