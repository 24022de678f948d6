"""What the journeys share: starting the real command, waiting for what it writes, comparing results to the bit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings

BENCH = Path(sys.executable).with_name("bench")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"

JOB_FOLDER = "jobs/runs/*"
"""Glob of a job's checkpoints, below the tracking folder."""

EQUAL_METRICS = ("updates", "pairs", "train_flops", "executed_flops", "best_update", "test/bleu", "validation_loss")


def start(*command: object, **environment: str) -> subprocess.Popen[str]:
    """Start a command without the caller's tracking server; its output is read by `finish`."""
    inherited = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(
        [str(part) for part in command],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a command that must succeed; return what it printed."""
    printed, _ = process.communicate(timeout=900)
    assert process.returncode == 0, printed
    return printed


def wait_until(process: subprocess.Popen[str], condition: Callable[[], object], interval: float = 0.002) -> None:
    """Wait until the condition holds. The process must not end before."""
    while not condition():
        assert process.poll() is None, process.communicate()[0] if process.stdout else "the process has ended"
        time.sleep(interval)


def end(process: subprocess.Popen[str], number: signal.Signals, condition: Callable[[], bool], delay: float) -> bool:
    """Send a signal `delay` seconds after the condition holds; return False if the process had ended before."""
    while process.poll() is None and not condition():
        time.sleep(0.0005)
    time.sleep(delay)
    if process.poll() is None:
        process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (0, -number, 128 + number)
    return process.returncode != 0


def last_written(folder: Path, pattern: str) -> int:
    """Return when a file of this pattern was written last, in nanoseconds; 0 if there is none."""
    times = [0]
    for path in folder.glob(pattern):
        try:
            times.append(path.stat().st_mtime_ns)
        except FileNotFoundError:  # a partial file that has been renamed since
            continue
    return max(times)


def is_written(folder: Path, pattern: str) -> Callable[[], bool]:
    """Return a condition that holds once a file of this pattern is written after this call."""
    before = last_written(folder, pattern)
    return lambda: last_written(folder, pattern) > before


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def only_run(folder: Path) -> tuple[Store, TrackedRun]:
    """Return the store in a folder, and its one run of the suite `runs`."""
    store = Store(TrackingSettings(f"sqlite:///{folder}/mlflow.db", str(folder)))
    (run,) = store.runs("runs")
    return store, run


def load_weights(store: Store, run: TrackedRun, folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run's logged model, downloaded into `folder`."""
    translator = store.download_translator(run, folder)
    assert translator
    return torch.load(translator / "weights.pt", weights_only=True)


def loss_curve(store: Store, run: TrackedRun) -> list[tuple[int, float]]:
    """Return (update, training loss) as MLflow holds them."""
    return [(metric.step, metric.value) for metric in store.client.get_metric_history(run.id, "train/loss")]


def finished_result(folder: Path, download: Path) -> tuple[dict[str, torch.Tensor], pd.DataFrame, TrackedRun]:
    """Return weights, curves and run of the only run in a folder. Each step of a curve has one value in MLflow."""
    store, run = only_run(folder)
    assert run.status == "FINISHED"
    curves = store.curves(run)
    for name, points in curves.groupby("name"):
        held = sorted((metric.step, metric.value) for metric in store.client.get_metric_history(run.id, str(name)))
        assert held == sorted(zip(points["update"], points["value"], strict=True)), name
    return load_weights(store, run, download), curves.query("name != 'train/seconds'"), run


def assert_same_result(one: Path, other: Path, download: Path) -> TrackedRun:
    """Assert that two folders hold the same result to the bit; return the run of the second."""
    (weights, curves, run), (weights_2, curves_2, run_2) = (
        finished_result(folder, download / folder.name) for folder in (one, other)
    )
    assert weights.keys() == weights_2.keys()
    assert [name for name in weights if not torch.equal(weights[name], weights_2[name])] == []
    pd.testing.assert_frame_equal(curves.reset_index(drop=True), curves_2.reset_index(drop=True), check_exact=True)
    metrics, metrics_2 = (
        {name: found.metrics[name] for name in EQUAL_METRICS if name in found.metrics} for found in (run, run_2)
    )
    assert metrics == metrics_2
    return run_2


@contextmanager
def server(command: list[str | Path], address: str, log: Path, **environment: str) -> Iterator[None]:
    """Run a server, with all its processes, until the end of the block; wait until it answers."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | environment, start_new_session=True
        )
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        else:
            raise AssertionError(log.read_text())
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """Run an MLflow server whose database and artifacts are in `folder`; give its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    mlflow = BENCH.with_name("mlflow")
    command: list[str | Path] = [mlflow, "server", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with server([*command, "--workers", "1"], f"{address}/health", folder / "server.log", **environment):
        yield address
