"""Our own environments: batched torch programs, known here by id, and to Gymnasium under the same ids.

    BATCHED["ppo_lab/CartPole-v1"](num_envs=1024, device="cuda")     the program itself: `ppo_lab.envs.Envs`
    gymnasium.make("ppo_lab/CartPole-v1")                            one of it, for any other library
    gymnasium.make_vec("ppo_lab/CartPole-v1", num_envs=8)            a batch of it, same-step reset

Importing this package registers them. What each of them is, its file says.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium

from environment.cartpole import CartPole
from environment.catch import Catch
from environment.lateral_env import VectorizedLateralControlEnv
from environment.leak import Leak
from environment.probes import PROBES
from environment.recall import Recall
from environment.spaces import Spaces

BATCHED: dict[str, Callable[..., Any]] = {  # id -> class(num_envs, device=..., ...)
    "ppo_lab/CartPole-v1": CartPole,
    "ppo_lab/CartPoleNoVelocity-v1": partial(CartPole, observe_velocities=False),
    "ppo_lab/Catch-v0": Catch,
    "ppo_lab/LateralControl-v0": VectorizedLateralControlEnv,
    "ppo_lab/Leak-v0": Leak,
    "ppo_lab/Recall-v0": Recall,
    "ppo_lab/Spaces-v0": Spaces,
    **{f"ppo_lab/{probe.__name__}-v0": probe for probe in PROBES},
}
REWARD_THRESHOLDS = {  # mean return over 100 episodes that counts as solved; with the defaults of each
    "ppo_lab/CartPole-v1": 475.0,
    "ppo_lab/CartPoleNoVelocity-v1": 475.0,
    "ppo_lab/Catch-v0": 0.9,
    "ppo_lab/Recall-v0": 0.95,
}

for env_id in BATCHED:
    # No max_episode_steps: the programs cut their episodes themselves, and TimeLimit would do it again.
    gymnasium.register(
        env_id,
        entry_point="ppo_lab.envs.gymnasium_view:SingleView",
        vector_entry_point="ppo_lab.envs.gymnasium_view:VectorView",
        reward_threshold=REWARD_THRESHOLDS.get(env_id),
        kwargs={"env_id": env_id},
    )

__all__ = ["BATCHED", "REWARD_THRESHOLDS"]
