"""Steps a policy in one separate environment, independently of training."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from ppo_lab.config import Config, EnvConfig
from ppo_lab.envs.spaces import MASK_KEY
from ppo_lab.errors import ConfigError, describe_error
from ppo_lab.evaluation.evaluate import Acting
from ppo_lab.models.actor_critic import ActorCritic, Memory
from ppo_lab.models.distributions import check_mask
from ppo_lab.notebook.agent.agent_picture import MOST_COMPONENTS, Thought, scene_of, scene_of_state
from ppo_lab.notebook.agent.stage import Sight, make_stage
from ppo_lab.notebook.data.distribution_summary import action_parts
from ppo_lab.trees import Tree, apply

MOST_POINTS = 400  # at most this many time steps of the observation are plotted in a scene

# pygame has global state: closing one environment shuts it down for all, even while another thread draws
_drawing = threading.RLock()
_open: set[Player] = set()


@dataclass
class Course:
    """The record of an episode, running or finished."""

    rewards: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)  # V(s) of each step, only if `choose` was called with aloud=True
    observations: list[np.ndarray] = field(default_factory=list)  # the first components of each
    terminated: bool = False
    truncated: bool = False

    @property
    def total(self) -> float:
        """The undiscounted return so far."""
        return float(np.sum(self.rewards))


class Player:
    """Plays episodes one after the other. For each step call `choose`, optionally `frame` or `scene`, then `act`."""

    def __init__(
        self,
        settings: EnvConfig | Config,
        seed: int,
        device: torch.device | str = "cpu",
        env_factory: Any = None,
    ) -> None:
        """Make the environment and reset it.

        device: that of the policy. env_factory: makes the environment in place of env.id.

        Raises ConfigError or EnvError if the environment cannot be made.
        """
        stage = make_stage(settings, env_factory)
        self._envs, self._draw, self.fps, self.name = stage.envs, stage.draw, stage.fps, stage.name
        self.observation_space, self.action_space = self._envs.observation_space, self._envs.action_space
        self._sight = Sight(self.observation_space, MOST_COMPONENTS)
        self.no_picture: str | None = None  # the reason why there are no pictures
        self._device = torch.device(device)
        self._generator = Generator(self._device).manual_seed(seed)
        self._memory: Any = None
        self._action: Tree = torch.empty(0)
        self._seed = seed
        self.course = Course()
        with _drawing:
            _open.add(self)
        try:
            self._obs = self._envs.reset(seed)  # (1, *obs)
        except BaseException:
            self.close()
            raise
        if self._draw is None and self._sight.picture(self._obs) is None:
            self.no_picture = stage.why_not

    def choose(self, policy: Acting, deterministic: bool, aloud: bool = False) -> Thought | None:
        """Choose the next action, but do not take it yet. aloud: also return the value and the action distribution.

        Raises ConfigError if `aloud` is set and the policy is not an ActorCritic, or if it was made for observations of
        another shape; EnvError if no action is legal.
        """
        course, model = self.course, getattr(policy, "model", None)
        obs = apply(lambda rows: rows.to(self._device), self._obs)
        if not course.rewards:
            self._memory = policy.initial_memory(1)
            if isinstance(model, ActorCritic):
                model.features.batch_shape(obs)
        if isinstance(model, ActorCritic) and model.masked and isinstance(obs, dict):
            check_mask(obs[MASK_KEY], model.actor_head.mask_layout)
        starts = torch.full((1,), not course.rewards, dtype=torch.bool, device=self._device)
        course.observations.append(self._sight.numbers(self._obs))
        if not aloud:
            self._action, self._memory = policy.act(
                obs, self._memory, starts, deterministic=deterministic, generator=self._generator
            )
            return None
        if not isinstance(model, ActorCritic):
            raise ConfigError(f"thoughts: needs the policy of an ActorCritic, got {type(policy).__name__}")
        self._action, self._memory, thought = think(model, obs, self._memory, starts, deterministic, self._generator)
        course.values.append(thought.value)
        return thought

    def act(self) -> Course | None:
        """Take the chosen action. Return the episode if it has ended (the next one has then started), else None."""
        step, course = self._envs.step(apply(lambda rows: rows.cpu(), self._action)), self.course
        course.rewards.append(float(step.reward[0]))
        course.terminated, course.truncated = bool(step.terminated[0]), bool(step.truncated[0])
        self._obs = step.obs
        if not (course.terminated or course.truncated):
            return None
        self.course = Course()
        return course

    def begin(self) -> Course:
        """Stop the current episode and start a new one with the next seed. Return the stopped one."""
        course, self.course = self.course, Course()
        self._seed = (self._seed + 1) % 2**31
        self._obs = self._envs.reset(self._seed)
        return course

    def frame(self) -> Image.Image | None:
        """Return an RGB image of the environment, or the image in its observation if it cannot be rendered.

        Returns None if there is neither; `no_picture` is then the reason.
        """
        if self.no_picture is not None:
            return None
        try:
            with _drawing:
                picture = self._sight.picture(self._obs) if self._draw is None else self._draw()
                return Image.fromarray(np.asarray(picture, dtype=np.uint8)).convert("RGB")
        except Exception as error:  # third-party code: a missing package, no display, ...
            self.no_picture = describe_error(error)
            return None

    def scene(self, size: tuple[int, int]) -> Image.Image:
        """Return the frame, or a plot of the observation if there is none, scaled to fit `size` (width, height)."""
        frame = self.frame()
        if frame is not None:
            return scene_of(frame, size)
        seen = self.course.observations
        some = seen[:: -max(1, len(seen) // MOST_POINTS)][::-1]  # includes the last step
        return scene_of_state(np.stack(some), self._sight.size, size, self.names)

    @property
    def names(self) -> list[str]:
        """Names of the components in the `observations` of a Course."""
        return self._sight.names

    def close(self) -> None:
        """Close the environment. It is safe to call this twice."""
        with _drawing:
            _open.discard(self)
            self._envs.close()
            pygame = sys.modules.get("pygame")
            if pygame is not None and _open:
                pygame.display.init()
                pygame.font.init()


@torch.no_grad()
def think(
    model: ActorCritic, obs: Tree, memory: Memory, starts: Tensor, deterministic: bool, generator: Generator
) -> tuple[Tree, Memory, Thought]:
    """Choose the same action as `Policy.act` for one observation (1, *obs), and return the numbers behind it too.

    Returns the action (1, *action) in units of the environment, the memory, and the Thought. Unlike `Policy.act`, which
    does not evaluate the critic, it also advances the separate memory of a critic that has one.
    """
    value, memory = model.value_step(obs, memory, starts)
    distribution, memory = model.step(obs, memory, starts)
    chosen = distribution.mode() if deterministic else distribution.sample(generator)  # (1, *action)
    parts = action_parts(model.actor_head, distribution, chosen)
    return (
        model.to_env(chosen),
        memory,
        Thought(float(value[0]), tuple(part.map(lambda rows: rows[0]) for part in parts)),
    )
