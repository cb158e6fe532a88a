"""Everybody has the same settings, and what is left out is said. Nothing is timed."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import replace

import pytest

from ppo_lab import Config, override

WORDS = {"n_steps": "num_steps", "n_epochs": "update_epochs", "clip_range": "clip_coef"}
NAMES = ("cartpole", "cartpole_64x32", "acrobot", "lunar_lander", "half_cheetah", "pong", "recurrent")


def config_of(workload):
    return override(Config(), workload.ours)


def test_the_settings_of_the_first_workload_are_these(bench):
    """Written out by hand, in both languages: what is derived below has somewhere to start from."""
    theirs = bench.workloads.sb3_task(bench.workloads.WORKLOADS["cartpole"])
    same = {"gamma": 0.99, "gae_lambda": 0.95, "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5}
    assert theirs == {
        "policy": "MlpPolicy",
        "settings": {
            "n_steps": 128,
            "n_epochs": 4,
            "batch_size": 256,
            "learning_rate": 3e-4,
            "clip_range": 0.2,
            "policy_kwargs": {"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
            **same,
        },
        "envs": {"env": "CartPole-v1", "num_envs": 8, "normalize": False, "atari": False},
    }


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_are_timed_at_the_same_settings(bench, name):
    workload = bench.workloads.WORKLOADS[name]
    assert list(bench.workloads.WORKLOADS) == list(NAMES)
    config, theirs = config_of(workload), bench.workloads.sb3_task(workload)
    settings = theirs["settings"]
    policy, rows = settings.pop("policy_kwargs"), config.env.num_envs * config.ppo.num_steps
    assert settings.pop("batch_size") * config.ppo.num_minibatches == rows == workload.rows
    for key, value in settings.items():
        assert getattr(config.ppo, WORDS.get(key, key)) == value, key
    assert theirs["envs"]["num_envs"] == config.env.num_envs
    assert theirs["envs"]["normalize"] == config.model.normalize_obs == config.ppo.normalize_reward
    if "net_arch" in policy:
        assert policy["net_arch"] == {key: list(config.model.hidden_sizes) for key in ("pi", "vf")}
        assert (config.model.activation, config.model.shared) == ("tanh", False)
    else:  # Stable-Baselines3's CnnPolicy, whose network is our default one
        assert (config.model.body, config.model.convolutions) == ("cnn", Config().model.convolutions)
        assert (config.model.hidden_sizes, config.model.activation, config.model.shared) == ((512,), "relu", True)
    assert policy.get("log_std_init", 0.0) == config.model.log_std_init


@pytest.mark.parametrize("name", NAMES)
def test_defaults_that_all_share_are_still_ours(bench, name):
    """workloads.py leaves them out because they agree with Stable-Baselines3's: this fails when ours move."""
    config = config_of(bench.workloads.WORKLOADS[name])
    assert (config.ppo.normalize_advantage, config.ppo.adam_eps) == ("minibatch", 1e-5)
    assert config.ppo.value_clip_coef is None
    assert config.ppo.target_kl is None
    assert not config.ppo.recompute_advantage
    assert not config.model.normalize_value
    assert config.ppo.learning_rate_schedule == config.ppo.clip_coef_schedule == "constant"


def test_presets_that_workloads_follow(bench):
    """The pages say so: HalfCheetah and Pong have the networks and rollouts of our presets."""
    for name in ("half_cheetah", "pong"):
        preset = override(Config(), bench.settings.preset_settings(name))
        config = config_of(bench.workloads.WORKLOADS[name])
        assert config.env.id == preset.env.id
        assert config.env.num_envs == preset.env.num_envs
        for key in ("num_steps", "update_epochs", "num_minibatches", "gamma", "gae_lambda", "vf_coef", "reward_bound"):
            assert getattr(config.ppo, key) == getattr(preset.ppo, key), key
        for key in ("body", "hidden_sizes", "shared", "normalize_obs", "log_std_init"):
            assert getattr(config.model, key) == getattr(preset.model, key), key


def test_atari_is_stepped_by_as_many_threads_as_the_network_has(bench):
    pong = bench.workloads.WORKLOADS["pong"]
    assert pong.ours["env.kwargs"]["num_threads"] == pong.threads


