"""Schedules at known points; live changes apply from the step at which they were made."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.config import PPOConfig
from ppo_lab.ppo.schedules import LiveChange, scheduled, settings_at, warmup_factor


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("constant", [1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.6, 0.2]),
        ("cosine", [1.0, 0.6, 0.2]),
    ],
)
def test_start_middle_and_end(name, values):
    assert [scheduled(name, 1.0, 0.2, p) for p in (0.0, 0.5, 1.0)] == pytest.approx(values)


def test_cosine_at_a_quarter():
    assert scheduled("cosine", 1.0, 0.0, 0.25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_milestones():
    milestones = {0.5: 0.1, 0.75: 0.01}
    assert [scheduled("milestones", 1.0, 0.0, p, milestones) for p in (0.0, 0.49, 0.5, 0.74, 0.9)] == [
        1,
        1,
        0.1,
        0.1,
        0.01,
    ]


@given(st.sampled_from(["linear", "cosine"]), st.floats(0, 1), st.floats(0, 1), st.floats(-1, 3))
def test_never_outside_start_and_end(name, start, end, progress):
    assert min(start, end) - 1e-12 <= scheduled(name, start, end, progress) <= max(start, end) + 1e-12


def test_a_live_change_is_the_value_from_then_on():
    ppo = PPOConfig()
    assert settings_at(ppo, {"clip_coef": LiveChange(0.1, 40)}, 70, 100).clip_coef == 0.1
    assert settings_at(ppo, {}, 70, 100).clip_coef == 0.2


def test_a_schedule_goes_on_from_a_live_change_to_the_same_end():
    ppo = PPOConfig(learning_rate=1.0, learning_rate_schedule="linear", learning_rate_end=0.2)
    live = {"learning_rate": LiveChange(0.6, 50)}
    assert [settings_at(ppo, live, p, 100).learning_rate for p in (50, 75, 100)] == pytest.approx([0.6, 0.4, 0.2])


def test_the_next_milestone_takes_over_from_a_live_change():
    ppo = PPOConfig(ent_coef=0.1, ent_coef_schedule="milestones", ent_coef_milestones={0.3: 0.05, 0.8: 0.01})
    live = {"ent_coef": LiveChange(0.2, 50)}
    assert [settings_at(ppo, live, p, 100).ent_coef for p in (50, 79, 80)] == [0.2, 0.2, 0.01]


def test_warm_up_never_wastes_the_first_update():
    assert warmup_factor(100, 0, 10) == pytest.approx(0.1)
    assert warmup_factor(100, 500, 10) == 1.0
    assert warmup_factor(0, 0, 10) == 1.0
