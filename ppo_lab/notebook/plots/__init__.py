"""Pictures of runs, from arrays."""

from ppo_lab.notebook.plots.canvas import number, steps, style, to_png
from ppo_lab.notebook.plots.dials import HEALTHY, dashboard_figure, dials, entropy_range
from ppo_lab.notebook.plots.learning import learning_curve
from ppo_lab.notebook.plots.runs import new_figure, plot_lineage, plot_runs

__all__ = [
    "HEALTHY",
    "dashboard_figure",
    "dials",
    "entropy_range",
    "learning_curve",
    "new_figure",
    "number",
    "plot_lineage",
    "plot_runs",
    "steps",
    "style",
    "to_png",
]
