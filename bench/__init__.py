"""The harness. It trains every architecture under one budget, measures it and tracks it in MLflow.

The packages, in the order of their dependencies: a package imports only packages that stand above it in this list
(tests/test_import_order.py checks it).

system      machine settings, terminal output, progress messages, text made safe to show, atomic file writes
data        corpora, vocabularies, batches, corpus statistics
decoding    greedy and beam search, ensembles, unknown-word replacement
measures    one file per metric: quality, FLOPs, latency, memory, energy, costs, comparison of rows, probes, alignment
scaling     scaling curves: points, laws, fits with intervals, frontiers and crossings (numpy and scipy only)
tracking    the MLflow store: reading runs, writing runs, logged models, retries, the UI
training    the training loop: budget, validation, checkpoints, reward phase, distributed training
experiment  the typed configuration: YAML layers, presets, search spaces, fairness checks, the data of a job
evaluation  a trained model: test scores, probes, attention maps, translation, serving
planning    what jobs will cost before they run: hours, FLOPs, memory, disk, joules
runs        from configuration to tracked run: one job, a suite of jobs, local and Ray workers
speed       how fast rows train, decode and start on this machine, also in turn with another program
sweep       hyperparameter search with Optuna
checks      commands that check the project: sizes, FLOPs, latency, a GPU, significance, scaling, model table
cli         the command `bench`
"""
