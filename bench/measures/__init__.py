"""What is measured of a model or run, one file per topic. Every number is a `Measure` (measure.py)."""
