"""The MLflow UI on a store."""

from __future__ import annotations

import os
import sys

from bench.tracking.store import Store


def serve(store: Store, port: int) -> None:
    """Becomes the MLflow UI on this store at 127.0.0.1, until Ctrl-C.

    Raises:
        ValueError: the store is a server, which has its own UI; says where.
    """
    if store.uri.startswith("http"):
        raise ValueError(f"tracking.uri: {store.uri} is a server with a UI of its own; open it in a browser")
    print(f"MLflow UI on {store.uri}: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # The job runner serves features that are not ours (evaluation by language models) and doubles the start-up.
    os.execve(sys.executable, command, os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
