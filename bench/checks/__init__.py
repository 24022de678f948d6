"""Commands that check the harness itself: model sizes, FLOPs, repeated latency, the table of models, GPU checks."""
