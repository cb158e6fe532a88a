"""Whatever people hand over in place of an environment works as one expects, or one line says what to write."""

from __future__ import annotations

import functools
import logging

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from ppo_lab import ConfigError, EnvError, LabError, RunError, Trainer, evaluate, make_envs, override
from ppo_lab.config import Config
from ppo_lab.config.loading import check_config
from ppo_lab.envs.adapters.factories import FromSpec, WithoutIndex, as_factory
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.notebook.agent.playback import show_episode
from tests.scripted import Script

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # AsyncVectorEnv forks

BOX = spaces.Box(-1, 1, (2,), np.float32)


class Mine(gymnasium.Env):
    """Six steps, a reward of one each. Its first argument is no number of an environment."""

    observation_space, action_space = BOX, spaces.Discrete(2)

    def __init__(self, render_mode=None, gravity=1.0):
        assert render_mode is None, render_mode
        self.gravity, self.closed = gravity, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), self.gravity, self.t > 5, False, {}

    def close(self):
        self.closed = True


class NoArguments(Mine):
    def __init__(self):
        super().__init__()


class Passes(Mine):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class Level(Mine):
    def __init__(self, i=None):
        super().__init__(i)


class Needs(Mine):
    def __init__(self, size, colour="red"):
        super().__init__()


class OldGym:
    observation_space, action_space = BOX, spaces.Discrete(2)

    def reset(self):
        return np.zeros(2)

    def step(self, action):
        return np.zeros(2), 1.0, False, {}


class NoSubclass(OldGym):
    def reset(self, seed=None, options=None):
        return np.zeros(2), {}


class Parallel:
    possible_agents = ("a", "b")


class Aec:
    agents = ("a", "b")

    def reset(self, seed=None): ...

    def step(self, action): ...


class DmEnv:
    def action_spec(self): ...

    def reset(self): ...

    def step(self, action): ...


class NearlyEnvs:
    num_envs, observation_space, action_space = 3, Script.observation_space, Script.action_space

    def reset(self, seed): ...

    def step(self, action): ...


class LikeEnvs(NearlyEnvs):
    device = torch.device("cpu")


class Callable:
    def __call__(self):
        return Mine()


def with_index(index):
    return Mine()


def with_both(size, index): ...


def with_keyword(*, size): ...


def with_default(render_mode=None):
    return Mine(render_mode)


@pytest.fixture(autouse=True, scope="module")
def registered():
    gymnasium.register("Mine-v0", entry_point=Mine, max_episode_steps=4)
    yield
    gymnasium.registry.pop("Mine-v0", None)


def config(**settings):
    base = {"run.root": None, "ppo.num_steps": 8, "ppo.total_timesteps": 32, "model.hidden_sizes": [8]}
    return override(Config(), {**base, "env.num_envs": 2, **settings})


def trained(given, **settings):
    trainer = Trainer(config(**settings), envs=given)
    for update in trainer:
        metrics = update.metrics
    trainer.close()
    return trainer, metrics


