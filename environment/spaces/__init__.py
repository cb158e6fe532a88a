"""Spaces-v0: the same easy game in every observation and action space; tests run over all pairs of them.

Each step shows one of four targets and expects the action that belongs to it. The next target does not depend on the
action, so this is a contextual bandit.

- Observation: `observation` names a row of the table in `observations.py`: vectors, numbers, images, boards, a set with
  its mask, a dict with a key for the critic alone. Each shows the target and some noise.
- Action: `action` names a row of the table in `actions.py`. It is scored part by part: a number of a (Multi)Discrete or
  MultiBinary is right or wrong for the target, a number of a Box has a distance to its place in [low, high].
- `masked=True` adds the key "action_mask" (K,) bool, True = legal (a plain observation becomes the key "obs"): the
  right choice is legal, every other one with probability 1/2. K is the sum of the parts' choices, those of a
  MultiBinary being off and on; a Box adds none.
- Reward: the mean over the parts of the action of 1 right, 0 wrong, -1 illegal, and for a Box dimension
  1 - 2 |distance to its place| with high - low as 1 (at least -0.5 inside the box, and less outside).
- An episode has min_length..max_length steps, uniform, both included. It ends terminated or truncated, equally likely,
  whatever the actions.
- Reset: draws target, noise, length and kind of ending; target and noise are also drawn after every step.

Reward of a step: 1 at best. For a uniform choice among the legal ones a part of n choices gets 1 / n, masked
2 (1 - 2^-n) / n, and a Box dimension 3/8; `Spaces.chance_reward` is their mean. The mean return of an episode is
(min_length + max_length) / 2 times that: 4 at best with the defaults.
"""

from .actions import ACTIONS
from .game import Spaces
from .observations import OBSERVATIONS

__all__ = ["ACTIONS", "OBSERVATIONS", "Spaces"]
