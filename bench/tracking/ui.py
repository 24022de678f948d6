"""The MLflow UI for a store."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.tracking.store import Store
from bench.tracking.store_folder import sqlite_uri


def serve_ui(store: Store, port: int) -> None:
    """Replaces this process by an MLflow server with the UI at 127.0.0.1:`port`. It runs until Ctrl-C.

    Raises:
        ValueError: the store is a server, which has its own UI.
    """
    if store.uri.startswith("http"):
        raise ValueError(f"tracking.uri: {store.uri} is a server that has its own UI; open this address in a browser")
    uri = store.uri
    if store.database and store.read_only:
        uri = store.client.tracking_uri
        print("the store cannot be written: the UI shows a copy of its database, and changes made in the UI are lost")
    elif store.database:
        _ = store.client  # creates the store if it is missing
        # MLflow takes the URI for a path and creates its parent folder; a name without a folder creates none.
        os.chdir(store.database.parent)
        uri = sqlite_uri(Path(store.database.name))
    print(f"MLflow UI for {store.uri}: http://127.0.0.1:{port}  (press Ctrl-C to stop)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # The job execution of MLflow serves features that are not used here and would double the time to start.
    os.execve(sys.executable, command, os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
