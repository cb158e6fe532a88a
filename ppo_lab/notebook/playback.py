"""The agent at work: one episode as a small animated PNG.

Of all formats it is the one that plays in a notebook nobody has trusted yet, and stays through nbconvert and git.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Generator

from ppo_lab.adapters.ids import find_spec, make_single
from ppo_lab.adapters.single import SingleEnvs
from ppo_lab.config import Config, EnvConfig
from ppo_lab.errors import ConfigError
from ppo_lab.evaluation.evaluate import Acting
from ppo_lab.notebook.plots.canvas import TEXT, number, style, to_png
from ppo_lab.notebook.static import as_bundle

WIDTH = 300  # pixels, about
MOST_FRAMES = 150
MOST_BYTES = 150_000
MOST_LINES = 8  # of the plot that stands in for a picture


@dataclass(frozen=True)
class Episode:
    """One episode. A notebook shows the picture and the caption; `png` is the animated (or static) PNG."""

    png: bytes
    caption: str
    episode_return: float  # undiscounted sum of the raw rewards
    length: int  # env steps
    terminated: bool  # the task ended; False: it was cut off

    def __repr__(self) -> str:
        return self.caption

    def _ipython_display_(self) -> None:
        display(as_bundle(self.png, self.caption), raw=True)
        print(self.caption)


def show_episode(
    policy: Acting,
    env: str | EnvConfig | Config,
    seed: int = 1,
    deterministic: bool = True,
    max_steps: int = 2_000,
) -> Episode:
    """Play one episode in an environment made for it, and draw it. Nothing else is disturbed.

    env: an id or settings, as `ppo_lab.evaluate` takes them. Where it cannot be drawn, the observation is plotted.
    seed: the environment and sampled actions follow from it.
    max_steps: an episode that is still going then is cut off here.
    Raises ConfigError or EnvError if the environment cannot be made.
    """
    settings = _settings(env)
    if max_steps < 1:
        raise ConfigError(f"max_steps: at least 1, got {max_steps}")
    single = _make(settings)
    envs = SingleEnvs([single])
    try:
        film = Film(single) if single.render_mode == "rgb_array" else None
        played = _play(policy, envs, seed, deterministic, max_steps, film)
    finally:
        envs.close()
    rewards, terminated, truncated, observations = played
    how = "ended" if terminated else "cut off by the environment" if truncated else f"cut off after {max_steps} steps"
    total, length = float(np.sum(rewards)), len(rewards)
    caption = f"{settings.id}, seed {seed}: return {number(total, digits=4)} in {length} steps, {how}"
    png = film.png() if film is not None and film.problem is None else _state_plot(observations, rewards)
    if film is not None and film.problem is not None:
        caption += f" (cannot be drawn: {film.problem})"
    return Episode(png, caption, total, length, terminated)


class Film:
    """Collects frames of an episode of unknown length: evenly spaced, never more than 2 * MOST_FRAMES of them."""

    def __init__(self, env: gymnasium.Env) -> None:
        self._env = env
        self._frames: list[Image.Image] = []
        self._stride = 1  # env steps between two frames
        self._fps = float(env.metadata.get("render_fps") or 30)
        self.problem: str | None = None  # why there is no picture

    def shoot(self, step: int) -> None:
        """Take the environment's picture before its step number `step`."""
        if self.problem is not None or step % self._stride:
            return
        try:
            image = Image.fromarray(np.asarray(self._env.render(), dtype=np.uint8))
        except Exception as error:  # third-party code: a missing package, no display, ...
            self.problem = f"{type(error).__name__}: {error}"
            return
        self._frames.append(image.convert("RGB").reduce(max(1, round(image.width / WIDTH))))
        if len(self._frames) > 2 * MOST_FRAMES:
            self._thin()

    def png(self) -> bytes:
        """The film in real time, as animated PNG of at most MOST_FRAMES frames and about MOST_BYTES."""
        while len(self._frames) > MOST_FRAMES:
            self._thin()
        data = self._encode(colours=32)
        for colours in (16, 8):
            if len(data) > MOST_BYTES:
                data = self._encode(colours)
        while len(data) > MOST_BYTES and len(self._frames) > 10:
            self._thin()
            data = self._encode(colours=16)
        return data

    def _thin(self) -> None:
        self._frames = self._frames[::2]
        self._stride *= 2

    def _encode(self, colours: int) -> bytes:
        """One palette for all frames, so that what does not move costs nothing."""
        first = self._frames[0]
        samples = self._frames[:: max(1, len(self._frames) // 6)]  # a colour may come late: the arrow of the pendulum
        strip = Image.new("RGB", (first.width, first.height * len(samples)))
        for place, frame in enumerate(samples):
            strip.paste(frame, (0, place * first.height))
        palette = strip.quantize(colours)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self._frames]
        milliseconds = 1000.0 * self._stride / self._fps
        durations = [milliseconds] * (len(frames) - 1) + [max(milliseconds, 1000.0)]  # stand still before it repeats
        buffer = io.BytesIO()
        frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:], duration=durations, loop=0)
        return buffer.getvalue()


