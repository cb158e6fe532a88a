"""Health rules about the returns of episodes."""

from __future__ import annotations

import numpy as np

from ppo_lab.notebook.health.signals import PATIENCE, SLOW, SURE, Signals, Verdict, since
from ppo_lab.notebook.plots.canvas import number

LOST = 0.5  # of the gain so far; smaller losses are usual fluctuation
TRIED, TRIED_LONG = 0.2, 0.5  # of total_timesteps: by then a run that works has usually started to learn


def no_episode(s: Signals) -> Verdict | None:
    """Check whether no episode has ended yet: there is no return then."""
    ended = np.isfinite(s.raw("episode/return_mean"))
    if ended.any() or len(s) < 2 * PATIENCE:
        return None
    late = len(s) >= SLOW and s.step[-1] > 0.25 * s.ppo.total_timesteps
    return Verdict(
        "warning" if late else "note",
        0,
        f"No episode has ended in {s.step[-1]:,.0f} steps, so there is no return to show.",
        "wait, if episodes are long; otherwise give the environment a time limit (`env.kwargs`, or Gymnasium's "
        "`max_episode_steps`). A task that never ends can be learned too.",
    )


def returns_collapsed(s: Signals) -> Verdict | None:
    """Check for a return well below an earlier one."""
    if not np.isfinite(s.best).any():
        return None
    peak = int(np.nanargmax(s.returns))
    lost = np.maximum(LOST * (s.best - s.lowest), SURE * s.error(peak))  # (U,)
    row = since(s.returns < s.best - lost)
    if row is None:
        return None
    return Verdict(
        "warning",
        row,
        f"The return is {number(_now(s), 3)}; at step {s.step[peak]:,.0f} it was {number(s.best[-1], 3)}.",
        'see which metric changed first; go back to the best checkpoint (rewind, or fork with `at="best"`) and '
        "continue with a lower `ppo.learning_rate`, or one that decays (`ppo.learning_rate_schedule`).",
    )


def never_better(s: Signals) -> Verdict | None:
    """Check for a return that is no better than at the start of the run."""
    known = np.flatnonzero(np.isfinite(s.returns))
    done = s.step[-1] / s.ppo.total_timesteps if len(s) else 0.0
    if len(known) < 1.5 * SLOW or done < TRIED or s.learned or returns_collapsed(s):
        return None
    return Verdict(
        "warning" if done > TRIED_LONG else "note",
        int(known[0]),
        f"The return is {number(_now(s), 3)}, no better than the {number(s.start, 3)} of the first episodes.",
        "see the other findings. If there are none: does the reward ever change, can a random policy ever get some of "
        "it, is `ppo.gamma` high enough, can a simpler task be learned with these settings?",
    )


def returns_flat(s: Signals) -> Verdict | None:
    """Check for a return that has risen, but not in the last half of the run."""
    known = np.flatnonzero(np.isfinite(s.returns))
    if len(known) < 2 * SLOW or returns_collapsed(s) or never_better(s):
        return None
    reached = int(np.flatnonzero(s.best >= s.best[-1] - s.margin)[0])
    gained = s.best - s.best[np.arange(len(s)) // 2]  # (U,) gain in the last half of the run, at every update
    perfect = s.raw("episode/return_std")[-1] == 0.0
    if not s.learned or perfect or since(gained < s.margin, SLOW) is None:
        return None
    return Verdict(
        "note",
        reached,
        f"The best return is {number(s.best[-1], 3)}, hardly more than at that step; it has not grown in "
        "the last half of the run.",
        "nothing, if the task allows no more. Otherwise more exploration (`ppo.ent_coef`), more data per update "
        "(`ppo.num_steps`, `env.num_envs`), a higher `ppo.gamma`, or a larger network.",
    )


def _now(s: Signals) -> float:
    return float(s.returns[np.isfinite(s.returns)][-1])
