"""The benchmarks' arithmetic, their even-handedness and their page. Nothing here is timed."""

from __future__ import annotations

import json

import pytest

from ppo_lab import Config, override


def speed(contender, seed, seconds, cpu=1.0):
    return {"contender": contender, "seed": seed, "steps": 1000, "seconds": seconds, "cpu_seconds": cpu}


def test_both_sides_are_timed_at_the_same_settings(bench):
    sb3, ours = dict(bench.settings.SPEED_SB3), dict(bench.settings.SPEED_OURS)
    words = {"n_steps": "num_steps", "n_epochs": "update_epochs", "clip_range": "clip_coef"}
    assert ours.pop("env.num_envs") * ours["ppo.num_steps"] == bench.settings.ROWS
    assert sb3.pop("batch_size") * ours.pop("ppo.num_minibatches") == bench.settings.ROWS
    networks = {"model.hidden_sizes": [64, 64], "model.activation": "tanh", "model.shared": False}
    assert {key: ours.pop(key) for key in networks} == networks
    assert sb3.pop("policy_kwargs") == {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}
    assert {f"ppo.{words.get(key, key)}": value for key, value in sb3.items()} == ours
    override(Config(), bench.settings.SPEED_OURS)  # every key exists


def test_defaults_that_both_sides_share_are_still_ours(bench):
    """settings.py leaves them out because they agree with Stable-Baselines3's: this fails when ours move."""
    config = override(Config(), bench.settings.SPEED_OURS)
    assert (config.ppo.normalize_advantage, config.ppo.adam_eps) == ("minibatch", 1e-5)
    assert config.ppo.value_clip_coef is None
    assert config.ppo.target_kl is None
    assert not config.ppo.normalize_reward
    assert not config.model.normalize_obs
    assert config.ppo.learning_rate_schedule == config.ppo.clip_coef_schedule == "constant"


def test_ratios_are_of_medians_and_of_pairs_of_a_seed(bench):
    ours = [{"seed": 3, "x": 30.0}, {"seed": 1, "x": 8.0}, {"seed": 2, "x": 12.0}]
    theirs = [{"seed": 1, "x": 4.0}, {"seed": 2, "x": 3.0}, {"seed": 3, "x": 10.0}]
    assert bench.tables.ratio(ours, theirs, lambda run: run["x"]) == (12.0 / 4.0, 2.0, 4.0)


def test_contenders_take_turns_with_the_same_seeds(bench):
    played = []
    contenders = {
        name: lambda seed, name=name: played.append(f"{name}{seed}") or {"steps": seed} for name in ("a", "b", "c")
    }
    measurements = bench.versus_sb3.in_turns(contenders, 2, "test")
    assert played == ["a1", "b1", "c1", "a2", "b2", "c2"]
    assert measurements[4] == {"contender": "b", "seed": 2, "steps": 2}


def test_speed_table_says_how_many_times_faster(bench):
    names = list(bench.report.SPEED_NAMES)
    runs = [speed("sb3", seed, 2.0, cpu=2.0) for seed in (1, 2, 3)]
    runs += [speed(name, seed, 1.0 / seed, cpu=0.5) for name in names[1:] for seed in (1, 2, 3)]
    rows = bench.report.speed_table({"speed": runs}).splitlines()
    assert [cell.strip() for cell in rows[2].split("|")[2:5]] == ["500 (500 to 500)", "1", "1"]
    for row in rows[3:]:
        cells = [cell.strip() for cell in row.split("|")[2:5]]
        assert cells == ["2,000 (1,000 to 3,000)", "**4.00** (2.00 to 6.00)", "4.00"]


def test_goal_table_counts_a_run_that_did_not_get_there_with_all_its_seconds(bench):
    sb3 = [speed("sb3", seed, seconds) | {"reached": seconds < 20} for seed, seconds in ((1, 10.0), (2, 20.0))]
    ours = [speed(name, seed, 3.0) | {"reached": True} for name in ("ours", "ours_records") for seed in (1, 2)]
    rows = bench.report.goal_table({"goal": sb3 + ours}).splitlines()
    assert "1 of 2" in rows[2]
    assert "15.00 (10.00 to 20.00)" in rows[2]
    assert "**0.20** (0.15 to 0.30)" in rows[3]


def test_a_measurement_comes_back_from_a_process_of_its_own(bench):
    told = bench.measurement.measure(
        "ours.py", "speed", env="ppo_lab/CartPole-v1", records=True, seed=1, warm_up=1, updates=1
    )
    assert told["steps"] == 1024
    assert told["seconds"] > 0.0


def test_a_child_that_fails_is_reported_with_what_it_said(bench):
    with pytest.raises(SystemExit, match=r"nowhere.py speed .* ended with status 2:\n.*can't open file"):
        bench.measurement.measure("nowhere.py", "speed")


def test_readme_is_what_the_results_say(bench):
    page = bench.settings.ROOT / "benchmarks" / "README.md"
    wanted = bench.report.readme(*bench.report.read_results())
    assert page.read_text(encoding="utf-8") == wanted, "run benchmarks/versus_sb3.py --report"


def test_hardware_tells_no_names(bench):
    import socket

    told = json.dumps(bench.machine.hardware())
    assert socket.gethostname() not in told
    assert bench.machine.hardware()["cores"] >= 1
