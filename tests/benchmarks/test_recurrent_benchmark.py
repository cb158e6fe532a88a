"""The benchmark with a memory: both sides at the same settings, and what its table says. Nothing here is timed."""

from __future__ import annotations

import inspect

import pytest

from ppo_lab import Config, override


def test_both_sides_are_timed_at_the_same_settings(bench):
    sb3, ours = dict(bench.settings.RECURRENT_SB3), dict(bench.settings.RECURRENT_OURS)
    config = override(Config(), ours)
    words = {"n_steps": "num_steps", "n_epochs": "update_epochs", "clip_range": "clip_coef"}
    rows = config.env.num_envs * config.ppo.num_steps
    assert rows == bench.settings.ROWS
    assert rows // config.ppo.num_minibatches == sb3.pop("batch_size")
    policy = sb3.pop("policy_kwargs")
    assert policy["net_arch"] == {key: list(config.model.hidden_sizes) for key in ("pi", "vf")}
    assert (config.model.core, config.model.activation) == ("lstm", "tanh")
    assert (policy["lstm_hidden_size"], policy["n_lstm_layers"]) == (config.model.core_size, config.model.core_layers)
    assert policy["enable_critic_lstm"] is not config.model.shared
    for key, value in sb3.items():
        assert getattr(config.ppo, words.get(key, key)) == value, key
    assert (config.ppo.normalize_advantage, config.ppo.adam_eps) == ("minibatch", 1e-5)


def test_theirs_are_the_defaults_of_sb3_contrib(bench):
    contrib = pytest.importorskip("sb3_contrib", reason="pip install -r benchmarks/requirements.txt")
    settings = dict(bench.settings.RECURRENT_SB3)
    policy = settings.pop("policy_kwargs")
    defaults = inspect.signature(contrib.RecurrentPPO).parameters
    assert {name: defaults[name].default for name in settings} == settings
    del policy["net_arch"]  # 64-64 where none is given
    of_policy = inspect.signature(contrib.ppo_recurrent.MlpLstmPolicy).parameters
    assert {name: of_policy[name].default for name in policy} == policy


def test_our_measurement_counts_parameters_and_steps(bench):
    settings = {"env": "ppo_lab/CartPole-v1", "core": "lstm", "chunk_length": 16}
    told = bench.measurement.measure("ours.py", "recurrent", seed=1, warm_up=1, updates=1, **settings)
    assert told["steps"] == 1024
    body = 4 * 64 + 64 + 64 * 64 + 64
    lstm = 4 * 256 * (64 + 256) + 2 * 4 * 256
    assert told["parameters"] == 2 * (body + lstm) + 256 * 2 + 2 + 256 + 1


def fake(bench):
    """Three repeats in which we are 6 times as fast."""
    speed = [
        {"contender": name, "seed": seed, "steps": 1000, "parameters": 7_000, "return_mean": 30.0 + seed}
        | ({"seconds": 6.0, "cpu_seconds": 6.0} if name == "sb3" else {"seconds": 1.0, "cpu_seconds": 0.5})
        for seed in (1, 2, 3)
        for name in bench.report.RECURRENT_NAMES
    ]
    about = {"machine": {"cpu": "c", "cores": 2, "system": "s"}, "versions": {"torch": "2"}}
    return about | {"settings": {"warm_up_updates": 1}, "speed": speed, "load": {"before": 0.1, "after": 1.0}}


def test_every_row_of_the_table_has_a_contender(bench):
    assert list(bench.recurrent.contenders(1)) == list(bench.report.RECURRENT_NAMES)


def test_the_table_says_how_many_times_faster_and_how_well_it_played(bench):
    rows = bench.report.recurrent_table(fake(bench)).splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[2:6]] for row in rows]
    assert cells[0] == ["167 (167 to 167)", "1", "1", "32"]
    assert all(row == ["1,000 (1,000 to 1,000)", "**6.00** (6.00 to 6.00)", "12.00", "32"] for row in cells[1:])
    assert len(cells) == len(bench.report.RECURRENT_NAMES)


def test_the_page_has_the_part(bench):
    page = bench.report.readme(None, fake(bench), None)
    assert "7,000 parameters against 7,000" in page
    assert "1,000 steps after 1 update" in " ".join(page.split())
