"""One environment to look at: made as training makes it, with pictures where it has any."""

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

FPS = 30.0  # where an environment does not say
ATARI_FPS = 15.0  # 60 a second, of which the agent sees every fourth


class Stage(NamedTuple):
    """An environment alone, and how its picture is made."""

    envs: Envs  # N = 1
    draw: Callable[[], Any] | None  # (H, W, 3) uint8 of the present state; None: it has no pictures of its own
    fps: float  # env steps per second, when played in real time
    name: str  # what to call it
    why_not: str = "it has no pictures"  # where `draw` is None


def make_stage(settings: EnvConfig | Config, env_factory: Any = None) -> Stage:
    """Make one environment of these settings: wrappers, frame stack and masks as in training; whole games in Atari.

    Our own programs are themselves. A third-party environment is the single one of its id also where training steps a
    vector environment, because only that one can be drawn; Atari shows what the agent sees.
    env_factory: makes the environment, as number 0, in place of env.id, or is it. It is drawn if it has render_mode
    "rgb_array".
    Raises ConfigError or EnvError if it cannot be made.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame needs no window for an array
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # else SDL swallows SIGTERM, and `kill` does nothing any more
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
    """Make the environment with `make` and what the config puts around it. name: None: that of its class."""
    made: list[gymnasium.Env] = []

    def keep(index: int) -> gymnasium.Env:
        made.append(make(index))
        return made[-1]

    envs = make_envs(config, env_factory=keep)
    env = made[-1]  # one may have been made before, to see whether there are masks
    draw, why_not = (env.render, "") if env.render_mode == "rgb_array" else (None, "it has no pictures")
    if draw is None and "rgb_array" in env.metadata.get("render_modes", ()):
        why_not = "it was made without render_mode='rgb_array'"
    fps = float(env.metadata.get("render_fps") or FPS)
    return Stage(envs, draw, fps, name or type(env.unwrapped).__name__, why_not)


def _with_pictures(spec: Any, kwargs: dict[str, Any]) -> gymnasium.Env:
    """Make the single environment of an id, with its pictures as arrays if it has any."""
    env = make_single(spec, kwargs)
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        return env
    env.close()
    return make_single(spec, {**kwargs, "render_mode": "rgb_array"})


class Sight:
    """What of an observation is for the eye: its picture if it has one, and else its first numbers."""

    def __init__(self, space: Space, most: int) -> None:
        """Prepare. space: flat. most: numbers that are shown."""
        leaves = {key: leaf for key, leaf in leaf_spaces(space).items() if key.rpartition("/")[2] != MASK_KEY}
        self._image = next(
            (key for key, leaf in leaves.items() if kind_of(leaf) == "image" and len(leaf.shape or ()) <= 3), None
        )
        self._plain = {key: leaf for key, leaf in leaves.items() if key != self._image} or leaves
        self._most = most
        self.names = [name for key, leaf in self._plain.items() for name in _names(key, leaf, most)][:most]
        self.size = sum(int(np.prod(leaf.shape or ())) for leaf in leaves.values())

    def numbers(self, obs: Tree) -> np.ndarray:
        """Return the first numbers of obs (1, *obs), (at most `most`,), in the order of `names`."""
        parts = [_leaf(obs, key).reshape(-1)[: self._most] for key in self._plain]
        return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])[: self._most]

    def picture(self, obs: Tree) -> np.ndarray | None:
        """Return the newest picture in obs (1, *obs), (H, W) or (H, W, 3) uint8; None if there is none."""
        if self._image is None:
            return None
        image = _leaf(obs, self._image)
        if image.ndim == 3:
            image = image if image.shape[-1] < image.shape[0] else np.moveaxis(image, 0, -1)  # (H, W, C)
            image = image if image.shape[-1] == 3 else image[..., -1]  # a stack: the newest comes last
        if image.dtype == np.uint8:
            return image
        low, high = float(image.min()), float(image.max())
        return ((image - low) / (high - low or 1.0) * 255).astype(np.uint8)


def _leaf(obs: Tree, key: str) -> np.ndarray:
    """Return one leaf of obs (1, *obs), as the array (*obs)."""
    leaf = obs[key] if isinstance(obs, dict) else obs
    array: np.ndarray = leaf[0].cpu().numpy()
    return array


def _names(key: str, leaf: Space, most: int) -> list[str]:
    """Return names for the first numbers of a leaf."""
    size = int(np.prod(leaf.shape or ()))
    if key and size == 1:
        return [key]
    return [f"{key or 'obs'}[{i}]" for i in range(min(size, most))]
