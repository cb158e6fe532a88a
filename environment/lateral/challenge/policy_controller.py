"""Use a policy as a controller, with the same observation and steering functions as the environment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ppo_lab.errors import ConfigError, RunError
from ppo_lab.evaluation.policy import Policy, load_policy
from ppo_lab.models.actor_critic import Memory
from ppo_lab.runs.run import look_up_run, read_config

from ...lateral_env import CHOICES
from .. import driver
from ..controllers import PidController
from ..rules import CONTEXT, CONTROL_START

ENV = "ppo_lab/LateralControl-v0"
DEFAULTS = {"observation": "compact", "action": "delta"}  # the environment's


class PolicyController:
    """N cars steered by a policy's most likely actions: an `environment.lateral.controllers.Controller`.

    It gets exactly what an official controller gets: the steering of rows before 100 is hidden, so
    `driver.feedforward` of those rows replaces it, as in the environment.

    Args:
        policy: A policy for LateralControl-v0, trained or not.
        observation, action: The options of its environment.

    Raises:
        ConfigError: An unknown observation or action, or a policy with another observation.
    """

    def __init__(self, policy: Policy, observation: str = "compact", action: str = "delta") -> None:
        for name, value in (("observation", observation), ("action", action)):
            if value not in CHOICES[name]:
                raise ConfigError(f"PolicyController: {name}={value!r}; allowed are {', '.join(CHOICES[name])}")
        policy.model.features.batch_shape(torch.zeros(1, driver.SIZES[observation]))
        self.policy = policy
        self._see = driver.compact if observation == "compact" else driver.full256
        self._action = action
        self._pid = PidController()
        self.reset(0)

    def reset(self, num_envs: int) -> None:
        """Reset all state, including the policy's memory, for N new drives from row 20 on."""
        self._row = CONTEXT
        self._lataccel, self._actions = (np.zeros((CONTEXT, num_envs)) for _ in range(2))  # of the last 20 rows
        self._integral = np.zeros(num_envs)
        self._memory: Memory = self.policy.initial_memory(num_envs)
        self._pid.reset(num_envs)

    def update(
        self, target: np.ndarray, roll: np.ndarray, v: np.ndarray, a: np.ndarray, lataccel: np.ndarray
    ) -> np.ndarray:
        """Return steering commands (N,) from rows t to t+49 of the road, (50, N) each, and lataccel (N,) of row t-1."""
        self._lataccel = np.concatenate([self._lataccel[1:], lataccel[np.newaxis]])
        pid = self._pid.update(target, roll, v, a, lataccel) if self._action == "pid_residual" else 0.0
        command: np.ndarray
        if self._row < CONTROL_START:  # discarded by the simulator, which applies the recorded steering
            command = driver.feedforward(target[0], roll[0], v[0])
        else:
            seen = self._see(np, target, roll, v, a, self._lataccel, self._actions, self._integral)
            command = driver.steer(self._action, self._act(seen), self._actions[-1], pid)
        self._integral = driver.integrate(self._integral, target[0] - lataccel)
        self._actions = np.concatenate([self._actions[1:], command[np.newaxis]])
        self._row += 1
        return command

    def _act(self, seen: np.ndarray) -> np.ndarray:
        """Compute the policy's actions (N,) for observations (41 or 256, N)."""
        obs = torch.from_numpy(np.ascontiguousarray(seen.T, np.float32)).to(self.policy.device)  # (N, 41 or 256)
        starts = torch.full((len(obs),), self._row == CONTROL_START, device=obs.device)
        action, self._memory = self.policy.act(obs, self._memory, starts)
        assert isinstance(action, torch.Tensor)  # the action space is a Box
        x: np.ndarray = action[:, 0].double().cpu().numpy()
        return x


def load_controller(run: str | Path, at: int | str = "latest") -> PolicyController:
    """Load the policy of a run on LateralControl-v0, with the observation and action of its config.

    Args:
        run: Its folder, or its name under run.root of config.yaml.
        at: The checkpoint: a step, "latest" or "best".

    Raises:
        RunError: No such run or checkpoint, a run on another environment, or one with wrappers.
    """
    policy, modes = policy_and_modes(look_up_run(run), at)
    return PolicyController(policy, **modes)


def policy_and_modes(folder: Path, at: int | str) -> tuple[Policy, dict[str, str]]:
    """Load a run's policy, and the `observation` and `action` of its config. Raises RunError as `load_controller`."""
    env = read_config(folder).env
    if env.id != ENV:
        raise RunError(f"{folder} was trained on {env.id}; a lateral controller comes from a run on {ENV}")
    if env.wrappers or env.frame_stack > 1 or env.time_aware:
        raise RunError(
            f"{folder} was trained with env.wrappers, frame_stack or time_aware, which a controller does not have"
        )
    policy = load_policy(folder, at)
    if policy.envs_given:
        raise RunError(
            f"{folder} was trained in environments passed by a script: make a PolicyController from its policy"
        )
    return policy, {name: env.kwargs.get(name, default) for name, default in DEFAULTS.items()}
