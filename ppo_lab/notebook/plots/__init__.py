"""Plots of runs and updates, drawn with matplotlib from arrays."""

from ppo_lab.notebook.data.differences import differences
from ppo_lab.notebook.plots.canvas import number, steps, style, to_png, to_small_png
from ppo_lab.notebook.plots.compare import compare, lineage, plot_seeds
from ppo_lab.notebook.plots.dials import HEALTHY, dashboard_figure, dials, dials_figure, entropy_range
from ppo_lab.notebook.plots.driving import costs_figure, drive_figure
from ppo_lab.notebook.plots.frozen import (
    course_figure,
    drift_figure,
    minibatch_figure,
    rollout_figure,
    surrogate_figure,
)
from ppo_lab.notebook.plots.inside import inside_figure
from ppo_lab.notebook.plots.learning import learning_curve, learning_figure
from ppo_lab.notebook.plots.remembering import memory_figure, principal, ratios_figure, recall_figure, told_apart
from ppo_lab.notebook.plots.runs import new_figure, plot_lineage, plot_runs
from ppo_lab.notebook.plots.seeing import attention_figure, features_figure, probabilities_figure, views_figure
from ppo_lab.notebook.plots.steering import (
    bounds_figure,
    densities_figure,
    entropy_figure,
    explore_figure,
    width_figure,
)
from ppo_lab.notebook.plots.walkthrough import (
    clip_figure,
    critics_figure,
    episode_figure,
    habits_figure,
    leash_figure,
    noise_figure,
    patience_figure,
)

__all__ = [
    "HEALTHY",
    "attention_figure",
    "bounds_figure",
    "clip_figure",
    "compare",
    "costs_figure",
    "course_figure",
    "critics_figure",
    "dashboard_figure",
    "densities_figure",
    "dials",
    "dials_figure",
    "differences",
    "drift_figure",
    "drive_figure",
    "entropy_figure",
    "entropy_range",
    "episode_figure",
    "explore_figure",
    "features_figure",
    "habits_figure",
    "inside_figure",
    "learning_curve",
    "learning_figure",
    "leash_figure",
    "lineage",
    "memory_figure",
    "minibatch_figure",
    "new_figure",
    "noise_figure",
    "number",
    "patience_figure",
    "plot_lineage",
    "plot_runs",
    "plot_seeds",
    "principal",
    "probabilities_figure",
    "ratios_figure",
    "recall_figure",
    "rollout_figure",
    "steps",
    "style",
    "surrogate_figure",
    "to_png",
    "to_small_png",
    "told_apart",
    "views_figure",
    "width_figure",
]