WORKS = {
    "a class": (lambda: Mine, 6),
    "a class without arguments": (lambda: NoArguments, 6),
    "a class that passes its arguments on": (lambda: Passes, 6),
    "a class with an argument i": (lambda: Level, 6),
    "a function of the index": (lambda: with_index, 6),
    "a function of nothing": (lambda: lambda: Mine(), 6),
    "a function of anything": (lambda: lambda *_: Mine(), 6),
    "a function with a default": (lambda: with_default, 6),
    "a callable object": (lambda: Callable(), 6),
    "a partial of gym.make": (lambda: functools.partial(gymnasium.make, "Mine-v0"), 4),
    "a partial of a class": (lambda: functools.partial(Mine, gravity=1.0), 6),
    "a partial that lacks the index": (lambda: functools.partial(lambda size, index: Mine(), 3), 6),
    "a list of instances": (lambda: [Mine(), Mine()], 6),
    "a tuple of instances": (lambda: (Mine(), Mine()), 6),
    "a list of functions": (lambda: [Mine, lambda: Mine()], 6),
    "a list of closures": (lambda: [lambda i=i: with_index(i) for i in range(2)], 6),
    "a list of ids": (lambda: ["Mine-v0"] * 2, 4),
    "gym.make": (lambda: gymnasium.make("Mine-v0"), 4),
    "an id": (lambda: "Mine-v0", 4),
    "a registered spec": (lambda: gymnasium.spec("Mine-v0"), 4),
    "the spec of an environment": (lambda: gymnasium.make("Mine-v0", gravity=1.0).spec, 4),
    "SyncVectorEnv": (lambda: SyncVectorEnv([Mine] * 2), 6),
    "AsyncVectorEnv": (lambda: AsyncVectorEnv([Mine] * 2), 6),
    "gym.make_vec": (lambda: gymnasium.make_vec("Mine-v0", 2), 4),
    "vector wrappers": (lambda: gymnasium.wrappers.vector.ClipReward(SyncVectorEnv([Mine] * 2), -2, 2), 6),
    "Envs": (lambda: VectorEnvs(SyncVectorEnv([Mine] * 2)), 6),
}


@pytest.mark.parametrize("name", WORKS)
def test_it_is_trained_in(name):
    make, length = WORKS[name]
    trainer, metrics = trained(make())
    assert (trainer.envs.num_envs, trainer.config.env.num_envs) == (2, 2)
    assert metrics["episode/return_mean"] == metrics["episode/length_mean"] == length


@pytest.mark.parametrize("name", WORKS)
def test_it_is_made_evaluated_and_looked_at(name):
    make, length = WORKS[name]
    policy = Trainer(config(), envs=Mine).policy()
    envs = make_envs(config(), env_factory=make())
    assert envs.reset(1).shape == (2, 2)
    envs.close()
    assert evaluate(policy, make(), episodes=3).returns.tolist() == [length] * 3
    if "ector" in name or "make_vec" in name or name == "Envs":
        with pytest.raises(ConfigError, match=r"env: expected one environment, got a .* of 2 environments$"):
            show_episode(policy, make())
    else:
        assert show_episode(policy, make()).length == length


class NoSpaces(gymnasium.Env):
    """Says neither what it shows nor what it takes."""


class NoActions(Mine):
    action_space = None


class Raises(Mine):
    @property
    def observation_space(self):
        raise RuntimeError("not yet")


