"""From config.env to environments: every kind of them, and one clear line for every wrong input."""

from __future__ import annotations

import sys
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from environment import BATCHED
from ppo_lab.config import Config, EnvConfig
from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.envs.checks import check_spaces
from ppo_lab.envs.making import make_envs
from ppo_lab.errors import ConfigError, EnvError, LabError
from tests.scripted_envs import ScriptedEnv


def made(env_id: str, **settings):
    return make_envs(Config(env=EnvConfig(id=env_id, **settings)))


@pytest.fixture
def register():
    """gymnasium.register for one test."""
    ids = []

    def add(env_id: str, **how) -> str:
        ids.append(env_id)
        gymnasium.register(env_id, **how)
        return env_id

    yield add
    for env_id in ids:
        gymnasium.registry.pop(env_id, None)


# ---- what comes out --------------------------------------------------------------------------------------------------


def test_single_environments_by_default():
    envs = made("CartPole-v1", num_envs=3)
    assert isinstance(envs, SingleEnvs)
    assert (envs.num_envs, envs.next_step_autoreset, envs.device) == (3, False, torch.device("cpu"))
    assert envs.reset(1).shape == (3, 4)
    envs.close()


def test_the_same_transitions_as_gymnasium_alone():
    envs = made("CartPole-v1", num_envs=1)
    alone = gymnasium.make("CartPole-v1")
    obs = envs.reset(4)[0].numpy().copy()
    seeds = envs._loop._seed
    expected, _ = alone.reset(seed=seeds[0])
    for t in range(100):
        assert np.array_equal(obs, expected)
        expected, reward, terminated, truncated, _ = alone.step(t % 2)
        step = envs.step(torch.tensor([t % 2]))
        assert (step.reward.item(), step.terminated.item(), step.truncated.item()) == (reward, terminated, truncated)
        assert np.array_equal(step.final_obs[0], expected)
        if terminated or truncated:
            expected, _ = alone.reset(seed=seeds[0])
        obs = step.obs[0].numpy().copy()
    envs.close()
    alone.close()


def test_the_time_limit_truncates_and_can_be_set():
    for kwargs, limit in (({}, 200), ({"max_episode_steps": 7}, 7)):
        envs = made("Pendulum-v1", num_envs=2, kwargs=kwargs)
        envs.reset(1)
        flags = [envs.step(torch.zeros(2, 1)) for _ in range(limit)][-1]
        assert flags.truncated.all()
        assert not flags.terminated.any()
        assert not torch.equal(flags.obs, flags.final_obs)
        assert not envs.step(torch.zeros(2, 1)).truncated.any()
        envs.close()


def test_kwargs_reach_the_environment_and_stay_unchanged():
    kwargs = {"g": 2.0}
    envs = made("Pendulum-v1", num_envs=1, kwargs=kwargs)
    assert envs._loop._envs[0].unwrapped.g == 2.0
    assert kwargs == {"g": 2.0}
    envs.close()


def test_our_own_are_one_batched_program():
    envs = made("ppo_lab/CartPole-v1", num_envs=6, kwargs={"max_episode_steps": 9})
    assert type(envs) is BATCHED["ppo_lab/CartPole-v1"]
    assert (envs.num_envs, envs.max_episode_steps) == (6, 9)
    with pytest.raises(ConfigError, match=r"env.workers: ppo_lab/CartPole-v1 is stepped as one batched program"):
        made("ppo_lab/CartPole-v1", workers=1)
    with pytest.raises(
        ConfigError, match=r"env.kwargs: ppo_lab/CartPole-v1 takes no 'steps'; .*it takes: .*max_episode"
    ):
        made("ppo_lab/CartPole-v1", kwargs={"steps": 9})
    with pytest.raises(ConfigError, match=r"did you mean 'ppo_lab/CartPole-v1'"):
        made("ppo_lab/CartPole-v0")


def test_cartpole_as_a_vector_has_invalid_rows_exactly_after_endings():
    envs = made("CartPole-v1", num_envs=4, vector=True)
    assert isinstance(envs, VectorEnvs)
    assert envs.next_step_autoreset
    obs = envs.reset(1)
    ended = torch.zeros(4, dtype=torch.bool)
    for _ in range(300):
        step = envs.step((obs[:, 2] > 0.03).long())
        assert torch.equal(step.valid, ~ended)
        assert torch.equal(step.reward, step.valid.float())
        assert not (ended & (step.terminated | step.truncated)).any()
        assert torch.equal(step.obs, step.final_obs)
        assert (step.obs[ended].abs() <= 0.05).all()  # where an episode starts
        ended = (step.terminated | step.truncated).clone()
        obs = step.obs
    envs.close()


