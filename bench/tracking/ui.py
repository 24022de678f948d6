"""The MLflow UI for a store."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from pathlib import Path

import mlflow

from bench.system import terminal
from bench.tracking import ui_view
from bench.tracking.reading import public_address
from bench.tracking.store import Store
from bench.tracking.store_folder import sqlite_uri
from bench.tracking.ui_app import APP_NAME, STORE_VARIABLE

HOST = "127.0.0.1"
STARTUP_SECONDS = 120
"""How long `bench ui --open` waits for the server, at least."""


def serve_ui(store: Store, port: int, open_browser: bool = False) -> int:
    """Serves the MLflow UI at 127.0.0.1:`port` until a signal; returns the exit code, 128 + number of the signal.

    It prints the address of the comparison of each suite and sweep; the bare address leads to the newest one. If the
    store is a server, which has its own UI, it only prints them and returns 0. The server is a child process, because
    `mlflow server` exits with 0 after every failure.

    Args:
        open_browser: Open the comparison with the newest run in the browser.

    Raises:
        ValueError: the port is not free, or the server ended by itself.
    """
    if store.uri.startswith("http"):
        base = public_address(store.uri)
        print(f"MLflow UI: {base}")
        newest = _print_views(store, base)
        if open_browser:
            webbrowser.open(newest)
        return 0
    check_port(port)
    uri = store.uri
    if store.database and store.read_only:
        uri = store.client.tracking_uri
        print("the store cannot be written: the UI shows a copy of its database, and changes made in the UI are lost")
    elif store.database:
        _ = store.client  # creates the store if it is missing
        # MLflow takes the URI for a path and creates its parent folder; a name without a folder creates none.
        os.chdir(store.database.parent)
        uri = sqlite_uri(Path(store.database.name))
    base = f"http://{HOST}:{port}"
    print(f"MLflow UI for {store.uri}: {base}  (press Ctrl-C to stop)", flush=True)
    newest = _print_views(store, base)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1", "--app-name", APP_NAME]
    # The job execution of MLflow serves features that are not used here and would double the time to start.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", STORE_VARIABLE: uri}
    received: list[int] = []
    server: subprocess.Popen[bytes] | None = None

    def stop(number: int, _: object) -> None:
        received.append(number)
        if server:  # a second signal ends it at once
            os.killpg(server.pid, signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    # Before the server starts, which would go on alone if a signal ended this process in between.
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        # Its own session: Ctrl-C reaches this process alone, which then ends the server once.
        server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        if received:
            os.killpg(server.pid, signal.SIGTERM)
        if open_browser:
            threading.Thread(target=_open_when_ready, args=(base, newest), daemon=True).start()
        code = server.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        return 128 + received[0]
    raise ValueError(
        f"the MLflow server has ended by itself (exit code {code}); expected it to run until Ctrl-C; its messages "
        "above say why; fix the problem, or choose another port with --port"
    )


def _print_views(store: Store, base: str) -> str:
    """Prints the address of each comparison, newest first; returns the first one, or `base` if there is none."""
    views = [] if store.is_missing else ui_view.find(store.client)
    if not views:
        return base
    columns = [("comparison", "left"), ("newest run", "left"), ("address", "left")]
    rows = [[f"{view.kind} {view.name}", f"{view.newest:%Y-%m-%d %H:%M}", view.address(base)] for view in views]
    terminal.table(columns, rows)
    if not mlflow.__version__.startswith(tuple(f"{version}." for version in ui_view.TRIED_VERSIONS)):
        tried = ", ".join(ui_view.TRIED_VERSIONS)
        terminal.say(
            f"these views were tried with MLflow {tried}; this one is {mlflow.__version__} and may ignore them"
        )
    return views[0].address(base)


def _open_when_ready(base: str, address: str) -> None:
    """Opens an address in the browser as soon as the server answers."""
    for _ in range(STARTUP_SECONDS):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{base}/health", timeout=5).close()
            webbrowser.open(address)
            return
        time.sleep(1)


def check_port(port: int) -> None:
    """Raises ValueError if a server cannot listen at the port."""
    try:
        _bind(port)
    except OSError as error:
        reasons = {errno.EADDRINUSE: "another program uses it", errno.EACCES: "ports below 1024 need special rights"}
        raise ValueError(
            f"--port: cannot listen at {HOST}:{port}: {reasons.get(error.errno or 0, error.strerror)}; choose another "
            f"port, such as --port {_bind(0)}"
        ) from error


def _bind(port: int) -> int:
    """Listens at a port for a moment and returns its number; 0 takes any free port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        listener.bind((HOST, port))
        listener.listen()
        return listener.getsockname()[1]
