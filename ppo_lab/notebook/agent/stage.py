"""Makes one environment for viewing: with the same wrappers as in training, and rendered if it can be."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import Space

from ppo_lab.config import Config, EnvConfig
from ppo_lab.config.loading import override
from ppo_lab.envs.adapters.atari import is_atari
from ppo_lab.envs.adapters.given import one_of
from ppo_lab.envs.adapters.ids import find_spec, make_single
from ppo_lab.envs.contract import EnvFactory, Envs
from ppo_lab.envs.making import make_envs
from ppo_lab.envs.registry import BATCHED
from ppo_lab.envs.spaces import MASK_KEY, kind_of, leaf_spaces
from ppo_lab.trees import Tree

FPS = 30.0  # if an environment declares no frame rate
ATARI_FPS = 15.0  # 60 frames a second, of which the agent sees every fourth


class Stage(NamedTuple):
    """A single environment and the function that renders it."""

    envs: Envs  # N = 1
    draw: Callable[[], Any] | None  # renders the current state, (H, W, 3) uint8; None: it cannot
    fps: float  # env steps per second, when played in real time
    name: str  # for captions: the id, or the name of the class
    why_not: str = "it has no pictures"  # the reason if `draw` is None


def make_stage(settings: EnvConfig | Config, env_factory: Any = None) -> Stage:
    """Make one environment of these settings: wrappers, frame stack and masks as in training; whole games in Atari.

    Batched environments of this library are used directly. A third-party environment is made as a single environment,
    even if training uses its vector version, because only the single one can be rendered. An Atari vector environment
    is the exception: there the frames that the agent sees are shown.
    env_factory: an environment, or a function that is called with 0 to make it, in place of env.id. It is rendered if
    its render_mode is "rgb_array".
    Raises ConfigError or EnvError if the environment cannot be made.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame then renders to arrays without a window
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # otherwise SDL swallows SIGTERM, and `kill` has no effect
    config = settings if isinstance(settings, Config) else Config(env=settings)
    alone = override(config, {"env.num_envs": 1, "env.workers": 0, "env.life_loss": False, "env.info_metrics": ()})
    if env_factory is not None:
        return _single(alone, one_of(env_factory), None)
    name = alone.env.id
    if name in BATCHED:
        program = make_envs(alone)
        return Stage(program, program.frame if program.draws else None, float(program.frames_per_second or FPS), name)
    spec = find_spec(name, alone.env.allow_import, BATCHED)
    if alone.env.vector and is_atari(spec):
        return Stage(make_envs(alone), None, ATARI_FPS, name)
    singly = override(alone, {"env.vector": False, "env.kwargs": {}})
    return _single(singly, lambda _: _with_pictures(spec, alone.env.kwargs), name)


def _single(config: Config, make: EnvFactory, name: str | None) -> Stage:
    """Make the environment with `make` and the wrappers of the config. name: for captions; None: that of its class."""
    made: list[gymnasium.Env] = []

    def keep(index: int) -> gymnasium.Env:
        made.append(make(index))
        return made[-1]

    envs = make_envs(config, env_factory=keep)
    env = made[-1]  # the last one: an earlier one may have been made to check for masks
    draw, why_not = (env.render, "") if env.render_mode == "rgb_array" else (None, "it has no pictures")
    if draw is None and "rgb_array" in env.metadata.get("render_modes", ()):
        why_not = "it was made without render_mode='rgb_array'"
    fps = float(env.metadata.get("render_fps") or FPS)
    return Stage(envs, draw, fps, name or type(env.unwrapped).__name__, why_not)


def _with_pictures(spec: Any, kwargs: dict[str, Any]) -> gymnasium.Env:
    """Make the single environment of an id, with render_mode "rgb_array" if it supports that."""
    env = make_single(spec, kwargs)
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        return env
    env.close()
    return make_single(spec, {**kwargs, "render_mode": "rgb_array"})


class Sight:
    """Selects the parts of an observation that are shown: its image if it has one, and its first other components."""

    def __init__(self, space: Space, most: int) -> None:
        """Find the image and the components to show in `space` (flattened). most: components shown at most."""
        leaves = {key: leaf for key, leaf in leaf_spaces(space).items() if key.rpartition("/")[2] != MASK_KEY}
        self._image = next(
            (key for key, leaf in leaves.items() if kind_of(leaf) == "image" and len(leaf.shape or ()) <= 3), None
        )
        self._plain = {key: leaf for key, leaf in leaves.items() if key != self._image} or leaves
        self._most = most
        self.names = [name for key, leaf in self._plain.items() for name in _names(key, leaf, most)][:most]
        self.size = sum(int(np.prod(leaf.shape or ())) for leaf in leaves.values())

    def numbers(self, obs: Tree) -> np.ndarray:
        """Return the first components of obs (1, *obs), (at most `most`,) float64, in the order of `names`."""
        parts = [_leaf(obs, key).reshape(-1)[: self._most] for key in self._plain]
        return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])[: self._most]

    def picture(self, obs: Tree) -> np.ndarray | None:
        """Return the newest image in obs (1, *obs) as (H, W) or (H, W, 3) uint8; None if there is none."""
        if self._image is None:
            return None
        image = _leaf(obs, self._image)
        if image.ndim == 3:
            image = image if image.shape[-1] < image.shape[0] else np.moveaxis(image, 0, -1)  # (H, W, C)
            image = image if image.shape[-1] == 3 else image[..., -1]  # a frame stack: the newest is last
        if image.dtype == np.uint8:
            return image
        low, high = float(image.min()), float(image.max())
        return ((image - low) / (high - low or 1.0) * 255).astype(np.uint8)


def _leaf(obs: Tree, key: str) -> np.ndarray:
    """Return one leaf of obs (1, *obs) as an array (*leaf)."""
    leaf = obs[key] if isinstance(obs, dict) else obs
    array: np.ndarray = leaf[0].cpu().numpy()
    return array


def _names(key: str, leaf: Space, most: int) -> list[str]:
    """Return names for the first `most` components of a leaf."""
    size = int(np.prod(leaf.shape or ()))
    if key and size == 1:
        return [key]
    return [f"{key or 'obs'}[{i}]" for i in range(min(size, most))]
