"""Figures with sliders: drawn from the values of the sliders, usable after an error, a picture if headless."""

import io
import threading

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from PIL import Image

from ppo_lab.errors import ConfigError
from ppo_lab.notebook.course import play as play_module
from ppo_lab.notebook.course.play import Playground, play

VALUES = {"gae_lambda": [0.0, 0.5, 1.0], "gamma": [0.9, 0.95, 0.99]}


class Drawing:
    """A draw function that records its arguments. The width of its figures depends on them."""

    def __init__(self):
        self.asked = []

    def __call__(self, gae_lambda, gamma):
        self.asked.append((gae_lambda, gamma))
        return Figure(figsize=(3.0 + gae_lambda, 1.0))


def playground(draw, values=VALUES, defaults=None):
    return Playground(draw, play_module._sliders_of(draw, values, defaults or {}))


def size(png):
    return Image.open(io.BytesIO(png)).size


def test_a_move_draws_the_picture_anew():
    draw = Drawing()
    shown = playground(draw, defaults={"gae_lambda": 0.5, "gamma": 0.99})
    assert draw.asked == [(0.5, 0.99)]
    assert size(shown.picture.value) == (350, 100)
    shown.sliders["gae_lambda"].value = 1.0
    assert draw.asked[1:] == [(1.0, 0.99)]
    assert size(shown.picture.value) == (400, 100)


def test_nothing_is_drawn_that_nobody_asked_for():
    draw = Drawing()
    shown = playground(draw)
    for slider in shown.sliders.values():
        slider.send_state()  # what a browser receives to draw the slider
        slider.value = slider.value
    assert len(draw.asked) == 1


def test_defaults_are_where_it_begins_marked_and_always_offered():
    shown = playground(Drawing(), defaults={"gamma": 0.98})
    gamma, gae_lambda = shown.sliders["gamma"], shown.sliders["gae_lambda"]
    assert gamma.value == 0.98
    assert [value for _, value in gamma.options] == [0.9, 0.95, 0.98, 0.99]
    assert [label for label, _ in gamma.options] == ["0.9", "0.95", "0.98 (default)", "0.99"]
    assert gae_lambda.value == 0.5  # the middle
    assert "default" not in gae_lambda.label


@pytest.mark.parametrize(
    ("offered", "default", "expected"),
    [
        (np.linspace(0, 1, 3), np.float32(0.5), [0.0, 0.5, 1.0]),
        (range(4), 2, [0, 1, 2, 3]),
        (["slow", "fast"], "normal", ["slow", "fast", "normal"]),
        ([[1, 2], [3]], [3], [[1, 2], [3]]),
        ([True, False, True], False, [True, False]),
    ],
)
def test_values_of_all_kinds(offered, default, expected):
    shown = playground(lambda x: Figure((1, 1)), {"x": offered}, {"x": default})
    values = [value for _, value in shown.sliders["x"].options]
    assert values == expected
    assert shown.sliders["x"].value == default
    assert not any(isinstance(value, np.generic) for value in values)


def test_an_error_is_one_line_and_the_sliders_live_on():
    def draw(x):
        if x == 2:
            raise ValueError("<b>two</b> is\nnot a number")
        return Figure((x + 1, 1)) if x else None

    shown = playground(draw, {"x": [0, 1, 2, 3]}, {"x": 1})
    first = shown.picture.value
    shown.sliders["x"].value = 2
    assert shown.note.value == "<b>ValueError</b>: &lt;b&gt;two&lt;/b&gt; is"
    assert shown.picture.value == first
    shown.sliders["x"].value = 3
    assert shown.note.value == ""
    assert size(shown.picture.value) == (400, 100)
    shown.sliders["x"].value = 0
    assert "has to return a matplotlib Figure, got NoneType" in shown.note.value


def test_no_broken_picture_before_the_first_one():
    def draw(x):
        if x == 1:
            raise RuntimeError("not yet")
        return Figure((1, 1))

    shown = playground(draw, {"x": [1, 2]}, {"x": 1})
    assert shown.picture.layout.display == "none"
    assert "not yet" in shown.note.value
    shown.sliders["x"].value = 2
    assert shown.picture.layout.display is None