REFUSED = {
    "no spaces": (lambda: NoSpaces, r"NoSpaces has no observation_space; .*set one, such as"),
    "objects without spaces": (lambda: [NoSpaces(), NoSpaces()], r"NoSpaces has no observation_space; .*set one"),
    "no action space": (lambda: lambda: NoActions(), r"NoActions has no action_space; .*Discrete"),
    "a space that raises": (lambda: Raises, r"observation_space of Raises raised RuntimeError: not yet"),
    "Gymnasium's base class": (lambda: gymnasium.Env, r"Env has no observation_space"),
    "an instance without a spec": (lambda: Mine(), r"got one Mine object, but env.num_envs is 2; .*lambda: Mine\(\)"),
    "an old gym environment": (lambda: OldGym(), "old gym, whose reset takes no seed; .*shimmy"),
    "no subclass": (lambda: NoSubclass(), "derive its class from gymnasium.Env"),
    "PettingZoo": (lambda: Parallel(), r"a multi-agent Parallel \(PettingZoo\)"),
    "PettingZoo AEC": (lambda: Aec(), r"a multi-agent Aec \(PettingZoo\)"),
    "dm_env": (lambda: DmEnv(), "dm_env"),
    "nearly Envs": (lambda: NearlyEnvs(), r"write class NearlyEnvs\(ppo_lab.Envs\); it has no device"),
    "Envs by its looks": (lambda: LikeEnvs(), r"that is not a ppo_lab.Envs: write class LikeEnvs\(ppo_lab.Envs\)"),
    "a number": (lambda: 3, "a int; expected a gymnasium.Env"),
    "a dictionary": (lambda: {"a": Mine()}, "a dict; expected one"),
    "an empty list": (list, "an empty list"),
    "a list of both": (lambda: [Mine, Mine()], r"envs\[1\]: an environment among functions"),
    "a list of vectors": (lambda: [SyncVectorEnv([Mine])] * 2, r"envs\[0\]: a SyncVectorEnv of 1 environments"),
    "a list of lists": (lambda: [[Mine()]], r"envs\[0\]: a list"),
    "a list of nothing": (lambda: [None, None], r"envs\[0\]: None instead of a gymnasium.Env"),
    "the same twice": (lambda: [Mine()] * 2, "environments 0 and 1 are the same Mine object"),
    "wrapped the same": (
        lambda: [gymnasium.wrappers.TimeLimit(env, 3) for env in [Mine()] * 2],
        "the same Mine object",
    ),
    "the same in a vector": (lambda: SyncVectorEnv([lambda env=Mine(): env] * 2), "0 and 1 are the same Mine"),  # noqa: B008
    "an unknown id": (lambda: "Mime-v0", "no environment 'Mime-v0' is registered; did you mean 'Mine-v0'"),
    "a class that needs arguments": (
        lambda: Needs,
        r"the class Needs needs size; write envs=.*Needs\(size=...\)",
    ),
    "a vector class": (
        lambda: SyncVectorEnv,
        r"the class SyncVectorEnv instead of an environment; pass SyncVectorEnv\(...\)",
    ),
    "a function of two": (lambda: with_both, r"the function with_both needs size, index"),
    "a function with a keyword": (lambda: with_keyword, r"the function with_keyword needs size"),
    "makes None": (lambda: lambda: None, r"env_factory\(0\) made None instead of a gymnasium.Env.*`return`"),
    "makes a function": (lambda: lambda i: lambda: Mine(), r"made a function that must be called once more"),
    "makes a class": (lambda: lambda: Mine, r"made the class Mine instead of an environment: pass Mine\(\)"),
    "makes an id": (
        lambda: lambda i: "Mine-v0",
        r"made the id 'Mine-v0' instead of an environment: use gymnasium.make",
    ),
    "makes a vector": (lambda: lambda: SyncVectorEnv([Mine] * 2), r"made a SyncVectorEnv of 2 environments: pass it"),
    "makes Envs": (lambda: lambda: Script(["..."]), r"made a Script of 3 environments: pass it"),
    "makes a list": (lambda: lambda: [Mine()], r"made a list"),
    "makes an old gym": (lambda: lambda i: OldGym(), r"made a OldGym of the old gym"),
    "makes PettingZoo": (lambda: lambda i: Parallel(), r"made a multi-agent Parallel"),
    "always the same": (lambda: lambda one=Mine(): one, "the same Mine object"),  # noqa: B008
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_line_says_what_to_write(name):
    make, text = REFUSED[name]
    with pytest.raises(LabError, match=text) as caught:
        Trainer(config(), envs=make())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [name for name in REFUSED if not name.startswith("an instance")])
def test_and_so_does_evaluate(name):
    make, text = REFUSED[name]
    policy = Trainer(config(), envs=Mine).policy()
    with pytest.raises(LabError, match=text.replace("envs", "env")):
        evaluate(policy, make(), episodes=4)


def test_one_object_is_refused_in_a_worker_too():
    with pytest.raises(EnvError, match="environments 0 and 1 are the same Mine object"):
        make_envs(config(**{"env.workers": 1}), env_factory=hand_out_one)


ONE = Mine()


def hand_out_one(index):
    return ONE


# ---- what becomes of it ----------------------------------------------------------------------------------------------


def test_one_environment_is_used_itself_where_one_is_asked_for():
    env = gymnasium.make("Mine-v0")
    env.unwrapped.gravity = 5.0
    _, metrics = trained(env, **{"env.num_envs": 1})
    assert metrics["episode/return_mean"] == 20
    assert env.unwrapped.closed, "the trainer took it over"