def test_theirs_are_the_defaults_of_sb3_contrib(bench):
    contrib = pytest.importorskip("sb3_contrib", reason="pip install -r benchmarks/requirements.txt")
    settings = bench.workloads.sb3_task(bench.workloads.WORKLOADS["recurrent"])["settings"]
    policy = settings.pop("policy_kwargs")
    defaults = inspect.signature(contrib.RecurrentPPO).parameters
    assert {name: defaults[name].default for name in settings} == settings
    del policy["net_arch"]  # 64-64 where none is given
    of_policy = inspect.signature(contrib.ppo_recurrent.MlpLstmPolicy).parameters
    assert {name: of_policy[name].default for name in policy} == policy


def test_a_recurrent_network_has_the_parameters_that_the_page_tells(bench):
    workload = bench.workloads.tiny(bench.workloads.WORKLOADS["recurrent"])
    told = bench.peers.contenders(workload)["ours_batched"](1)
    assert told["steps"] == 8 * 16
    body = 4 * 64 + 64 + 64 * 64 + 64
    lstm = 4 * 256 * (64 + 256) + 2 * 4 * 256
    assert told["parameters"] == 2 * (body + lstm) + 256 * 2 + 2 + 256 + 1
    assert told["peak_megabytes"] > 10.0


# --- others


TYRO = "import tyro\n"
SCRIPT = """
import argparse, json, pathlib, sys, time
path = pathlib.Path(__file__)
(path.parent / "seen.jsonl").open("a").write(json.dumps([sys.argv[1:], str(pathlib.Path.cwd())]) + "\\n")
parser = argparse.ArgumentParser()
parser.add_argument("--total-timesteps", type=int)
began, wanted = time.process_time(), parser.parse_known_args()[0].total_timesteps / 500
while time.process_time() - began < wanted:
    pass
"""


def test_flags_are_written_as_a_script_reads_them(bench):
    settings = {"env_id": "CartPole-v1", "num_envs": 8, "cuda": False, "norm_adv": True}
    common = ["--env-id", "CartPole-v1", "--num-envs", "8"]
    flags = bench.cleanrl_scripts.flags
    assert flags(TYRO, settings) == [*common, "--no-cuda", "--norm-adv"]
    assert flags("import argparse\n", settings) == [*common, "--cuda", "False", "--norm-adv", "True"]


def test_cleanrl_is_given_our_settings(bench):
    workload = bench.workloads.WORKLOADS["half_cheetah"]
    config, given = config_of(workload), bench.workloads.cleanrl_settings(workload)
    assert (given.pop("env_id"), given.pop("num_envs")) == (config.env.id, config.env.num_envs)
    assert {key: given.pop(key) for key in ("anneal_lr", "clip_vloss", "cuda")} == dict.fromkeys(
        ("anneal_lr", "clip_vloss", "cuda"), False
    )
    for key, value in given.items():
        assert getattr(config.ppo, key) == value, key


def test_the_difference_of_a_short_and_a_long_run_counts(bench, tmp_path, monkeypatch):
    (tmp_path / "ppo.py").touch()
    spent = bench.cleanrl_scripts.Spent
    several = iter([spent(10.0, 8.0, 100.0), spent(14.0, 11.0, 120.0), spent(10.0, 8.0, 100.0), spent(9.0, 9.0, 100.0)])
    monkeypatch.setattr(bench.cleanrl_scripts, "_run", lambda command, num_threads: next(several))
    measure = bench.peers.contenders(bench.workloads.WORKLOADS["cartpole"], tmp_path)["cleanrl"]
    told = {"steps": 60 * 1024, "seconds": 4.0, "cpu_seconds": 3.0, "peak_megabytes": 120.0}
    assert measure(1) == told
    with pytest.raises(SystemExit, match="too few to tell"):
        measure(2)


def test_a_script_is_run_twice_with_its_flags_where_nothing_is_kept(bench, tmp_path):
    (tmp_path / "ppo.py").write_text(SCRIPT)
    workload = replace(bench.workloads.tiny(bench.workloads.WORKLOADS["cartpole"]), updates=2)
    told = bench.peers.contenders(workload, cleanrl=tmp_path)["cleanrl"](3)
    assert told["steps"] == 2 * 8 * 16
    assert told["peak_megabytes"] > 1.0
    short, long = map(json.loads, (tmp_path / "seen.jsonl").read_text().splitlines())
    assert [run[0][-4:] for run in (short, long)] == [
        ["--seed", "3", "--total-timesteps", str(steps)] for steps in (128, 3 * 128)
    ]
    assert not {run[1] for run in (short, long)} & {str(tmp_path)}  # what it writes is thrown away


