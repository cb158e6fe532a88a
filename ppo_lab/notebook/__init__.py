"""The notebook's side: launch a trainer with a dashboard, see what came of it.

session = launch(trainer)       trains: with a dashboard in JupyterLab, with lines of text headlessly
session.wait()                  until it is over
session.dashboard()             the dashboard again, under this cell
report(session)                 where it got to
show_episode(policy, env)       the agent at work, as a picture that moves
"""

from ppo_lab.notebook import plots
from ppo_lab.notebook.agent.playback import show_episode
from ppo_lab.notebook.headless.fast import fast, is_fast
from ppo_lab.notebook.live.report import report
from ppo_lab.notebook.live.session import Session
from ppo_lab.notebook.live.start import launch
from ppo_lab.notebook.live.tensorboard import tensorboard

__all__ = ["Session", "fast", "is_fast", "launch", "plots", "report", "show_episode", "tensorboard"]
