"""Sweeps: the settings of a row searched for under a budget. Only this folder imports optuna.

A row on a text at a preset is a study: an Optuna study in the storage, and a parent run in MLflow. What it tries are
jobs, each a child run; an Optuna trial is an attempt at a job and carries its hash. An attempt whose worker is lost
stays FAIL, and the next one goes on from the job's checkpoint. The driver alone talks to Optuna: it asks for settings,
reports validations, prunes and tells the end, while workers (workers.py) know of jobs only.
"""