def test_gymnasiums_vector_cartpole_plays_by_the_rules_of_the_single_one():
    """Their state is the same program, so from the same observation the same action leads to the same step."""
    vector = made("CartPole-v1", num_envs=1, vector=True)
    single = gymnasium.make("CartPole-v1").unwrapped
    obs = vector.reset(2)
    single.reset()
    for t in range(200):
        single.state = vector._envs.unwrapped.state[:, 0].copy()
        step = vector.step(torch.tensor([t % 2]))
        if step.valid[0]:
            single.steps_beyond_terminated = None
            expected, _, terminated, _, _ = single.step(t % 2)
            assert np.allclose(step.final_obs[0], expected, atol=1e-6)
            assert step.terminated.item() == terminated
        obs = step.obs
    assert obs.shape == (1, 4)
    vector.close()


# ---- wrong inputs ----------------------------------------------------------------------------------------------------


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize(
    ("env_id", "text"),
    [
        ("CartPole-v7", "no environment 'CartPole-v7' is registered; did you mean 'CartPole-v1'"),
        ("cartpole", "no environment 'cartpole' is registered; did you mean 'CartPole-v"),
        ("LunarLander-v2", "did you mean 'LunarLander-v3'"),
        ("ppo/Nothing-like-it", "no environment 'ppo/Nothing-like-it' is registered"),
        ("zzz", "put the module of a package's environment in front: module:Name-v0"),
        ("../CartPole-v1", "no environment '../CartPole-v1'"),
        ("a\nb", "no environment"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unknown_id(env_id, text, workers):
    with pytest.raises(ConfigError, match=r"^env.id: ") as caught:
        made(env_id, workers=workers)
    assert text in one_line(caught)


def absent(monkeypatch, *modules: str) -> None:
    """As if these modules were not installed."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_a_missing_extra_names_its_install_line(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco"))]:
        monkeypatch.delitem(sys.modules, name)
    absent(monkeypatch, "Box2D", "mujoco", "jax")
    for env_id, extra in (("LunarLander-v3", "box2d"), ("Ant-v5", "mujoco"), ("phys2d/CartPole-v1", "jax")):
        for settings in ({}, {"workers": 1}):
            with pytest.raises(EnvError, match=r"needs a package that is not installed") as caught:
                made(env_id, **settings)
            assert one_line(caught).endswith(f'pip install "gymnasium[{extra}]"')


@pytest.mark.parametrize(
    ("env_id", "module", "package"),
    [("ALE/Pong-v5", "ale_py", "ale-py"), ("MiniGrid-Empty-5x5-v0", "minigrid", "minigrid")],
)
def test_a_missing_package_names_its_install_line(monkeypatch, env_id, module, package):
    absent(monkeypatch, module)
    monkeypatch.delitem(gymnasium.registry, env_id, raising=False)
    with pytest.raises(ConfigError, match=rf"'{module}', which is not installed: pip install {package}$") as caught:
        made(env_id)
    one_line(caught)


def test_a_module_prefix_imports_only_when_allowed(tmp_path, monkeypatch, register):
    (tmp_path / "some_envs.py").write_text(
        "import gymnasium\ngymnasium.register('Some-v0', entry_point='tests.scripted_envs:SeededEnv')\n"
    )
    (tmp_path / "broken_envs.py").write_text("raise OSError('no such display')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"would import 'some_envs'; set env.allow_import to true") as caught:
        made("some_envs:Some-v0")
    one_line(caught)
    assert "some_envs" not in sys.modules
    try:
        envs = made("some_envs:Some-v0", allow_import=True)
        assert envs.reset(1).shape == (8, 3)
        envs.close()
    finally:
        gymnasium.registry.pop("Some-v0", None)
        sys.modules.pop("some_envs", None)
    with pytest.raises(ConfigError, match=r"needs the module 'no_such_module', which is not installed") as caught:
        made("no_such_module:Some-v0", allow_import=True)
    one_line(caught)
    with pytest.raises(EnvError, match=r"importing 'broken_envs' failed: OSError: no such display") as caught:
        made("broken_envs:Some-v0", allow_import=True)
    one_line(caught)


@pytest.mark.parametrize("settings", [{}, {"workers": 2}, {"vector": True}])
@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        (
            {"sutton_barto": True},
            "CartPole-v1 takes no 'sutton_barto'; did you mean 'sutton_barto_reward'?; it takes: ",
        ),
        ({"xyz": 1}, "CartPole-v1 takes no 'xyz'; it takes: "),
        ({"num_envs": 3}, "CartPole-v1 takes no 'num_envs'"),
        ({"self": 3}, "CartPole-v1 takes no 'self'"),
    ],
)
def test_a_wrong_keyword(settings, kwargs, text):
    with pytest.raises(ConfigError, match=r"^env.kwargs: ") as caught:
        made("CartPole-v1", kwargs=kwargs, **settings)
    assert text in one_line(caught)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_environment_that_cannot_be_made(register, workers):
    env_id = register("test/Broken-v0", entry_point=lambda size=1: [][size])
    with pytest.raises(EnvError, match=r"^cannot make test/Broken-v0: IndexError: list index out of range$") as caught:
        made(env_id, workers=workers)
    assert isinstance(caught.value.__cause__, IndexError)
    env_id = register("test/Gone-v0", entry_point="no_such_module:Env")
    with pytest.raises(EnvError, match=r"test/Gone-v0 needs a package that is not installed: .*'no_such_module'"):
        made(env_id, workers=workers)


def test_the_environments_before_a_broken_one_are_closed(register):
    inner = []

    def create():
        if len(inner) == 3:  # the first was made to see whether there are masks
            raise ValueError("third")
        inner.append(ScriptedEnv(0, ("T",)))
        return inner[-1]

    with pytest.raises(EnvError, match=r"third"):
        made(register("test/Two-v0", entry_point=create), num_envs=3)
    assert [env.closed for env in inner] == [1, 1, 1]
    inner.clear()
    envs = made(register("test/Two-v1", entry_point=create), num_envs=2)
    assert [env.closed for env in inner] == [1, 0, 0]
    envs.close()
    assert [env.closed for env in inner] == [1, 1, 1]


GOOD = spaces.Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("observation", "action", "bad"),
    [
        (spaces.Tuple((GOOD, spaces.Text(5))), spaces.Discrete(2), "observation space Tuple.*key '1' has .* kind Text"),
        (
            spaces.Dict({"a": spaces.Dict({"b": spaces.Sequence(GOOD)})}),
            spaces.Discrete(2),
            "observation .*key 'a/b' has",
        ),
        (spaces.Dict({"a/b": spaces.Tuple((GOOD,))}), spaces.Discrete(2), "observation .*the key 'a/b'"),
        (spaces.Dict({"": GOOD}), spaces.Discrete(2), "observation .*the key ''"),
        (spaces.Dict({}), spaces.Discrete(2), "observation .*an empty Dict space"),
        (spaces.Text(5), spaces.Discrete(2), "observation space Text"),
        (spaces.Graph(GOOD, None), spaces.Discrete(2), "observation space Graph"),
        (spaces.OneOf((GOOD, GOOD)), spaces.Discrete(2), "observation space OneOf"),
        (spaces.Box(0, 9, (0,), np.float32), spaces.Discrete(2), "observation space Box.*it has no entries"),
        (spaces.Box(0, 9, (2,), np.uint64), spaces.Discrete(2), "observation space Box.*dtype uint64"),
        (GOOD, spaces.Text(5), "action space Text"),
        (GOOD, spaces.Dict({"a": spaces.Sequence(GOOD)}), "action space Dict"),
        (GOOD, spaces.Box(0, 9, (2,), np.int64), "action space Box.*dtype int64"),
        (GOOD, spaces.Box(np.zeros((9, 9)), np.ones((9, 9)), dtype=np.int32), "action space Box"),
    ],
)
def test_unsupported_spaces_are_refused(observation, action, bad):
    with pytest.raises(EnvError, match=f"^Some-v0: {bad}.*; supported: Discrete, MultiDiscrete,") as caught:
        check_spaces(observation, action, "Some-v0")
    one_line(caught)


@pytest.mark.parametrize("settings", [{}, {"workers": 2}])
def test_spaces_are_checked_before_the_first_step(settings, register):
    env_id = register("test/Text-v0", entry_point="tests.scripted_envs:TextEnv")
    with pytest.raises(EnvError, match=r"test/Text-v0.*: observation space Text.* is not supported") as caught:
        made(env_id, **settings)
    one_line(caught)


@pytest.mark.parametrize("observation", [GOOD, spaces.Discrete(4, start=-1), spaces.Box(0, 255, (4, 4, 3), np.uint8)])
@pytest.mark.parametrize("action", [GOOD, spaces.Discrete(3, start=2), spaces.Box(-np.inf, np.inf, (2, 2), np.float64)])
def test_supported_spaces_are_not(observation, action):
    check_spaces(observation, action, "Some-v0")


def test_vector_wants_a_vector_environment(register):
    with pytest.raises(ConfigError, match=r"env.vector: Pendulum-v1 has no vector environment; set") as caught:
        made("Pendulum-v1", vector=True)
    one_line(caught)
    with pytest.raises(ConfigError, match=r"env.workers: CartPole-v1 is stepped as one batched program") as caught:
        made("CartPole-v1", vector=True, workers=2)
    one_line(caught)

    class Undeclared(gymnasium.vector.VectorEnv):
        metadata: ClassVar = {"render_modes": []}

        def __init__(self, num_envs: int) -> None:
            self.num_envs, self.spec = num_envs, None

    env_id = register("test/Undeclared-v0", vector_entry_point=Undeclared)
    with pytest.raises(
        EnvError, match=r'test/Undeclared-v0: its metadata\["autoreset_mode"\] must be one of'
    ) as caught:
        made(env_id, vector=True)
    one_line(caught)


def test_every_error_is_a_lab_error():
    for error in (ConfigError, EnvError):
        assert issubclass(error, LabError)
    assert len(AutoresetMode) == 3  # a fourth mode would need an adapter
