"""Checks of the instrument that a reader can run: model sizes, FLOP counts, repeated latency, the table of models."""
