"""What an agent sees and thinks, as one small picture: made from arrays, with Pillow alone, in a few milliseconds.

The background is transparent and the text grey, so that it reads on a light and on a dark page.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ppo_lab.notebook.plots.canvas import BLUE, TEXT, VERMILLION, number
from ppo_lab.notebook.plots.intention import Intention, Number, count, numbers_of

SCENE = (400, 300)  # pixels: what the frame of the environment is fitted into
PANEL = 296  # pixels: width of what stands beside it
GAP, EDGE = 20, 4
SPARK = (PANEL - 50, 48)  # the value over the episode
SHORTEST = 100  # steps that fill the width of a line; a longer episode is squeezed into it
MOST_COMPONENTS = 8  # of an observation that stands in for a frame
MOST_ACTIONS = 8
MOST_DIMS = 6
LABEL, BAR, ROW, WIDE_ROW = 66, 176, 18, 30  # of an action: width of its name, of its bar, height of its row
FINE = 3  # lines and dots are drawn this many times as big and shrunk, for smooth edges
FAINT = (*ImageColor.getrgb(TEXT), 70)


class Thought(NamedTuple):
    """What a policy made of one observation."""

    value: float  # V(s)
    parts: tuple[Intention, ...]  # what it would do; `taken` as the environment got it


def scene_of(frame: Image.Image, size: tuple[int, int] = SCENE) -> Image.Image:
    """A frame fitted into `size`: shrunk smoothly, or blown up by a whole factor."""
    factor = min(size[0] / frame.width, size[1] / frame.height)
    if factor >= 1.0:
        return frame.resize((frame.width * int(factor), frame.height * int(factor)), Image.Resampling.NEAREST)
    fitted = (max(1, round(frame.width * factor)), max(1, round(frame.height * factor)))
    return frame.resize(fitted, Image.Resampling.BILINEAR)


def scene_of_state(
    observations: np.ndarray, components: int, size: tuple[int, int] = SCENE, names: Sequence[str] = ()
) -> Image.Image:
    """In place of a frame: how the observation went.

    observations: (steps, shown) of `components` in all. names: of those shown; none: obs[0], obs[1], ...
    """
    image, draw = _empty(size)
    shown = observations[:, :MOST_COMPONENTS]
    some = f", {shown.shape[1]} of {components} numbers" if components > shown.shape[1] else ""
    _title(draw, 0, "What it sees", f"each on its own scale{some}")
    height = min(60, (size[1] - 22) // max(1, shown.shape[1]))
    for i in range(shown.shape[1]):
        top = 22 + i * height
        _name(draw, (0, top + height // 2), names[i] if names else f"obs[{i}]", LABEL - 4)
        _line(image, (LABEL, top + 3), (size[0] - LABEL - 62, height - 6), shown[:, i])
        draw.text((size[0], top + height // 2), number(float(shown[-1, i]), 3), TEXT, _font(12), anchor="rm")
    return image


def compose(
    scene: Image.Image, thought: Thought, values: Sequence[float], step: int, total: float, note: str = ""
) -> Image.Image:
    """The scene, and beside it what the agent expects and what it would do; RGBA.

    values: V(s) at every step of the episode so far. step: the number of the step about to be taken, from 0; total: the
    raw rewards so far, summed. note: a line of text, such as which policy this is.
    """
    height = max(scene.height, 128 + _actions_height(thought))
    image, draw = _empty((scene.width + GAP + PANEL + EDGE, height))
    image.paste(scene, (0, 0))
    left = scene.width + GAP
    draw.text((left, 0), f"step {step:,}, return so far {number(total, 4)}", TEXT, _font(13))
    draw.text((left, 18), note, TEXT, _font(11))
    _title(draw, 40, "What it expects", f"V(s) = {number(thought.value, 3)}", left)
    _line(image, (left, 60), SPARK, np.asarray(values), ends=True)
    shown = numbers_of(thought.parts, MOST_DIMS)
    _title(draw, 120, "What it would do", _legend(shown), left)
    if _alone(thought):
        _probabilities(image, draw, left, 140, shown[0])
    else:
        for row, one in enumerate(shown):
            (_strip if one.probabilities is not None else _interval)(image, draw, left, 140 + row * WIDE_ROW, one)
        if count(thought.parts) > len(shown):
            place = (left + 12, 140 + MOST_DIMS * WIDE_ROW + ROW // 2)
            draw.text(place, f"and {count(thought.parts) - len(shown)} more numbers", TEXT, _font(12), anchor="lm")
    return image


def to_png(image: Image.Image) -> bytes:
    """For a frame that is gone in a moment: encoded fast."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def placeholder(text: str) -> bytes:
    """A picture for as long as there is none."""
    image, draw = _empty((SCENE[0] + GAP + PANEL + EDGE, SCENE[1]))
    draw.text((SCENE[0] // 2, SCENE[1] // 2), text, TEXT, _font(13), anchor="mm")
    return to_png(image)


def _alone(thought: Thought) -> bool:
    """The action is one choice, and each of its probabilities has room for a bar of its own."""
    return count(thought.parts) == 1 and thought.parts[0].probabilities is not None


def _legend(shown: Sequence[Number]) -> str:
    kinds = {one.probabilities is not None: None for one in shown}
    return ", ".join("probability" if chances else "mean ± std" for chances in kinds) + "; dot: taken"


def _actions_height(thought: Thought) -> int:
    if _alone(thought):
        size = thought.parts[0].sizes[0]
        return 12 + ROW * (min(size, MOST_ACTIONS) + (size > MOST_ACTIONS))
    size = count(thought.parts)
    return 12 + WIDE_ROW * min(size, MOST_DIMS) + ROW * (size > MOST_DIMS)


def _probabilities(image: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, one: Number) -> None:
    """A bar for each action; beyond MOST_ACTIONS the most likely ones, and the one taken."""
    assert one.probabilities is not None
    chances, taken = one.probabilities, int(one.taken) - one.first
    shown = np.arange(len(chances))
    if len(chances) > MOST_ACTIONS:
        shown = np.argsort(-chances, kind="stable")[:MOST_ACTIONS]
        if taken not in shown:
            shown[-1] = taken
    for row, action in enumerate(shown.tolist()):
        middle, chance = top + row * ROW + ROW // 2, float(chances[action])
        draw.text((left + 12, middle), f"action {action + one.first}", TEXT, _font(12), anchor="lm")
        begin = left + LABEL + 4
        draw.rectangle((begin, middle - 5, begin + BAR, middle + 5), fill=FAINT)
        if round(chance * BAR):
            draw.rectangle((begin, middle - 5, begin + round(chance * BAR), middle + 5), fill=BLUE)
        draw.text((left + PANEL, middle), f"{chance:.0%}", TEXT, _font(12), anchor="rm")
        if action == taken:
            _dot(image, left + 4, middle)
    if len(chances) > len(shown):
        rest = f"and {len(chances) - len(shown)} more: {max(0.0, 1.0 - float(chances[shown].sum())):.0%}"
        draw.text((left + 12, top + MOST_ACTIONS * ROW + ROW // 2), rest, TEXT, _font(12), anchor="lm")


def _strip(image: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, one: Number) -> None:
    """The probabilities of one choice of several, side by side in one bar; the dot is on the one taken."""
    assert one.probabilities is not None
    begin, middle, taken = left + LABEL + 4, top + 9, int(one.taken) - one.first
    _name(draw, (left + 12, middle), one.name, LABEL - 12)
    edges = begin + np.concatenate([[0.0], one.probabilities.cumsum()]) * BAR  # (n + 1,)
    free = begin  # the next number may stand from here
    for i, (a, b) in enumerate(pairwise(edges.round().astype(int).tolist())):
        if a == b:
            continue
        draw.rectangle((a, middle - 5, b - 1, middle + 5), fill=FAINT if i % 2 else BLUE)
        text, center = str(i + one.first), (a + b) // 2
        half = draw.textlength(text, _font(10)) / 2
        if center - half >= free and center + half <= begin + BAR:
            draw.text((center, middle + 6), text, TEXT, _font(10), anchor="ma")
            free = center + half + 4
    _dot(image, round((edges[taken] + edges[taken + 1]) / 2), middle)
    draw.text((left + PANEL, middle), str(int(one.taken)), TEXT, _font(12), anchor="rm")


def _interval(image: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, one: Number) -> None:
    """Mean +- std between the bounds, of one number of the action."""
    assert one.mean is not None
    assert one.std is not None
    begin, end = left + LABEL + 4, left + LABEL + 4 + BAR
    middle, (low, high) = top + 9, _range(one)
    mean, std, taken = float(one.mean), float(one.std), float(one.taken)
    ends = np.clip([mean - std, mean + std, mean, taken], low, high)
    a, b, at, dot = (begin + (ends - low) / (high - low) * BAR).tolist()
    _name(draw, (left + 12, middle), one.name, LABEL - 12)
    draw.line((begin, middle, end, middle), fill=FAINT, width=1)
    for edge in (begin, end):
        draw.line((edge, middle - 4, edge, middle + 4), fill=TEXT, width=1)
    draw.rectangle((a, middle - 4, b, middle + 4), fill=BLUE)
    draw.line((at, middle - 7, at, middle + 7), fill=TEXT, width=2)
    _dot(image, round(dot), middle)
    draw.text((begin, middle + 6), number(low), TEXT, _font(10), anchor="ma")
    draw.text((end, middle + 6), number(high), TEXT, _font(10), anchor="ma")
    draw.text((left + PANEL, middle), number(taken), TEXT, _font(12), anchor="rm")


def _range(one: Number) -> tuple[float, float]:
    """The bounds of a number; where there are none, the power of two that holds what is drawn."""
    assert one.mean is not None
    assert one.std is not None
    reach = max(abs(float(one.mean)) + 2 * float(one.std), abs(float(one.taken)), 1e-3)
    low, high, wide = one.low, one.high, 2.0 ** np.ceil(np.log2(reach))
    low = low if np.isfinite(low) else min(-wide, high - 1.0)
    high = high if np.isfinite(high) else max(wide, low + 1.0)
    return low, max(high, low + 1e-6)


def _line(
    image: Image.Image, corner: tuple[int, int], size: tuple[int, int], values: np.ndarray, ends: bool = False
) -> None:
    """A smooth line over the steps of an episode, with its last point; ends: and its largest and smallest value."""
    width, height = size
    steps = np.arange(len(values))
    if len(values) > width // 2:
        steps = np.linspace(0, len(values) - 1, width // 2).round().astype(int)
    shown = np.asarray(values, dtype=float)[steps]
    low, high = (float(np.min(shown)), float(np.max(shown))) if len(shown) else (0.0, 0.0)
    span = high - low
    x = 4 + steps / max(len(values) - 1, SHORTEST) * (width - 9)
    y = 4 + (high - shown) / span * (height - 9) if span > 1e-6 * max(1.0, abs(high)) else np.full(len(x), height / 2)
    mask = Image.new("L", (width * FINE, height * FINE))
    points = np.stack([x, y], axis=1).reshape(-1) * FINE
    ImageDraw.Draw(mask).line(points.tolist(), fill=255, width=5)
    image.paste(BLUE, corner, mask.reduce(FINE))
    if len(x):
        _dot(image, corner[0] + round(float(x[-1])), corner[1] + round(float(y[-1])), BLUE)
    if ends and span > 0.0:
        draw = ImageDraw.Draw(image)
        draw.text((corner[0] + width + 50, corner[1]), number(high, 3), TEXT, _font(10), anchor="ra")
        draw.text((corner[0] + width + 50, corner[1] + height), number(low, 3), TEXT, _font(10), anchor="rd")


def _name(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """A name left of its row, its middle cut out where it is wider than there is room."""
    shown, keep = text, len(text)
    while keep > 2 and draw.textlength(shown, _font(12)) > width:
        keep -= 1
        shown = f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"
    draw.text(place, shown, TEXT, _font(12), anchor="lm")


def _title(draw: ImageDraw.ImageDraw, top: int, title: str, detail: str, left: int = 0) -> None:
    draw.text((left, top), title, TEXT, _font(13))
    draw.text((left + 8 + draw.textlength(title, _font(13)), top + 2), detail, TEXT, _font(11))


def _dot(image: Image.Image, x: int, y: int, color: str = VERMILLION) -> None:
    mask = _disc()
    image.paste(color, (x - mask.width // 2, y - mask.height // 2), mask)


def _empty(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGBA", size)
    return image, ImageDraw.Draw(image)


@lru_cache
def _disc() -> Image.Image:
    mask = Image.new("L", (9 * FINE, 9 * FINE))
    ImageDraw.Draw(mask).ellipse((FINE, FINE, 8 * FINE - 1, 8 * FINE - 1), fill=255)
    return mask.reduce(FINE)


@lru_cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
