"""Plays one episode of a policy and shows it as an animation, in the notebook and as a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ppo_lab.config import Config, EnvConfig
from ppo_lab.errors import ConfigError
from ppo_lab.evaluation.evaluate import Acting
from ppo_lab.notebook.agent.action_picture import PANEL
from ppo_lab.notebook.agent.agent_picture import EDGE, SCENE, Thought, compose
from ppo_lab.notebook.agent.film import Film, Mp4, check_file, write_png
from ppo_lab.notebook.agent.player import Course, Player
from ppo_lab.notebook.live.static import as_bundle
from ppo_lab.notebook.plots.canvas import TEXT, number, short, style, to_png

WIDTH = 300  # pixels, approximately: of a frame in the notebook


@dataclass(frozen=True)
class Episode:
    """One episode that was played: its picture (an animated or static PNG) and caption, which a notebook shows."""

    png: bytes
    caption: str
    episode_return: float  # undiscounted sum of the raw rewards
    length: int  # env steps
    terminated: bool  # False: the episode was cut off (truncated, or max_steps)

    def __repr__(self) -> str:
        return self.caption

    def _ipython_display_(self) -> None:
        display(as_bundle(self.png, self.caption), raw=True)
        print(self.caption)


def show_episode(
    policy: Acting,
    env: Any,
    seed: int = 1,
    deterministic: bool = True,
    max_steps: int = 2_000,
    *,
    thoughts: bool = False,
    file: str | Path | None = None,
    env_factory: Any = None,
) -> Episode:
    """Play one episode in a separate environment and return it as an animation. Training is not affected.

    env: an id, settings, an environment or a factory, as in `ppo_lab.evaluate`; an environment passed in stays open.
        If it cannot be drawn, the observation is plotted instead.
    seed: of the environment and of sampled actions.
    max_steps: the episode is cut off after this many env steps.
    thoughts: also draw the value and the action probabilities of each step beside the picture.
    file: also write a file: .png as in the notebook, or .mp4 (needs imageio-ffmpeg) with every frame in full size.
    env_factory: called with 0 to make the environment, in place of env.id: `trainer.env_factory` if training uses one.
    Raises ConfigError or EnvError if the environment cannot be made, the file cannot be written, max_steps is below 1,
    or `thoughts` is set and the policy is not an ActorCritic.
    """
    config, env_factory = _config(env, env_factory)
    if max_steps < 1:
        raise ConfigError(f"max_steps: at least 1, got {max_steps}")
    path = check_file(file) if file is not None else None
    with ExitStack() as undo:
        player = Player(config, seed, torch.device(getattr(policy, "device", "cpu")), env_factory)
        undo.callback(player.close)
        video = None
        if path is not None and path.suffix.lower() == ".mp4":
            video = undo.enter_context(Mp4(path, player.fps))
        camera = Camera(player, thoughts, video, note=f"{player.name}, seed {seed}")
        course = camera.shoot_episode(policy, deterministic, max_steps)
        if video is not None and not camera.shot:
            raise ConfigError(f"file: {player.name} cannot be drawn ({player.no_picture}): .mp4 needs thoughts=True")
    png = camera.film.png() if camera.shot else _state_plot(course, player.names)
    if path is not None and video is None:
        write_png(path, png)
    how = f"cut off after {max_steps} steps"
    if course.terminated or course.truncated:
        how = "ended" if course.terminated else "cut off by the environment"
    length = len(course.rewards)
    caption = f"{player.name}, seed {seed}: return {number(course.total, digits=4)} in {length} steps, {how}"
    if camera.failed:
        caption += f" (cannot be drawn: {player.no_picture})"
    return Episode(png, caption, course.total, length, course.terminated)


class Camera:
    """Records the pictures of an episode: a selection for the film, all of them for a video."""

    def __init__(self, player: Player, thoughts: bool, video: Mp4 | None, note: str) -> None:
        self._player, self._thoughts, self._video, self._note = player, thoughts, video, note
        self._drawn = player.no_picture is None
        self.film = Film(player.fps, beside=PANEL + EDGE if thoughts else 0)

    @property
    def failed(self) -> bool:
        """Whether the environment has pictures but could not be drawn."""
        return self._drawn and self._player.no_picture is not None

    @property
    def shot(self) -> bool:
        """Whether the film has frames."""
        return self._thoughts or self._player.no_picture is None

    def shoot_episode(self, policy: Acting, deterministic: bool, max_steps: int) -> Course:
        """Play one episode, at most `max_steps` env steps of it, and record its pictures."""
        player = self._player
        for step in range(max_steps):
            thought = player.choose(policy, deterministic, aloud=self._thoughts)
            if self._video is not None or self.film.wants(step):
                self._shoot(step, thought)  # before the step: after the last one the environment is already reset
            over = player.act()
            if over is not None:
                return over
        return player.course

    def _shoot(self, step: int, thought: Thought | None) -> None:
        player, course = self._player, self._player.course
        image = player.frame() if thought is None else player.scene(SCENE)
        if image is None:
            return
        frame: Callable[[], Image.Image] = image.reduce(max(1, round(image.width / WIDTH))).copy
        if thought is not None:
            frame = partial(compose, image, thought, course.values[:], step, course.total, self._note)
        if self._video is not None:
            self._video.add(frame() if thought is not None else image)
        if self.film.wants(step):
            self.film.add(step, frame)


def _config(env: Any, given: Any) -> tuple[Config, Any]:
    """Return the settings, and the environment or factory that replaces env.id (None: env.id is used).

    Raises ConfigError if `env` is None, or an environment and `given` is not None.
    """
    if isinstance(env, str):
        return Config(env=EnvConfig(id=env)), given
    if isinstance(env, EnvConfig | Config):
        return env if isinstance(env, Config) else Config(env=env), given
    if given is not None:
        raise ConfigError(f"env: an environment ({type(env).__name__}) and an env_factory as well; pass only one")
    if env is None:
        raise ConfigError("env: None; expected an id, settings, an environment or a function that makes one")
    return Config(), env


def _state_plot(course: Course, names: Sequence[str]) -> bytes:
    """Plot observation and reward over the steps of an episode, as a static PNG."""
    figure = Figure(figsize=(8.0, 2.6), facecolor="none")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    figure.subplots_adjust(left=0.08, right=0.98, top=0.88, bottom=0.18, wspace=0.25)
    values: Any = np.stack(course.observations)  # (steps, components)
    for component, name in enumerate(names):
        left.plot(values[:, component], linewidth=1.2, label=short(name))
    right.plot(course.rewards, linewidth=1.2)
    left.legend(fontsize=7, frameon=False, labelcolor=TEXT, ncols=2)
    for ax, title, unit in ((left, "Observation", "observation"), (right, "Reward", "reward")):
        style(ax)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("step", color=TEXT, fontsize=8)
        ax.set_ylabel(unit, color=TEXT, fontsize=8)
        ax.set_title(title, loc="left", fontsize=9, color=TEXT)
    return to_png(figure)
