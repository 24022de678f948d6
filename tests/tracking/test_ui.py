"""The MLflow UI: ports that are not free, a server that ends by itself, and how a signal ends it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from bench.tracking import ui
from bench.tracking.store import Store
from tests.helpers.tracking_folder import new_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return new_store(tmp_path / "runs")


def replace_server(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `serve_ui` start a shell script instead of MLflow's server."""
    program = folder / "server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(program))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_running(stat: Path) -> bool:
    """Whether the process of a /proc/PID/stat file lives; a zombie does not."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_busy_port_is_refused_before_the_server_starts(host: str, store: Store) -> None:
    with socket.socket() as other:
        other.bind((host, 0))
        other.listen()
        port = other.getsockname()[1]
        message = rf"--port: cannot listen at 127\.0\.0\.1:{port}: another program uses it; choose .* --port \d+$"
        with pytest.raises(ValueError, match=message):
            ui.serve_ui(store, port)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "ports below 1024 need special rights"),
        (OSError(99, "Cannot assign requested address"), "Cannot assign requested address"),
    ],
)
def test_a_port_that_cannot_be_used(error: OSError, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(port: int) -> int:
        if port:
            raise error
        return 5001

    monkeypatch.setattr(ui, "_bind", bind)
    message = rf"--port: cannot listen at 127\.0\.0\.1:80: {reason}; choose another port, such as --port 5001"
    with pytest.raises(ValueError, match=message):
        ui.check_port(80)


@pytest.mark.parametrize("code", [0, 3])
def test_a_server_that_ends_by_itself_is_an_error(
    code: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mlflow server` exits with 0 after every failure of its server."""
    replace_server(f"exit {code}", tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=rf"the MLflow server has ended by itself \(exit code {code}\)"):
        ui.serve_ui(store, free_port())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_server_and_all_its_processes(
    number: signal.Signals, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    replace_server(f"sleep 60 & echo $! > {pids}.new; mv {pids}.new {pids}; wait", tmp_path, monkeypatch)

    def interrupt() -> None:
        while not pids.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    before = signal.getsignal(number)
    assert ui.serve_ui(store, free_port()) == 128 + number
    assert signal.getsignal(number) == before
    process = Path("/proc", pids.read_text().strip(), "stat")
    # The signal has reached the process; on a busy machine it ends only when the scheduler comes to it.
    deadline = time.monotonic() + 10
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(process)
