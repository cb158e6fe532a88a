"""Sliders for the settings that may change while training runs, built from their ranges in the config."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np

from ppo_lab.config import LIVE, PPOConfig
from ppo_lab.errors import ConfigError, LabError

MOST_STEPS = 50  # of a linear slider
PER_DECADE = (1.0, 1.3, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.3, 8.0)  # of a logarithmic one: equal ratios, rounded


def slider_values(key: str, current: float) -> list[float]:
    """Return the values that a slider for ppo.<key> offers, ascending, including exactly `current`.

    Raises ConfigError for a key that is not live.
    """
    if key not in LIVE:
        raise ConfigError(f"{key!r} cannot change while training runs; live keys: {', '.join(LIVE)}")
    extra: Any = PPOConfig.model_fields[key].json_schema_extra
    low, high, scale = (extra["slider"][part] for part in ("low", "high", "scale"))
    if scale == "log":
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        grid = [float(f"{mantissa}e{exponent}") for exponent in exponents for mantissa in PER_DECADE]
    else:
        step = _round_step((high - low) / MOST_STEPS)
        if PPOConfig.model_fields[key].annotation is int:
            step = max(round(step), 1)
        grid = [round(float(value), 10) for value in np.arange(low, high, step)]
    inside = {value for value in grid if low <= value <= high}
    values = sorted(inside | {float(low), float(high), float(current)})
    return [int(value) for value in values] if PPOConfig.model_fields[key].annotation is int else values


def slider_label(value: float) -> str:
    """Format a value as the slider shows it: 0.2, 3.2e-4."""
    if value and abs(value) < 0.01:
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


class Slider:
    """One setting: its slider, and a note with the value in force."""

    def __init__(
        self, key: str, current: float, change: Callable[[str, Any], None], lock: AbstractContextManager[Any]
    ) -> None:
        """Create the widgets.

        change: called with key and value when the user has moved the slider. It may raise LabError.
        lock: reentrant; its owner holds it during `show`, so that moves by the user and by the program do not mix.
        """
        self.key = key
        self._change, self._lock = change, lock
        self._asked_for = current  # the last requested value known here, whatever its source
        self._moving = False  # the program, not the user, moves it
        # A SelectionSlider, not a FloatSlider: a FloatSlider rounds its value to its own grid when the browser draws
        # it and sends the rounded value back, which changes a setting that the user has not touched.
        self.slider = widgets.SelectionSlider(
            options=_options(key, current),
            value=current,
            description=key,
            continuous_update=False,  # one change per drag
            tooltip=PPOConfig.model_fields[key].description,
            style={"description_width": "120px"},
            layout={"width": "330px"},
        )
        self.note = widgets.HTML(layout={"margin": "-6px 0 0 98px", "height": "22px"})
        self.slider.observe(self._moved, names="value")
        self.widget = widgets.VBox([self.slider, self.note])

    def show(self, in_force: float, pending: float | None, requested: float) -> None:
        """Show the value in force, and the pending one if there is one, below the slider.

        requested: the setting as the last change left it. The slider moves there if that change came from elsewhere.
        """
        used = slider_label(float(f"{in_force:.3g}"))
        if pending is not None:
            self.note.value = f"<i>pending: {slider_label(pending)}; in force: {used}</i>"
        else:
            self.note.value = f"in force: {used}"
        if requested != self._asked_for:
            self._move_to(requested)

    def close(self) -> None:
        """Close the widgets."""
        for widget in (self.slider, self.note, self.widget):
            widget.close()

    def _move_to(self, value: float) -> None:
        """Move the slider without reporting a change."""
        self._asked_for = value
        self._moving = True
        try:
            if value not in {offered for _, offered in self.slider.options}:
                self.slider.options = _options(self.key, value)
            self.slider.value = value
        finally:
            self._moving = False

    def _moved(self, change: Any) -> None:
        with self._lock:
            if self._moving or change["new"] == self._asked_for:
                return
            before, self._asked_for = self._asked_for, change["new"]
            try:
                self._change(self.key, change["new"])
            except LabError as error:
                self._move_to(before)
                self.note.value = f"<b>{escape(str(error))}</b>"


def _options(key: str, current: float) -> list[tuple[str, float]]:
    return [(slider_label(value), value) for value in slider_values(key, current)]


def _round_step(step: float) -> float:
    """Round `step` up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step) + 1e-9)
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= step * (1 - 1e-9))
