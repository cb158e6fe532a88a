"""Draws one step of an episode: the scene, the value estimate and the action distribution. Uses only Pillow, for speed.

The background is transparent and the text grey, so that the picture is readable on a light and on a dark page.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ppo_lab.notebook.agent.action_picture import PANEL, actions_height, draw_actions
from ppo_lab.notebook.agent.drawing import empty, font, line, name_of, title
from ppo_lab.notebook.data.action_arrays import ActionPart
from ppo_lab.notebook.plots.canvas import TEXT, number

SCENE = (400, 300)  # pixels: the frame of the environment is scaled to fit
GAP, EDGE = 20, 4
SPARK = (PANEL - 50, 48)  # size of the plot of the value over the episode
MOST_COMPONENTS = 8  # of an observation that is drawn in place of a frame
NAMES = 66  # pixels: width of the names of its components


class Thought(NamedTuple):
    """The value estimate and the action distribution of a policy for one observation."""

    value: float  # V(s)
    parts: tuple[ActionPart, ...]  # the action distribution; `taken` in units of the environment


def scene_of(frame: Image.Image, size: tuple[int, int] = SCENE) -> Image.Image:
    """Scale a frame to fit `size` (width, height): smoothly if it shrinks, by an integer factor if it grows."""
    factor = min(size[0] / frame.width, size[1] / frame.height)
    if factor >= 1.0:
        return frame.resize((frame.width * int(factor), frame.height * int(factor)), Image.Resampling.NEAREST)
    fitted = (max(1, round(frame.width * factor)), max(1, round(frame.height * factor)))
    return frame.resize(fitted, Image.Resampling.BILINEAR)


def scene_of_state(
    observations: np.ndarray, components: int, size: tuple[int, int] = SCENE, names: Sequence[str] = ()
) -> Image.Image:
    """Draw the components of the observation over time, in place of a frame.

    observations: (steps, shown), of `components` in total. names: of those shown; if empty, obs[0], obs[1], ...
    """
    image, draw = empty(size)
    shown = observations[:, :MOST_COMPONENTS]
    some = f", {shown.shape[1]} of {components} numbers" if components > shown.shape[1] else ""
    title(draw, 0, "Observation", f"each on its own scale{some}")
    height = min(60, (size[1] - 22) // max(1, shown.shape[1]))
    for i in range(shown.shape[1]):
        top = 22 + i * height
        name_of(draw, (0, top + height // 2), names[i] if names else f"obs[{i}]", NAMES - 4)
        line(image, (NAMES, top + 3), (size[0] - NAMES - 62, height - 6), shown[:, i])
        draw.text((size[0], top + height // 2), number(float(shown[-1, i]), 3), TEXT, font(12), anchor="rm")
    return image


def compose(
    scene: Image.Image, thought: Thought, values: Sequence[float], step: int, total: float, note: str = ""
) -> Image.Image:
    """Draw the scene and, beside it, the value estimate and the action distribution. Return an RGBA image.

    values: V(s) at every step of the episode so far. step: index of the next env step, from 0. total: sum of the raw
    rewards so far. note: a line of text, such as the name of the policy.
    """
    height = max(scene.height, 128 + actions_height(thought.parts))
    image, draw = empty((scene.width + GAP + PANEL + EDGE, height))
    image.paste(scene, (0, 0))
    left = scene.width + GAP
    draw.text((left, 0), f"step {step:,}, return so far {number(total, 4)}", TEXT, font(13))
    draw.text((left, 18), note, TEXT, font(11))
    title(draw, 40, "Value estimate", f"V(s) = {number(thought.value, 3)}", left)
    line(image, (left, 60), SPARK, np.asarray(values), ends=True)
    draw_actions(image, draw, left, 120, thought.parts)
    return image


def to_png(image: Image.Image) -> bytes:
    """Encode as PNG with little compression: fast, for a frame that is shown only briefly."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def placeholder(text: str) -> bytes:
    """Draw a text in the size of a frame, as PNG, to show until the first frame exists."""
    image, draw = empty((SCENE[0] + GAP + PANEL + EDGE, SCENE[1]))
    draw.text((SCENE[0] // 2, SCENE[1] // 2), text, TEXT, font(13), anchor="mm")
    return to_png(image)
