"""A policy in an environment of its own, one step after the other. Training has no part in it."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from ppo_lab.actor_critic import ActorCritic, Memory
from ppo_lab.adapters.ids import find_spec, make_single
from ppo_lab.adapters.loop import describe_error
from ppo_lab.adapters.single import SingleEnvs
from ppo_lab.config import EnvConfig
from ppo_lab.distributions import Categorical, CategoricalHead, DiagonalGaussian, GaussianHead
from ppo_lab.errors import ConfigError
from ppo_lab.evaluation.evaluate import Acting
from ppo_lab.notebook.agent_picture import MOST_COMPONENTS, Thought, scene_of, scene_of_state

MOST_POINTS = 400  # of an observation's course that a scene shows

# pygame is one global: closing an environment shuts it down for all others, also for one that another thread draws
_drawing = threading.RLock()
_open: set[Player] = set()


@dataclass
class Course:
    """An episode under way, or done."""

    rewards: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)  # V(s), for a policy that thinks aloud
    observations: list[np.ndarray] = field(default_factory=list)  # the first numbers of each
    terminated: bool = False
    truncated: bool = False

    @property
    def total(self) -> float:
        """The undiscounted return so far."""
        return float(np.sum(self.rewards))


class Player:
    """Plays one episode after the other. Each step: `choose`, look if you like, `act`."""

    def __init__(self, settings: EnvConfig, seed: int, device: torch.device | str = "cpu") -> None:
        """Raises ConfigError or EnvError if the environment cannot be made."""
        self._env = _make(settings)
        self.no_picture = None if self._env.render_mode == "rgb_array" else "it has no pictures"
        self.fps = float(self._env.metadata.get("render_fps") or 30)
        self._device = torch.device(device)
        self._generator = Generator(self._device).manual_seed(seed)
        self._memory: Any = None
        self._action = torch.empty(0)
        self._seed = seed
        self.course = Course()
        with _drawing:
            _open.add(self)
        try:
            self._envs = SingleEnvs([self._env])
            self.observation_space, self.action_space = self._envs.observation_space, self._envs.action_space
            self._obs = self._envs.reset(seed)  # (1, *obs)
        except BaseException:
            self.close()
            raise

    def choose(self, policy: Acting, deterministic: bool, aloud: bool = False) -> Thought | None:
        """The next action, not yet done. aloud: with what the policy thinks. Raises ConfigError if it cannot tell."""
        course = self.course
        if not course.rewards:
            self._memory = policy.initial_memory(1)
        starts = torch.full((1,), not course.rewards, dtype=torch.bool, device=self._device)
        obs = self._obs.to(self._device)
        course.observations.append(obs[0].cpu().numpy().reshape(-1)[:MOST_COMPONENTS].copy())
        if not aloud:
            self._action, self._memory = policy.act(
                obs, self._memory, starts, deterministic=deterministic, generator=self._generator
            )
            return None
        model = getattr(policy, "model", None)
        if not isinstance(model, ActorCritic):
            raise ConfigError(f"thoughts: only a policy of ours tells what it thinks, got {type(policy).__name__}")
        self._action, self._memory, thought = think(model, obs, self._memory, starts, deterministic, self._generator)
        course.values.append(thought.value)
        return thought

    def act(self) -> Course | None:
        """Do what was chosen. Returns the episode if that ended it; the next one has begun then."""
        step, course = self._envs.step(self._action.cpu()), self.course
        course.rewards.append(float(step.reward[0]))
        course.terminated, course.truncated = bool(step.terminated[0]), bool(step.truncated[0])
        self._obs = step.obs
        if not (course.terminated or course.truncated):
            return None
        self.course = Course()
        return course

    def begin(self) -> Course:
        """Break the episode off and begin another one. Returns the old one."""
        course, self.course = self.course, Course()
        self._seed = (self._seed + 1) % 2**31
        self._obs = self._envs.reset(self._seed)
        return course

    def frame(self) -> Image.Image | None:
        """The environment's picture, RGB; None if there is none, and then `no_picture` says why."""
        if self.no_picture is not None:
            return None
        try:
            with _drawing:
                return Image.fromarray(np.asarray(self._env.render(), dtype=np.uint8)).convert("RGB")
        except Exception as error:  # third-party code: a missing package, no display, ...
            self.no_picture = describe_error(error)
            return None

    def scene(self, size: tuple[int, int]) -> Image.Image:
        """The environment's picture, or how the observation went where there is none."""
        frame = self.frame()
        if frame is not None:
            return scene_of(frame, size)
        seen = self.course.observations
        some = seen[:: -max(1, len(seen) // MOST_POINTS)][::-1]  # with the last one
        return scene_of_state(np.stack(some), self._obs[0].numel(), size)

    def close(self) -> None:
        """Give back the environment. Twice is harmless."""
        with _drawing:
            _open.discard(self)
            self._env.close()
            pygame = sys.modules.get("pygame")
            if pygame is not None and _open:
                pygame.display.init()
                pygame.font.init()


@torch.no_grad()
def think(
    model: ActorCritic, obs: Tensor, memory: Memory, starts: Tensor, deterministic: bool, generator: Generator
) -> tuple[Tensor, Memory, Thought]:
    """As `Policy.act` for one observation (1, *obs): action (1, *action) and memory; and what was behind it."""
    value = float(model.value(obs, memory, starts)[0])
    distribution, memory = model.step(obs, memory, starts)
    chosen = distribution.mode() if deterministic else distribution.sample(generator)  # (1,) or (1, A)
    action = model.to_env(chosen)
    taken, head = _array(action).reshape(-1), model.actor_head
    if isinstance(distribution, Categorical) and isinstance(head, CategoricalHead):
        return action, memory, Thought(value, taken, _array(distribution.log_probs[0].exp()), head.start)
    if not isinstance(distribution, DiagonalGaussian) or not isinstance(head, GaussianHead):
        raise ConfigError(f"thoughts: there is no picture of a {type(distribution).__name__} yet")
    mean, std = _array(distribution.mean[0]), _array(distribution.std)  # (A,), (A,)
    low, high = _array(head.box.low), _array(head.box.high)
    if head.rescale:  # the policy's [-1, 1] is all of the Box
        mean, std = low + (mean + 1) / 2 * (high - low), std * (high - low) / 2
    return action, memory, Thought(value, taken, mean=mean, std=std, low=low, high=high)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _make(settings: EnvConfig) -> gymnasium.Env:
    """The environment, with pictures if it has any."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame needs no window for an array
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # else SDL swallows SIGTERM, and `kill` does nothing any more
    spec = find_spec(settings.id, settings.allow_import)
    env = make_single(spec, settings.kwargs)
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        return env
    env.close()
    return make_single(spec, {**settings.kwargs, "render_mode": "rgb_array"})
