"""Draw a drive: target, actual lateral acceleration and steering."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

BACK, AHEAD = 30, 49  # rows shown before and after the current one
SPAN = 2.5  # m/s^2 from the middle to the edge
ASKED, DONE, STEERING = "#1a73e8", "#e8710a", "#3c4043"


def draw(target: np.ndarray, lataccel: np.ndarray, actions: np.ndarray, row: int) -> np.ndarray:
    """Draw rows (T,) as (200, 300, 3) uint8: target in blue, car in orange, the steering command as a bar below."""
    width, height, road = 600, 400, 330  # drawn at twice the size and shrunk, for smooth edges
    image = Image.new("RGB", (width, height), "#fafafa")
    pen = ImageDraw.Draw(image)

    def points(values: np.ndarray, start: int, stop: int) -> list[tuple[float, float]]:
        rows = np.arange(max(start, 0), min(stop, len(values)))
        x = (rows - row + BACK + 1) / (BACK + AHEAD + 1) * width
        y = road / 2 * (1 - np.clip(values[rows] / SPAN, -1, 1))
        return list(zip(x.tolist(), y.tolist(), strict=True))

    now = (BACK + 1) / (BACK + AHEAD + 1) * width
    pen.line((0, road / 2, width, road / 2), fill="#dadce0", width=2)
    pen.line((now, 0, now, road), fill="#dadce0", width=2)
    pen.line(points(target, row - BACK, row + AHEAD + 1), fill=ASKED, width=5)
    driven = points(lataccel, row - BACK, row)
    pen.line(driven, fill=DONE, width=5)
    x, y = driven[-1]
    pen.ellipse((x - 8, y - 8, x + 8, y + 8), fill=DONE)
    middle, command = width / 2, float(actions[row - 1])
    pen.line((30, 365, width - 30, 365), fill="#dadce0", width=4)
    pen.rectangle(sorted_box(middle, middle - command / 2 * (middle - 30), 350, 380), fill=STEERING)
    return np.array(image.resize((width // 2, height // 2), Image.Resampling.BOX))


def sorted_box(x0: float, x1: float, top: float, bottom: float) -> tuple[float, float, float, float]:
    """Return a rectangle with its left side first."""
    return min(x0, x1), top, max(x0, x1), bottom