def test_more_of_it_are_made_from_its_spec_and_it_is_said(caplog):
    env = gymnasium.make("Mine-v0", gravity=2.0)
    env.unwrapped.gravity = 5.0
    with caplog.at_level(logging.WARNING, "ppo_lab"):
        trainer, metrics = trained(env)
    assert metrics["episode/return_mean"] == 8
    assert "Mine is recreated from its spec, without any changes that were made to the object" in caplog.text
    assert isinstance(trainer.env_factory, FromSpec)


def test_a_wrapper_that_cannot_be_made_again_is_refused():
    class Secret(gymnasium.Wrapper):
        pass

    with pytest.raises(ConfigError, match=r"cannot make a second Mine from the spec.*or set env.num_envs to 1"):
        Trainer(config(), envs=Secret(gymnasium.make("Mine-v0")))
    trained(Secret(gymnasium.make("Mine-v0")), **{"env.num_envs": 1})


def test_the_number_handed_over_rules():
    for given, number in (([Mine() for _ in range(3)], 3), ([Mine] * 4, 4), (SyncVectorEnv([Mine] * 3), 3)):
        for asked in (2, "auto"):
            trainer, _ = trained(given, **{"env.num_envs": asked})
            assert trainer.envs.num_envs == trainer.config.env.num_envs == number
            if not callable(trainer.env_factory):
                break
    assert trained(Mine(), **{"env.num_envs": "auto"})[0].config.env.num_envs == 1