@torch.no_grad()
def _play(
    policy: Acting, envs: SingleEnvs, seed: int, deterministic: bool, max_steps: int, film: Film | None
) -> tuple[list[float], bool, bool, list[np.ndarray]]:
    """Rewards, how it ended, and the observations of one episode."""
    device = torch.device(getattr(policy, "device", "cpu"))
    generator = Generator(device).manual_seed(seed)
    memory, obs = policy.initial_memory(1), envs.reset(seed)  # obs (1, *obs)
    starts = torch.ones(1, dtype=torch.bool, device=device)
    rewards: list[float] = []
    observations: list[np.ndarray] = []
    while len(rewards) < max_steps:
        if film is not None:
            film.shoot(len(rewards))  # before the step: after the last one the next episode has begun already
        observations.append(obs[0].cpu().numpy().reshape(-1).copy())
        action, memory = policy.act(obs.to(device), memory, starts, deterministic=deterministic, generator=generator)
        step = envs.step(action.cpu())
        rewards.append(float(step.reward[0]))
        if step.terminated[0] or step.truncated[0]:
            return rewards, bool(step.terminated[0]), bool(step.truncated[0]), observations
        starts, obs = torch.zeros_like(starts), step.obs
    return rewards, False, False, observations


def _settings(env: str | EnvConfig | Config) -> EnvConfig:
    if isinstance(env, str):
        return EnvConfig(id=env)
    if isinstance(env, Config):
        return env.env
    if not isinstance(env, EnvConfig):
        raise ConfigError(f"env: an environment id, EnvConfig or Config, got {type(env).__name__}")
    return env


def _make(settings: EnvConfig) -> gymnasium.Env:
    """The environment, with pictures if it has any."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame needs no window for an array
    spec = find_spec(settings.id, settings.allow_import)
    env = make_single(spec, settings.kwargs)
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        return env
    env.close()
    return make_single(spec, {**settings.kwargs, "render_mode": "rgb_array"})


def _state_plot(observations: list[np.ndarray], rewards: list[float]) -> bytes:
    """Observation and reward over the steps of an episode, as static PNG."""
    figure = Figure(figsize=(8.0, 2.6), facecolor="none")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    figure.subplots_adjust(left=0.08, right=0.98, top=0.88, bottom=0.18, wspace=0.25)
    values: Any = np.stack(observations)[:, :MOST_LINES]  # (steps, components)
    for component in range(values.shape[1]):
        left.plot(values[:, component], linewidth=1.2, label=f"obs[{component}]")
    right.plot(rewards, linewidth=1.2)
    left.legend(fontsize=7, frameon=False, labelcolor=TEXT, ncols=2)
    for ax, title, unit in ((left, "What it saw", "observation"), (right, "What it got", "reward")):
        style(ax)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("step", color=TEXT, fontsize=8)
        ax.set_ylabel(unit, color=TEXT, fontsize=8)
        ax.set_title(title, loc="left", fontsize=9, color=TEXT)
    return to_png(figure)
