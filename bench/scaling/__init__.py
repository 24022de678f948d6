"""Scaling curves: laws of loss in model size, data and compute, their fit, its uncertainty, frontiers and crossings.

The order of reading: points.py (the raw points), laws.py (the equations), fit.py (least squares, identification),
held_out.py (held-out predictions, choice of a form), uncertainty.py (run noise, simulated refits), frontier.py (best
size at a cost), crossing.py (crossings of two frontiers), outliers.py (a wrong run, points in the middle of a
schedule), bleu.py (BLEU against loss), analysis.py (all of this for all rows of a study). Nothing here needs torch or
MLflow.
"""
