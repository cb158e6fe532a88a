"""Drawing primitives for pictures of an agent: lines, dots and text on a transparent image, with Pillow."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ppo_lab.notebook.plots.canvas import BLUE, TEXT, VERMILLION, number

SHORTEST = 100  # steps that fill the width of a line; longer episodes are compressed to fit
FINE = 3  # lines and dots are drawn this many times larger and shrunk, for smooth edges
FAINT = (*ImageColor.getrgb(TEXT), 70)


def line(
    image: Image.Image, corner: tuple[int, int], size: tuple[int, int], values: np.ndarray, ends: bool = False
) -> None:
    """Draw values (steps,) as a smooth line with a dot on the last point.

    ends: also print the largest and the smallest value.
    """
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
        dot(image, corner[0] + round(float(x[-1])), corner[1] + round(float(y[-1])), BLUE)
    if ends and span > 0.0:
        draw = ImageDraw.Draw(image)
        draw.text((corner[0] + width + 50, corner[1]), number(high, 3), TEXT, font(10), anchor="ra")
        draw.text((corner[0] + width + 50, corner[1] + height), number(low, 3), TEXT, font(10), anchor="rd")


def name_of(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """Draw a name to the left of its row; the middle of a name wider than `width` pixels is replaced by an ellipsis."""
    shown, keep = text, len(text)
    while keep > 2 and draw.textlength(shown, font(12)) > width:
        keep -= 1
        shown = f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"
    draw.text(place, shown, TEXT, font(12), anchor="lm")


def title(draw: ImageDraw.ImageDraw, top: int, text: str, detail: str, left: int = 0) -> None:
    """Draw a heading and, to its right, a detail in a smaller font."""
    draw.text((left, top), text, TEXT, font(13))
    draw.text((left + 8 + draw.textlength(text, font(13)), top + 2), detail, TEXT, font(11))


def dot(image: Image.Image, x: int, y: int, color: str = VERMILLION) -> None:
    """Draw a round dot centred at (x, y)."""
    mask = disc()
    image.paste(color, (x - mask.width // 2, y - mask.height // 2), mask)


def empty(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Create a transparent RGBA image of size (width, height) and an object to draw on it."""
    image = Image.new("RGBA", size)
    return image, ImageDraw.Draw(image)


@lru_cache
def disc() -> Image.Image:
    """Return the antialiased mask of a dot."""
    mask = Image.new("L", (9 * FINE, 9 * FINE))
    ImageDraw.Draw(mask).ellipse((FINE, FINE, 8 * FINE - 1, 8 * FINE - 1), fill=255)
    return mask.reduce(FINE)


@lru_cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return Pillow's built-in font at a size in pixels: it is the same on every machine."""
    return ImageFont.load_default(size)
