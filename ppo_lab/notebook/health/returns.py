"""Rules about what the episodes pay."""

from __future__ import annotations

import numpy as np

from ppo_lab.notebook.health.signals import PATIENCE, SLOW, SURE, Signals, Verdict, since
from ppo_lab.notebook.plots.canvas import number

LOST = 0.5  # of what had been gained: less is the usual up and down
TRIED, TRIED_LONG = 0.2, 0.5  # of total_timesteps: by then a run that can learn has usually begun to


def no_episode(s: Signals) -> Verdict | None:
    """Check whether no episode has ended yet, so that there is no return."""
    ended = np.isfinite(s.raw("episode/return_mean"))
    if ended.any() or len(s) < 2 * PATIENCE:
        return None
    late = len(s) >= SLOW and s.step[-1] > 0.25 * s.ppo.total_timesteps
    return Verdict(
        "warning" if late else "note",
        0,
        f"No episode has ended in {s.step[-1]:,.0f} steps, so there is no return to show.",
        "wait, if episodes are long; else give the environment a time limit (`env.kwargs`, or Gymnasium's "
        "`max_episode_steps`). A task without an end can be learned all the same.",
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
        f"The return is {number(_now(s), 3)}; at step {s.step[peak]:,.0f} it had been {number(s.best[-1], 3)}.",
        'see which dial moved first; go back to the best checkpoint (rewind, or fork with `at="best"`) and continue '
        "from there with a lower `ppo.learning_rate`, or one that falls (`ppo.learning_rate_schedule`).",
    )


def never_better(s: Signals) -> Verdict | None:
    """Check for a return that is still where it was in the beginning."""
    known = np.flatnonzero(np.isfinite(s.returns))
    done = s.step[-1] / s.ppo.total_timesteps if len(s) else 0.0
    if len(known) < 1.5 * SLOW or done < TRIED or s.learned or returns_collapsed(s):
        return None
    return Verdict(
        "warning" if done > TRIED_LONG else "note",
        int(known[0]),
        f"The return is {number(_now(s), 3)}, no better than the {number(s.start, 3)} of the first episodes.",
        "see what the other findings say. If there are none: does the reward ever differ, can a random policy "
        "ever get some of it, is `ppo.gamma` patient enough, does a simpler task learn with these settings?",
    )


def returns_flat(s: Signals) -> Verdict | None:
    """Check for a return that rose and has not risen for long."""
    known = np.flatnonzero(np.isfinite(s.returns))
    if len(known) < 2 * SLOW or returns_collapsed(s) or never_better(s):
        return None
    reached = int(np.flatnonzero(s.best >= s.best[-1] - s.margin)[0])
    gained = s.best - s.best[np.arange(len(s)) // 2]  # (U,) at every update: in the half of the run before it
    perfect = s.raw("episode/return_std")[-1] == 0.0
    if not s.learned or perfect or since(gained < s.margin, SLOW) is None:
        return None
    return Verdict(
        "note",
        reached,
        f"The best return is {number(s.best[-1], 3)}, hardly more than what it had reached by then; "
        "it has not grown in half of the run.",
        "if that is as good as the task allows, nothing. Else: more exploration (`ppo.ent_coef`), more data an update "
        "(`ppo.num_steps`, `env.num_envs`), a more patient `ppo.gamma`, or a larger network.",
    )


def _now(s: Signals) -> float:
    return float(s.returns[np.isfinite(s.returns)][-1])