def test_moves_from_several_threads_draw_one_at_a_time_and_only_the_last():
    began, go_on = threading.Event(), threading.Event()
    asked, at_once = [], []
    inside = threading.Lock()

    def draw(x):
        at_once.append(inside.acquire(blocking=False))
        asked.append(x)
        if x == 1:
            began.set()
            go_on.wait(10)
        if at_once[-1]:
            inside.release()
        return Figure((x + 1, 1))

    shown = playground(draw, {"x": range(6)}, {"x": 0})

    def move(value):
        thread = threading.Thread(target=setattr, args=(shown.sliders["x"], "value", value))
        thread.start()
        return thread

    threads = [move(1)]
    assert began.wait(10)
    newest = shown._newest
    for value in range(2, 6):  # these arrive while the first is being drawn
        threads.append(move(value))
        while shown._newest is newest:
            pass
        newest = shown._newest
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert asked == [0, 1, 5]
    assert all(at_once)
    assert size(shown.picture.value) == (600, 100)


@pytest.mark.parametrize(
    ("draw", "values", "defaults", "message"),
    [
        (lambda gamma: None, {}, {}, "at least one slider"),
        (lambda gamma: None, {"gamma": []}, {}, "gamma has no values"),
        (lambda gamma: None, {"gama": [1]}, {}, "does not take the sliders gama"),
        (lambda gamma: None, {"gamma": [1]}, {"gama": 1}, "default for 'gama' but no slider; sliders: gamma"),
    ],
)
def test_what_does_not_fit_is_said_at_once(draw, values, defaults, message):
    with pytest.raises(ConfigError, match=message):
        play(draw, defaults=defaults, **values)


@pytest.fixture
def displayed(monkeypatch):
    """Collect what would be the output of the cell."""
    kept = []
    monkeypatch.setattr(play_module, "get_ipython", lambda: InteractiveShell.instance)
    monkeypatch.setattr(play_module, "display", lambda *objects, **how: kept.extend(objects))
    return kept


def test_headless_there_is_one_picture_of_the_first_slider_at_three_values(displayed, monkeypatch):
    monkeypatch.setenv("PPO_LAB_UI", "0")
    draw = Drawing()
    play(draw, **VALUES, defaults={"gae_lambda": 0.8, "gamma": 0.99})
    assert draw.asked == [(0.0, 0.99), (0.8, 0.99), (1.0, 0.99)]
    (picture,) = displayed
    assert picture.alt == "The picture at gae_lambda = 0, 0.8 (default), 1, gamma = 0.99 (default)"
    width, height = size(picture.data)
    assert width == 400
    assert height == 3 * (100 + 30)
    pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGBA"))  # (height, width, RGBA)
    assert (pixels[:, :, 3] == 0).any()  # transparent: the page is visible behind it
    assert all(pixels[top : top + 30, :, 3].any() for top in (0, 130, 260))  # each has a caption


def test_headless_an_error_of_the_draw_function_is_an_error(displayed, monkeypatch):
    monkeypatch.setenv("PPO_LAB_UI", "0")

    def draw(x):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        play(draw, x=[1])


def test_with_a_person_there_are_widgets_and_a_picture_that_stays_without_them(displayed, monkeypatch):
    monkeypatch.setenv("PPO_LAB_UI", "1")
    draw = Drawing()
    play(draw, **VALUES)
    bundle, picture = displayed
    assert bundle.keys() == {"application/vnd.jupyter.widget-view+json", "text/plain"}
    assert size(picture.data) == (350, 100)
    assert len(draw.asked) == 1  # drawn once for the widget and the picture


def test_without_a_first_picture_there_is_no_twin_of_it(displayed, monkeypatch):
    monkeypatch.setenv("PPO_LAB_UI", "1")
    play(lambda x: None, x=[1])
    assert len(displayed) == 1


def test_a_plain_script_gets_words(capsys, monkeypatch):
    monkeypatch.setenv("PPO_LAB_UI", "0")
    monkeypatch.setattr(play_module, "get_ipython", lambda: None)
    play(Drawing(), **VALUES)
    assert capsys.readouterr().out == "The picture at gae_lambda = 0, 0.5, 1, gamma = 0.95\n"
