"""Environments of other packages, where those are installed: they come through, and a run of them can go on exactly."""

from __future__ import annotations

import warnings

import pytest
import torch

from ppo_lab.config import Config, EnvConfig
from ppo_lab.config.loading import override
from ppo_lab.envs.making import make_envs, why_inexact
from ppo_lab.errors import EnvError
from ppo_lab.trees import apply, leaves

IMAGE = ({"FilterObservation": {"filter_keys": ["image"]}},)
IMAGE_AND_DIRECTION = ({"FilterObservation": {"filter_keys": ["image", "direction"]}},)
EXTRAS = [
    ("Box2D", "box2d", "LunarLander-v3", {}),
    ("Box2D", "box2d", "BipedalWalker-v3", {"time_aware": True}),
    ("mujoco", "mujoco", "HalfCheetah-v5", {}),
    ("minigrid", "minigrid", "MiniGrid-Empty-5x5-v0", {"wrappers": IMAGE}),
    (
        "minigrid",
        "minigrid",
        "MiniGrid-Empty-5x5-v0",
        {"wrappers": IMAGE_AND_DIRECTION, "frame_stack": 2, "time_aware": True},
    ),
]


@pytest.mark.parametrize(("module", "extra", "env_id", "settings"), EXTRAS)
def test_they_step_and_resume(module, extra, env_id, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo appends its warnings to a file in the current folder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they import is not ours to mend
        pytest.importorskip(module, reason=f"needs {module}: pip install ppo_lab[{extra}]")
        config = Config(env=EnvConfig(id=env_id, num_envs=2, **settings))
        if env_id == "BipedalWalker-v3":  # its physics remember earlier episodes
            assert "its Box2D world lives through all episodes" in why_inexact(config)
            config = override(config, {"env.new_each_episode": True})
        envs, other = make_envs(config), make_envs(config)
        assert why_inexact(config) is None
        envs.reset(1)

        def play(envs, begin: int, count: int) -> list[torch.Tensor]:
            seen = []
            for t in range(begin, begin + count):
                envs.action_space.seed(t)
                action = torch.as_tensor(envs.action_space.sample())
                step = envs.step(torch.stack([action, action]))
                seen += [leaf.clone() for leaf in (*leaves(step.obs), *leaves(step.final_obs), step.reward)]
            return seen

        play(envs, 0, 40)
        saved = envs.state_dict()
        expected = play(envs, 40, 90)
        other.load_state_dict(saved)
        assert all(map(torch.equal, play(other, 40, 90), expected))
        shown = apply(lambda one: one[0], envs.reset(1))
        numbers = {key: one.numpy() for key, one in shown.items()} if isinstance(shown, dict) else shown.numpy()
        assert envs.observation_space.contains(numbers)
        envs.close()
        other.close()


def test_a_mission_in_words_can_be_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("minigrid", reason="needs minigrid: pip install ppo_lab[minigrid]")
        with pytest.raises(
            EnvError, match=r"key 'mission' has a space of kind MissionSpace.*filter_keys: \[direction, im"
        ):
            make_envs(Config(env=EnvConfig(id="MiniGrid-Empty-5x5-v0", num_envs=2)))
