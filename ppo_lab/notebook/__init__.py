"""The notebook interface: launch a trainer with a dashboard, inspect the result.

session = launch(trainer)       trains: with a dashboard in JupyterLab, with lines of text headlessly
session.wait()                  blocks until training is over
session.dashboard()             shows the dashboard again, under this cell
report(session)                 summarizes the run's progress in numbers
show_episode(policy, env)       shows the policy playing, as an animation
"""

from ppo_lab.notebook import plots
from ppo_lab.notebook.agent.playback import show_episode
from ppo_lab.notebook.headless.fast import fast, is_fast
from ppo_lab.notebook.live.report import report
from ppo_lab.notebook.live.session import Session
from ppo_lab.notebook.live.start import launch
from ppo_lab.notebook.live.tensorboard import tensorboard

__all__ = ["Session", "fast", "is_fast", "launch", "plots", "report", "show_episode", "tensorboard"]
