"""Answers judged: labels, metrics, curves, early warning, plots, and the gate.

Pure over the tables of stage `answer` and the ground truth; imports no model and nothing that
generates.
"""
