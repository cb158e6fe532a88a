"""Measurements of Stable-Baselines3's PPO and sb3-contrib's RecurrentPPO.

A child process of versus_sb3.py and recurrent.py; see `measurement`.

Used as its documentation does: `make_vec_env` (DummyVecEnv, Monitor), `learn` with a callback, no logging at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from measurement import Clock, answer
from settings import GOAL, GOAL_SB3, GOAL_SB3_ENVS, GOAL_SB3_STEPS, RECURRENT_SB3, ROWS, SPEED_SB3, WINDOW
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env


class AfterWarmUp(BaseCallback):
    """Starts a clock where the update after the warm-up begins."""

    def __init__(self, warm_up: int) -> None:
        super().__init__()
        self.clock = Clock()
        self._left = warm_up

    def _on_rollout_start(self) -> None:
        if self._left == 0:
            self.clock = Clock()
        self._left -= 1

    def _on_step(self) -> bool:
        return True


class UntilGoal(BaseCallback):
    """Looks at the last 100 episodes after every rollout, and stops where their mean return is high enough."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.numbers: dict[str, float] = {}
        self.reached = False
        self.steps = 0
        self.mean: float | None = None

    def _on_training_start(self) -> None:
        self.clock = Clock()  # the next line of `learn` is its loop

    def _on_rollout_end(self) -> None:
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        self.mean = sum(returns) / len(returns) if returns else None
        self.steps = self.num_timesteps
        if len(returns) == WINDOW and sum(returns) / WINDOW >= GOAL:
            self.reached, self.numbers = True, self.clock.read()

    def _on_step(self) -> bool:
        return not self.reached

    def _on_training_end(self) -> None:
        if not self.reached:
            self.numbers = self.clock.read()


def speed(seed: int, warm_up: int, updates: int) -> dict[str, Any]:
    """Seconds for `updates` updates after `warm_up` others."""
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=seed), seed=seed, device="cpu", **SPEED_SB3)
    callback = AfterWarmUp(warm_up)
    model.learn((warm_up + updates) * ROWS, callback)
    return {"steps": updates * ROWS, **callback.clock.read()}


def recurrent(seed: int, warm_up: int, updates: int) -> dict[str, Any]:
    """The same with a memory, and how many parameters that has."""
    from sb3_contrib import RecurrentPPO  # here: the measurements of PPO load what they need and no more

    envs = make_vec_env("CartPole-v1", 8, seed=seed)
    model = RecurrentPPO("MlpLstmPolicy", envs, seed=seed, device="cpu", **RECURRENT_SB3)
    callback = AfterWarmUp(warm_up)
    model.learn((warm_up + updates) * ROWS, callback)
    numbers = callback.clock.read()
    returns = [episode["r"] for episode in model.ep_info_buffer or ()]
    told = {
        "parameters": sum(parameter.numel() for parameter in model.policy.parameters()),
        "return_mean": sum(returns) / len(returns),
    }
    return {"steps": updates * ROWS, **told, **numbers}


def goal(seed: int) -> dict[str, Any]:
    """Seconds and env steps until the last 100 episodes have a mean return of 475, or to the end of the budget."""
    settings = {name: _from_zoo(value) for name, value in GOAL_SB3.items()}
    envs = make_vec_env("CartPole-v1", GOAL_SB3_ENVS, seed=seed)
    callback = UntilGoal()
    PPO("MlpPolicy", envs, seed=seed, device="cpu", **settings).learn(GOAL_SB3_STEPS, callback)
    return {"reached": callback.reached, "steps": callback.steps, "return_mean": callback.mean, **callback.numbers}


def _from_zoo(value: Any) -> Any:
    """The zoo's "lin_0.001" as a function of what is left of the run, 1 to 0; everything else as it is."""
    return _linear(float(value.removeprefix("lin_"))) if isinstance(value, str) else value


def _linear(start: float) -> Callable[[float], float]:
    return lambda remaining: remaining * start


if __name__ == "__main__":
    answer({"speed": speed, "recurrent": recurrent, "goal": goal})
