"""Hyperparameter search with Optuna, for the settings of a row under a budget. Only this package imports optuna.

One row at one preset on one corpus is a study: an Optuna study in the storage, and a parent run in MLflow. A study
tries configurations, each of which is a job with a child run. An Optuna trial is one attempt at a job and carries its
hash. If the worker of an attempt is lost, the attempt keeps the state FAIL, and the next attempt continues from the
job's checkpoint. Only the driver talks to Optuna: it asks for settings, reports validations, prunes, and tells the
results. The workers (runs/worker.py) know only jobs.
"""
