"""Runs in MLflow: written while a job trains, read by reports.

Only this package and evaluation/serving.py import mlflow.

Each suite is one MLflow experiment. It contains one parent run for the suite and one child run for each job. A run
contains the resolved configuration (config.yaml and params), the hashes of the data as dataset inputs, the learning
curves (metrics and curves.parquet), the final measures (metrics and measures.json) and the hypotheses as tables. The
model of a run is a LoggedModel (logged_model.py).
"""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