def test_evaluation_plays_the_object_itself_and_leaves_it_open():
    policy = Trainer(config(), envs=Mine).policy()
    env = gymnasium.make("Mine-v0")
    env.unwrapped.gravity = 3.0
    assert evaluate(policy, env, episodes=3).returns.tolist() == [12.0] * 3
    assert show_episode(policy, env).episode_return == 12.0
    several = [Mine(), Mine()]
    vector = SyncVectorEnv([Mine] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    for given in (several, vector):
        assert evaluate(policy, given, episodes=5).returns.tolist() == [6.0] * 5
    assert not env.unwrapped.closed
    assert not any(one.closed for one in several)
    vector.step(np.zeros(2, np.int64))
    with pytest.raises(ConfigError, match=r"env: environments \(Mine\) and an env_factory as well"):
        evaluate(policy, Mine(), env_factory=Mine)


def test_nothing_is_not_the_default_environment():
    policy = Trainer(config(), envs=Mine).policy()
    for look in (evaluate, show_episode):
        with pytest.raises(ConfigError, match="env: None; expected an id"):
            look(policy, None)


def test_settings_that_what_exists_cannot_follow_are_refused():
    for key, value in (("workers", 2), ("retry", 1), ("kwargs", {"a": 1}), ("vector", True)):
        for given in ([Mine(), Mine()], SyncVectorEnv([Mine] * 2)):
            with pytest.raises(ConfigError, match=rf"env.{key}: .*pass a function instead of a (Mine|SyncVectorEnv)$"):
                Trainer(config(**{f"env.{key}": value}), envs=given)
    with pytest.raises(ConfigError, match=r"run.eval_every: environments passed as objects cannot be recreated"):
        Trainer(config(**{"run.eval_every": 8}), envs=[Mine(), Mine()])


@pytest.mark.parametrize("given", [lambda: [Mine(), Mine()], lambda: SyncVectorEnv([Mine] * 2), lambda: Mine])
def test_stacks_and_the_time_are_put_around_them(given):
    assert make_envs(config(**{"env.frame_stack": 3}), env_factory=given()).reset(1).shape == (2, 6)
    wrapped = {"env.wrappers": [{"TimeLimit": {"max_episode_steps": 3}}], "env.time_aware": True}
    if not isinstance(given(), SyncVectorEnv):
        assert make_envs(config(**wrapped), env_factory=given()).reset(1).shape == (2, 3)


def test_workers_take_classes_partials_and_specs():
    for given in (functools.partial(gymnasium.make, "CartPole-v1"), [Mine, Mine]):
        envs = make_envs(config(**{"env.workers": 2}), env_factory=given)
        assert len(envs.reset(1)) == 2
        envs.close()


def on_disk(tmp_path, **settings):
    return config(**{"run.root": str(tmp_path), "run.name": "one", "run.tensorboard": False, **settings})


def test_a_run_with_an_id_handed_over_needs_nothing_to_go_on(tmp_path):
    trainer = Trainer(on_disk(tmp_path), envs="CartPole-v1")
    next(iter(trainer))
    trainer.save()
    trainer.close()
    again = Trainer.resume(tmp_path / "one")
    assert (again.config.env.id, again.envs_given) == ("CartPole-v1", False)
    again.close()
    with pytest.raises(RunError, match=r"\(env.id CartPole-v1 -> Mine-v0\) use Trainer.fork"):
        Trainer.resume(tmp_path / "one", envs="Mine-v0")
    forked = Trainer.fork(tmp_path / "one")
    assert forked.config.env.id == "CartPole-v1"
    forked.close()


@pytest.mark.parametrize("given", [lambda: [Mine(), Mine()], lambda: Mine, lambda: [Mine, Mine]])
def test_a_run_goes_on_with_the_same_handed_over_again(tmp_path, given):
    trainer = Trainer(on_disk(tmp_path), envs=given())
    next(iter(trainer))
    trainer.save()
    rest = [update.metrics["loss/policy"] for update in trainer]
    trainer.close()
    with pytest.raises(RunError, match="pass them again"):
        Trainer.resume(tmp_path / "one")
    again = Trainer.resume(tmp_path / "one", envs=given())
    assert again.inexact is None
    again.close()
    assert rest


def test_another_number_of_them_is_a_fork(tmp_path):
    trainer = Trainer(on_disk(tmp_path), envs=[Mine(), Mine()])
    next(iter(trainer))
    trainer.save()
    trainer.close()
    with pytest.raises(RunError, match=r"\(env.num_envs 2 -> 3\) use Trainer.fork"):
        Trainer.resume(tmp_path / "one", envs=[Mine() for _ in range(3)])
    forked = Trainer.fork(tmp_path / "one", envs=[Mine() for _ in range(3)])
    assert forked.envs.num_envs == forked.config.env.num_envs == 3
    forked.close()


def test_which_argument_is_the_index():
    assert as_factory(with_index) is with_index
    for given in (lambda index=0: index, lambda i=0: i, lambda rank, size=3: rank, lambda *_: _[0]):
        assert as_factory(given)(7) == 7
    for given in (lambda size=3: size, lambda: 3, functools.partial(lambda i: i, 3)):
        assert isinstance(as_factory(given), WithoutIndex)
        assert as_factory(given)(7) == 3
    assert as_factory(as_factory(Mine)) == as_factory(Mine)  # understood twice


class RaisingSpec(Mine):
    @property
    def spec(self):
        raise RuntimeError("spec!")


class RaisingAttributes(Mine):
    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("kind", [RaisingSpec, RaisingAttributes])
def test_what_raises_beside_reset_and_step_does_not_matter(kind):
    assert trained(kind)


@pytest.mark.parametrize("place", [None, 3, [], config()])
def test_what_is_no_place_of_a_run_is_named(place):
    for call in (Trainer.resume, Trainer.fork):
        with pytest.raises(RunError, match=r"^run: expected the path of a run's folder, such as 'runs/name', got "):
            call(place)


@pytest.mark.parametrize("given", [{"env.id": "CartPole-v1"}, "CartPole-v1", None, Config])
def test_what_is_no_config_is_told_of_load_config(given):
    with pytest.raises(ConfigError, match=r"^config: expected a Config, such as load_config\(.*, got (a|the|None)"):
        check_config(given)
    assert check_config(config()) == config()
