"""Our own environments: batched torch programs. Gymnasium knows them under the same ids.

    BATCHED["ppo_lab/CartPole-v1"](num_envs=1024, device="cuda")     the program itself: a `ppo_lab.envs.Envs`
    gymnasium.make("ppo_lab/CartPole-v1")                            one of it, for any other library
    gymnasium.make_vec("ppo_lab/CartPole-v1", num_envs=8)            a batch of it, same-step reset

Importing this package registers them; `ppo_lab/envs/registry.py` lists them. The docstring of each
module describes its environment.
"""

from ppo_lab.envs.registry import BATCHED, REWARD_THRESHOLDS

__all__ = ["BATCHED", "REWARD_THRESHOLDS"]
