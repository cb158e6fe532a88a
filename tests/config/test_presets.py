"""Every preset of config.yaml makes environments and a model that take a step, where its package is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from ppo_lab.config.loading import load_config
from ppo_lab.config.yaml_text import parse_yaml
from ppo_lab.training.trainer import Trainer

FILE = Path(__file__).resolve().parents[2] / "config.yaml"
PRESETS = parse_yaml(FILE.read_text())["presets"]
NEEDS = {
    "lunar_lander": "Box2D", "bipedal_walker": "Box2D", "half_cheetah": "mujoco", "hopper": "mujoco",
    "walker2d": "mujoco", "door_key": "minigrid", "pong": "ale_py", "pong_small": "ale_py", "breakout": "ale_py",
}  # fmt: skip
ASKED_FOR = {
    "cartpole", "acrobot", "mountain_car_continuous", "pendulum", "lunar_lander", "bipedal_walker", "half_cheetah",
    "hopper", "walker2d", "pong", "pong_small", "breakout", "door_key", "cartpole_no_velocity",
}  # fmt: skip


def test_the_tasks_everybody_asks_for_are_there():
    assert PRESETS.keys() >= ASKED_FOR


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages that environments stand on
def test_it_takes_an_update(preset):
    if preset in NEEDS and find_spec(NEEDS[preset]) is None:
        pytest.skip(f"{NEEDS[preset]} is not installed")
    few = {"env.num_envs": 2, "ppo.num_steps": 8, "ppo.update_epochs": 1, "ppo.num_minibatches": 2, "run.root": None}
    trainer = Trainer(load_config(FILE, preset, {**few, "ppo.total_timesteps": 16}))
    (update,) = list(trainer)
    trainer.close()
    assert update.global_step == 16
