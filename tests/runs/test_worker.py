"""The worker process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.runs import worker


@pytest.fixture
def restored_signals() -> Iterator[None]:
    """Restores the signal handlers that a worker replaces."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number in numbers:
        signal.signal(number, before[number])


@pytest.mark.usefixtures("restored_signals")
def test_a_worker_without_a_driver_prints_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(worker.KEY_VARIABLE, "00")
    assert worker.main(str(tmp_path / "nobody"), "7") == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"worker 7: no driver at {tmp_path}/nobody: FileNotFoundError")
    assert printed.count("\n") == 1
