"""A figure with sliders: it is redrawn when a slider moves. Headless, it is shown at three values of the first one."""

from __future__ import annotations

import html
import inspect
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from IPython.core.getipython import get_ipython
from IPython.display import Image, display
from matplotlib.figure import Figure
from PIL import Image as Pixels

from ppo_lab.errors import ConfigError
from ppo_lab.notebook.live.start import ui_attached
from ppo_lab.notebook.live.static import HIDE_TWIN, LIVE
from ppo_lab.notebook.plots.canvas import TEXT, in_few_colours, to_png

Draw = Callable[..., Figure]
DPI = 100


def play(draw: Draw, /, *, defaults: Mapping[str, Any] | None = None, **values: Sequence[Any]) -> None:
    """Show the figure that `draw` makes from the values of sliders.

        play(lambda gae_lambda, gamma: figure, gae_lambda=[0, 0.5, 1], gamma=[0.9, 0.99], defaults={"gamma": 0.99})

    In JupyterLab the figure is redrawn whenever a slider moves, and an exception of `draw` is shown as one line below
    it. Headless there is one picture: the first slider at its lowest, default and highest value, the others at their
    default.

    draw: called with one keyword argument per slider. It may run in another thread than the cells: do not use pyplot.
    values: the values of each slider, in this order.
    defaults: the initial value, which is labelled, and added if `values` do not contain it. Without one a slider starts
        in the middle.
    Raises ConfigError if there is no slider, a slider has no values, a default has no slider, or `draw` does not accept
    these arguments; headless also if `draw` does not return a Figure.
    """
    sliders = _sliders_of(draw, values, defaults or {})
    if ui_attached():
        Playground(draw, sliders).show()
        return
    picture, alt = three_pictures(draw, sliders), _three(sliders)
    if get_ipython() is None:
        print(alt)
    else:
        display(Image(picture, alt=alt))


