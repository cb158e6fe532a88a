"""Runs on disk: the folder of a run and its metrics."""

from ppo_lab.runs.metrics import read_metrics
from ppo_lab.runs.run import Run

__all__ = ["Run", "read_metrics"]
