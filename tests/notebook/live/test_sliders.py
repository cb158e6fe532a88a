"""Sliders change a setting only when the user moves them; the drawing budget holds."""

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.config import LIVE, PPOConfig
from ppo_lab.config.loading import check_live
from ppo_lab.errors import ConfigError
from ppo_lab.notebook.live.dashboard import MOST_FPS, SHARE, START_SECONDS, Budget
from ppo_lab.notebook.live.sliders import Slider, slider_label, slider_values


@pytest.mark.parametrize("key", LIVE)
@given(st.data())
def test_the_value_in_force_is_offered_exactly(key, data):
    slider = PPOConfig.model_fields[key].json_schema_extra["slider"]
    if PPOConfig.model_fields[key].annotation is int:
        current = data.draw(st.integers(1, 100))
    else:
        current = data.draw(st.floats(slider["low"] / 10, slider["high"] * 2, allow_nan=False))
    values = slider_values(key, current)
    assert current in values
    assert values == sorted(set(values))
    assert {slider["low"], slider["high"]} <= set(values)
    assert 10 <= len(values) <= 60


@pytest.mark.parametrize("key", LIVE)
def test_the_trainer_would_take_every_value(key):
    for value in slider_values(key, getattr(PPOConfig(), key)):
        assert check_live(key, value) == value


def test_log_sliders_have_equal_ratios():
    values = slider_values("learning_rate", 1e-3)
    ratios = [b / a for a, b in pairwise(values)]
    assert max(ratios) < 1.35
    assert min(ratios) > 1.2


def test_labels_tell_values_apart():
    for key in LIVE:
        labels = [slider_label(value) for value in slider_values(key, getattr(PPOConfig(), key))]
        assert len(set(labels)) == len(labels)
    assert slider_label(3e-4) == "3e-4"
    assert slider_label(0.2) == "0.2"
    assert slider_label(0) == "0"


def test_an_unknown_key_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"num_steps.*learning_rate"):
        slider_values("num_steps", 128)


def test_only_the_person_changes_anything():
    changes = []
    slider = Slider("learning_rate", 2.5e-3, lambda key, value: changes.append((key, value)), threading.RLock())
    slider.show(2.5e-3, None, 2.5e-3)
    slider.show(1.7e-3, None, 2.5e-3)  # a schedule moves on
    slider.slider.send_state()  # what a browser gets when it draws it
    assert slider.slider.value == 2.5e-3
    assert changes == []
    slider.slider.value = 1e-3
    assert changes == [("learning_rate", 1e-3)]


def test_pending_is_said_until_it_is_in_force():
    slider = Slider("clip_coef", 0.2, lambda key, value: None, threading.RLock())
    slider.show(0.2, 0.1, 0.1)
    assert "pending: 0.1" in slider.note.value
    assert "in force: 0.2" in slider.note.value
    slider.show(0.1, None, 0.1)
    assert slider.note.value == "in force: 0.1"


def test_a_refused_change_is_said():
    def refuse(key, value):
        raise ConfigError("ppo.gamma: normalize_reward needs gamma < 1, got 1.0")

    slider = Slider("gamma", 0.99, refuse, threading.RLock())
    slider.slider.value = slider_values("gamma", 0.99)[-1]
    assert "needs gamma &lt; 1" in slider.note.value
    assert slider.slider.value == 0.99  # back at the value in force


@pytest.mark.parametrize("value", [0.1, 0.123])  # on the slider's grid, and off it
def test_a_change_from_elsewhere_moves_the_knob_and_nothing_else(value):
    changes = []
    slider = Slider("clip_coef", 0.2, lambda key, value: changes.append(value), threading.RLock())
    slider.show(0.2, value, value)
    assert slider.slider.value == value
    slider.show(value, None, value)
    slider.show(0.2, None, 0.2)  # undone
    assert slider.slider.value == 0.2
    assert changes == []
    slider.slider.value = 0.3
    assert changes == [0.3]


@pytest.mark.parametrize("cost", [0.001, 0.05, 0.3, 2.0])
def test_drawing_keeps_to_its_budget(cost):
    budget, now, drawn, frames = Budget(), 100.0, 0.0, []
    while now < 220.0:
        now += 0.02  # an update
        if budget.ready(now):
            frames.append(now)
            budget.spent(now, now + cost)
            now += cost
            drawn += cost
    assert drawn <= SHARE * 120.0 + START_SECONDS + cost
    assert min(b - a for a, b in pairwise(frames)) >= 1 / MOST_FPS
    wanted = min(120.0 * MOST_FPS, SHARE * 120.0 / cost)
    assert len(frames) >= 0.8 * wanted  # and uses it