@dataclass(frozen=True)
class PlaySlider:
    """The name, the values and the initial value of one slider."""

    name: str
    values: tuple[Any, ...]
    begin: Any
    marked: bool  # `begin` is a default, not just the middle

    def label(self, value: Any) -> str:
        """Format a value as the slider shows it."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return (f"{value:g}" if number else str(value)) + (" (default)" if self.marked and value == self.begin else "")


class Playground:
    """The widgets: sliders, picture and error line. Callbacks may come from several threads; one draws at a time."""

    def __init__(self, draw: Draw, sliders: Sequence[PlaySlider]) -> None:
        import ipywidgets as widgets  # imported here: headless does not need it

        self._draw = draw
        self._drawing = threading.Lock()
        self._newest = object()  # the last move of a slider; older ones need not be drawn
        # An explicit list of values, not a FloatSlider: in the browser a FloatSlider rounds its value to a grid, and
        # sends the rounded value back as if a person had moved it.
        self.sliders = {
            slider.name: widgets.SelectionSlider(
                options=[(slider.label(value), value) for value in slider.values],
                value=slider.begin,
                description=slider.name,
                style={"description_width": "110px"},
                layout={"width": "420px"},
            )
            for slider in sliders
        }
        # not stretched to the width of the page: that would blur it
        self.picture = widgets.Image(
            format="png", layout={"max_width": "100%", "align_self": "flex-start", "display": "none"}
        )
        self.note = widgets.HTML()
        hide = widgets.HTML(HIDE_TWIN, layout={"display": "none"})
        self.widget = widgets.VBox([*self.sliders.values(), self.picture, self.note, hide])
        self.widget.add_class(LIVE)
        self._redraw()
        for slider in self.sliders.values():
            slider.observe(self._moved, names="value")

    def show(self) -> None:
        """Show the widgets, and after them the first picture: without a kernel a saved notebook shows no widgets."""
        first = self.picture.value
        display({**self.widget._repr_mimebundle_(), "text/plain": ""}, raw=True)
        if first:
            display(Image(first, alt="the first picture"))

    def _moved(self, _change: Any) -> None:
        mine = self._newest = object()
        with self._drawing:
            if mine is self._newest:
                self._redraw()

    def _redraw(self) -> None:
        """Draw the picture for the current values of the sliders, and show an exception of `draw` as one line."""
        try:
            figure = self._draw(**{name: slider.value for name, slider in self.sliders.items()})
            self.picture.value = _png(figure, compress_level=1)
        except Exception as error:  # the reader's function may raise anything; the sliders must keep working
            first = next(iter(str(error).strip().splitlines()), "")
            self.note.value = f"<b>{html.escape(type(error).__name__)}</b>: {html.escape(first)}"
        else:
            self.note.value = ""
            self.picture.layout.display = None


def three_pictures(draw: Draw, sliders: Sequence[PlaySlider]) -> bytes:
    """Return one PNG: the figure at the lowest, default and highest value of the first slider, each with a caption."""
    others = {slider.name: slider.begin for slider in sliders[1:]}
    parts = []
    for value in _shown(sliders[0]):
        chosen = {sliders[0].name: value, **others}
        caption = ", ".join(f"{slider.name} = {slider.label(chosen[slider.name])}" for slider in sliders)
        png = _png(draw(**chosen))
        picture = Pixels.open(io.BytesIO(png)).convert("RGBA")
        parts += [_caption(caption, picture.width), picture]
    whole = Pixels.new("RGBA", (max(part.width for part in parts), sum(part.height for part in parts)))
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return in_few_colours(whole)


def _caption(text: str, width: int) -> Pixels.Image:
    figure = Figure(figsize=(width / DPI, 0.3), facecolor="none")
    figure.text(0.005, 0.3, text, color=TEXT, fontsize=10, fontweight="bold", parse_math=False)
    return Pixels.open(io.BytesIO(to_png(figure, DPI))).convert("RGBA")


def _png(figure: Any, compress_level: int = 6) -> bytes:
    if not isinstance(figure, Figure):
        raise ConfigError(f"play: draw has to return a matplotlib Figure, got {type(figure).__name__}")
    return to_png(figure, DPI, compress_level)


def _shown(slider: PlaySlider) -> list[Any]:
    """Return the lowest, initial and highest value of a slider, without duplicates."""
    return _once([slider.values[0], slider.begin, slider.values[-1]])


def _three(sliders: Sequence[PlaySlider]) -> str:
    """Describe the headless picture in words, as its alt text."""
    first, *others = sliders
    text = f"The picture at {first.name} = {', '.join(map(first.label, _shown(first)))}"
    return ", ".join([text, *(f"{slider.name} = {slider.label(slider.begin)}" for slider in others)])


def _sliders_of(draw: Draw, values: Mapping[str, Sequence[Any]], defaults: Mapping[str, Any]) -> list[PlaySlider]:
    if not values:
        raise ConfigError("play: pass at least one slider, such as gamma=[0.9, 0.99]")
    unknown = sorted(defaults.keys() - values.keys())
    if unknown:
        raise ConfigError(f"play: there is a default for {unknown[0]!r} but no slider; sliders: {', '.join(values)}")
    sliders = [_slider(name, offered, defaults) for name, offered in values.items()]
    try:
        inspect.signature(draw).bind(**{slider.name: slider.begin for slider in sliders})
    except TypeError as error:
        raise ConfigError(f"play: draw does not take the sliders {', '.join(values)}: {error}") from None
    return sliders


def _slider(name: str, offered: Sequence[Any], defaults: Mapping[str, Any]) -> PlaySlider:
    plain = [_plain(value) for value in offered]
    if name in defaults and _plain(defaults[name]) not in plain:
        plain.append(_plain(defaults[name]))
        if all(isinstance(value, int | float) for value in plain):
            plain.sort()
    if not plain:
        raise ConfigError(f"play: the slider {name} has no values")
    begin = _plain(defaults[name]) if name in defaults else plain[len(plain) // 2]
    return PlaySlider(name, tuple(_once(plain)), begin, name in defaults)


def _once(values: Sequence[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value not in values[:i]]


def _plain(value: Any) -> Any:
    """Convert a NumPy scalar to a Python number: the traits of widgets reject NumPy scalars."""
    return value.item() if isinstance(value, np.generic) else value
