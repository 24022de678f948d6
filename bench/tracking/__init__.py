"""Runs in MLflow: written while a job trains, read by reports. Only this folder and serving.py import mlflow.

One MLflow experiment a suite; in it one parent run, the suite, and one child run a job. A run holds the resolved
configuration (config.yaml and params), data hashes as dataset inputs, learning curves (metrics and curves.parquet),
the final measures (metrics and measures.json) and the hypotheses as tables; its model is a LoggedModel (models.py).
"""

from __future__ import annotations

import logging
import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.ERROR)
