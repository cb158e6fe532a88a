"""Runs on disk: run folders with settings, metrics, checkpoints, the journal of live changes, and lineage."""

from ppo_lab.runs.journal import Change, read_journal
from ppo_lab.runs.metrics import export_csv, read_metrics
from ppo_lab.runs.run import Run
from ppo_lab.runs.table import RunSummary, lineage, list_runs

__all__ = ["Change", "Run", "RunSummary", "export_csv", "lineage", "list_runs", "read_journal", "read_metrics"]
