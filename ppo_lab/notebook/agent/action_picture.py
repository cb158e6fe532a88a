"""Draws the action distribution beside a scene: a bar per discrete action, or a row per component of the action."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from ppo_lab.notebook.agent.drawing import FAINT, dot, font, name_of, title
from ppo_lab.notebook.data.action_arrays import ActionPart, Number, count, numbers_of
from ppo_lab.notebook.plots.canvas import BLUE, TEXT, number

PANEL = 296  # pixels: width of the panel beside a scene
MOST_ACTIONS = 8
MOST_DIMS = 6
LABEL, BAR, ROW, WIDE_ROW = 66, 176, 18, 30  # pixels: width of a name and of a bar, height of a row


def draw_actions(
    image: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, parts: Sequence[ActionPart]
) -> None:
    """Draw a title and, below it, the action distribution for one observation, one row per component."""
    shown = numbers_of(parts, MOST_DIMS)
    title(draw, top, "Action", _legend(shown), left)
    top += 20
    if _alone(parts):
        _probabilities(image, draw, left, top, shown[0])
        return
    for row, one in enumerate(shown):
        (_strip if one.probabilities is not None else _interval)(image, draw, left, top + row * WIDE_ROW, one)
    if count(parts) > len(shown):
        place = (left + 12, top + MOST_DIMS * WIDE_ROW + ROW // 2)
        draw.text(place, f"and {count(parts) - len(shown)} more numbers", TEXT, font(12), anchor="lm")


def _alone(parts: Sequence[ActionPart]) -> bool:
    """Return whether the action is a single discrete choice, which gets one bar per probability."""
    return count(parts) == 1 and parts[0].probabilities is not None


def _legend(shown: Sequence[Number]) -> str:
    kinds = {one.probabilities is not None: None for one in shown}
    return ", ".join("probability" if chances else "mean ± std" for chances in kinds) + "; dot: taken"


def actions_height(parts: Sequence[ActionPart]) -> int:
    """Return the height in pixels that `draw_actions` needs below its title."""
    if _alone(parts):
        size = parts[0].sizes[0]
        return 12 + ROW * (min(size, MOST_ACTIONS) + (size > MOST_ACTIONS))
    size = count(parts)
    return 12 + WIDE_ROW * min(size, MOST_DIMS) + ROW * (size > MOST_DIMS)


def _probabilities(image: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, one: Number) -> None:
    """Draw a bar for each action; with more than MOST_ACTIONS only the most likely ones and the one taken."""
    assert one.probabilities is not None
    chances, taken = one.probabilities, int(one.taken) - one.first
    shown = np.arange(len(chances))
    if len(chances) > MOST_ACTIONS:
        shown = np.argsort(-chances, kind="stable")[:MOST_ACTIONS]
        if taken not in shown:
            shown[-1] = taken
    for row, action in enumerate(shown.tolist()):
        middle, chance = top + row * ROW + ROW // 2, float(chances[action])
        draw.text((left + 12, middle), f"action {action + one.first}", TEXT, font(12), anchor="lm")
        begin = left + LABEL + 4
        draw.rectangle((begin, middle - 5, begin + BAR, middle + 5), fill=FAINT)
        if round(chance * BAR):
            draw.rectangle((begin, middle - 5, begin + round(chance * BAR), middle + 5), fill=BLUE)
        draw.text((left + PANEL, middle), f"{chance:.0%}", TEXT, font(12), anchor="rm")
        if action == taken:
            dot(image, left + 4, middle)
    if len(chances) > len(shown):
        rest = f"and {len(chances) - len(shown)} more: {max(0.0, 1.0 - float(chances[shown].sum())):.0%}"
        draw.text((left + 12, top + MOST_ACTIONS * ROW + ROW // 2), rest, TEXT, font(12), anchor="lm")


def _strip(image: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, one: Number) -> None:
    """Draw the probabilities of one discrete component as segments of one bar, with a dot on the value taken."""
    assert one.probabilities is not None
    begin, middle, taken = left + LABEL + 4, top + 9, int(one.taken) - one.first
    name_of(draw, (left + 12, middle), one.name, LABEL - 12)
    edges = begin + np.concatenate([[0.0], one.probabilities.cumsum()]) * BAR  # (n + 1,)
    free = begin  # where the next label may start
    for i, (a, b) in enumerate(pairwise(edges.round().astype(int).tolist())):
        if a == b:
            continue
        draw.rectangle((a, middle - 5, b - 1, middle + 5), fill=FAINT if i % 2 else BLUE)
        text, center = str(i + one.first), (a + b) // 2
        half = draw.textlength(text, font(10)) / 2
        if center - half >= free and center + half <= begin + BAR:
            draw.text((center, middle + 6), text, TEXT, font(10), anchor="ma")
            free = center + half + 4
    dot(image, round((edges[taken] + edges[taken + 1]) / 2), middle)
    draw.text((left + PANEL, middle), str(int(one.taken)), TEXT, font(12), anchor="rm")


def _interval(image: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, one: Number) -> None:
    """Draw mean +- std of one continuous component of the action between its bounds."""
    assert one.mean is not None
    assert one.std is not None
    begin, end = left + LABEL + 4, left + LABEL + 4 + BAR
    middle, (low, high) = top + 9, _range(one)
    mean, std, taken = float(one.mean), float(one.std), float(one.taken)
    ends = np.clip([mean - std, mean + std, mean, taken], low, high)
    a, b, at, spot = (begin + (ends - low) / (high - low) * BAR).tolist()
    name_of(draw, (left + 12, middle), one.name, LABEL - 12)
    draw.line((begin, middle, end, middle), fill=FAINT, width=1)
    for edge in (begin, end):
        draw.line((edge, middle - 4, edge, middle + 4), fill=TEXT, width=1)
    draw.rectangle((a, middle - 4, b, middle + 4), fill=BLUE)
    draw.line((at, middle - 7, at, middle + 7), fill=TEXT, width=2)
    dot(image, round(spot), middle)
    draw.text((begin, middle + 6), number(low), TEXT, font(10), anchor="ma")
    draw.text((end, middle + 6), number(high), TEXT, font(10), anchor="ma")
    draw.text((left + PANEL, middle), number(taken), TEXT, font(12), anchor="rm")


def _range(one: Number) -> tuple[float, float]:
    """Return the limits of the axis: the bounds of the component, or a power of two wide enough for what is drawn."""
    assert one.mean is not None
    assert one.std is not None
    reach = max(abs(float(one.mean)) + 2 * float(one.std), abs(float(one.taken)), 1e-3)
    low, high, wide = one.low, one.high, 2.0 ** np.ceil(np.log2(reach))
    low = low if np.isfinite(low) else min(-wide, high - 1.0)
    high = high if np.isfinite(high) else max(wide, low + 1.0)
    return low, max(high, low + 1e-6)
