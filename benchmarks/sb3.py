"""Measurements of Stable-Baselines3's PPO, sb3-contrib's RecurrentPPO and SBX's PPO. A child process of peers.py; see
`measurement`.

Used as their documentation does: `make_vec_env` (DummyVecEnv, Monitor), `learn` with a callback, no logging at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from measurement import Clock, answer, peak_megabytes
from settings import GOAL, GOAL_SB3, GOAL_SB3_ENVS, WINDOW
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize


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


def speed(
    algorithm: str,
    policy: str,
    settings: dict[str, Any],
    envs: dict[str, Any],
    seed: int,
    warm_up: int,
    updates: int,
) -> dict[str, Any]:
    """Seconds for `updates` updates after `warm_up` others. algorithm: sb3, sb3_contrib or sbx."""
    vec_env = _make_envs(**envs, gamma=settings["gamma"], seed=seed)
    model = _algorithm(algorithm)(policy, vec_env, seed=seed, device="cpu", **settings)
    rows = vec_env.num_envs * settings["n_steps"]
    callback = AfterWarmUp(warm_up)
    model.learn((warm_up + updates) * rows, callback)
    numbers = callback.clock.read()
    told = {"return_mean": _mean_return(model), "peak_megabytes": peak_megabytes()}
    if algorithm != "sbx":  # JAX keeps them elsewhere
        told["parameters"] = sum(parameter.numel() for parameter in model.policy.parameters())
    return {"steps": updates * rows, **told, **numbers}


def _make_envs(env: str, num_envs: int, normalize: bool, atari: bool, gamma: float, seed: int) -> VecEnv:
    """normalize: observations and rewards. atari: the usual preprocessing, the last four frames, rewards clipped."""
    if atari:
        import ale_py
        import gymnasium

        gymnasium.register_envs(ale_py)
        return VecFrameStack(make_atari_env(env, num_envs, seed=seed), n_stack=4)
    envs = make_vec_env(env, num_envs, seed=seed)
    return VecNormalize(envs, gamma=gamma) if normalize else envs


def _algorithm(name: str) -> Any:
    """Its class, imported here: each measurement loads what it needs and no more."""
    if name == "sb3_contrib":
        from sb3_contrib import RecurrentPPO

        return RecurrentPPO
    if name == "sbx":
        import sbx

        return sbx.PPO
    return PPO


def _mean_return(model: Any) -> float | None:
    """Of the last 100 episodes; None before one has ended."""
    returns = [float(episode["r"]) for episode in model.ep_info_buffer or ()]
    return sum(returns) / len(returns) if returns else None


def goal(seed: int, steps: int) -> dict[str, Any]:
    """Seconds and env steps until the last 100 episodes have a mean return of 475, or to the end of the budget."""
    settings = {name: _from_zoo(value) for name, value in GOAL_SB3.items()}
    envs = make_vec_env("CartPole-v1", GOAL_SB3_ENVS, seed=seed)
    callback = UntilGoal()
    PPO("MlpPolicy", envs, seed=seed, device="cpu", **settings).learn(steps, callback)
    told = {"return_mean": callback.mean, "peak_megabytes": peak_megabytes()}
    return {"reached": callback.reached, "steps": callback.steps, **told, **callback.numbers}


def _from_zoo(value: Any) -> Any:
    """The zoo's "lin_0.001" as a function of what is left of the run, 1 to 0; everything else as it is."""
    return _linear(float(value.removeprefix("lin_"))) if isinstance(value, str) else value


def _linear(start: float) -> Callable[[float], float]:
    return lambda remaining: remaining * start


if __name__ == "__main__":
    answer({"speed": speed, "goal": goal})
