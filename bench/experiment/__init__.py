"""The typed configuration of a job: YAML layers, presets, search spaces, fairness checks, and the data it needs."""