def test_a_script_that_fails_is_left_out_and_the_others_go_on(bench, tmp_path, capsys):
    (tmp_path / "ppo.py").write_text("raise SystemExit('no gym here')")
    broken = bench.peers.contenders(bench.workloads.tiny(bench.workloads.WORKLOADS["cartpole"]), tmp_path)["cleanrl"]
    found = bench.peers.in_turns({"cleanrl": broken, "ours": lambda seed: {"steps": seed}}, 2, "test")
    assert [(one["contender"], one["steps"]) for one in found] == [("ours", 1), ("ours", 2)]
    assert "no gym here" in "".join(capsys.readouterr())


def test_who_failed_once_is_not_tried_again_and_not_shown(bench):
    tried = []

    def flaky(seed):
        tried.append(seed)
        if seed == 2:
            raise SystemExit("broken")
        return {"steps": seed}

    found = bench.peers.in_turns({"sbx": flaky, "ours": lambda seed: {"steps": seed}}, 3, "test")
    assert tried == [1, 2]
    assert [one["contender"] for one in found] == ["ours"] * 3


def test_a_failure_of_one_of_the_two_sides_is_an_error(bench):
    def fails(seed):
        raise SystemExit("broken")

    with pytest.raises(SystemExit, match="broken"):
        bench.peers.in_turns({"ours": fails}, 1, "test")


def test_contenders_take_turns_with_the_same_seeds(bench):
    played = []
    contenders = {
        name: lambda seed, name=name: played.append(f"{name}{seed}") or {"steps": seed} for name in ("a", "b", "c")
    }
    measurements = bench.peers.in_turns(contenders, 2, "test")
    assert played == ["a1", "b1", "c1", "a2", "b2", "c2"]
    assert measurements[4] == {"contender": "b", "seed": 2, "steps": 2}


def test_what_is_not_installed_is_left_out_with_a_word_on_how_to_add_it(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench.peers, "_has", lambda module: False)
    absent = bench.peers.missing([*NAMES, "goal"], None)
    assert set(absent) == {"lunar_lander", "half_cheetah", "pong", "recurrent", "sbx", "pufferlib", "cleanrl"}
    assert "box2d" in absent["lunar_lander"]
    assert "cleanrl" not in bench.peers.missing([], tmp_path)
    only_us = ["sb3", "ours", "ours_records", "ours_batched", "ours_batched_records"]
    assert list(bench.peers.contenders(bench.workloads.WORKLOADS["cartpole"])) == only_us


def test_others_take_part_where_they_can_do_the_same_work(bench, monkeypatch):
    monkeypatch.setattr(bench.peers, "_has", lambda module: True)
    who = {name: set(bench.peers.contenders(one)) for name, one in bench.workloads.WORKLOADS.items()}
    assert {name for name in who if "sbx" in who[name]} == set(NAMES) - {"pong", "recurrent"}  # only MlpPolicy
    assert {name for name in who if "pufferlib" in who[name]} == {"cartpole", "cartpole_64x32"}  # whole rows


@pytest.mark.slow
def test_the_whole_run_in_small(bench, tmp_path, monkeypatch):
    """All workloads that can run here, with Stable-Baselines3; networks have equally many parameters on both sides."""
    pytest.importorskip("stable_baselines3", reason="pip install -r benchmarks/requirements.txt")
    out = tmp_path / "peers.json"
    monkeypatch.setattr(sys, "argv", ["peers.py", "--quick", "--out", str(out)])
    bench.peers.main()
    results = json.loads(out.read_text())
    measured = results["measurements"]
    assert set(measured) | set(results["left_out"]) >= {*NAMES, "goal"}
    for name in set(measured) - {"recurrent", "goal"}:
        assert len({run["parameters"] for run in measured[name] if run["contender"] in ("sb3", "ours")}) == 1, name
    assert str(tmp_path) not in out.read_text()
    assert "Seconds to a mean return" in bench.report.readme(results)
