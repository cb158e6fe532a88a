"""Masks beside the observation are used or said to be ignored, and where nothing is legal nobody plays on."""

from __future__ import annotations

import logging
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from ppo_lab import ConfigError, EnvError, Trainer, evaluate, make_envs, override
from ppo_lab.config import Config, EnvConfig
from ppo_lab.envs.adapters import info_masks, vector_checks
from ppo_lab.envs.adapters.info_masks import NEAR_INFO, NEAR_KEYS, NEAR_NAMES, WRITE
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.models.distributions import check_mask
from ppo_lab.notebook.agent.playback import show_episode

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # AsyncVectorEnv forks


class Game(gymnasium.Env):
    """Take one of 6 stones, each once. An illegal action is counted; `where` says how the legal ones are told."""

    action_space = spaces.Discrete(6)
    observation_space = spaces.MultiBinary(6)
    metadata: ClassVar = {"render_modes": []}
    illegal = 0

    def __init__(self, where="info", kind=np.int8, dead_at=0, width=6):
        self.where, self.kind, self.dead_at, self.width = where, kind, dead_at, width
        if where == "observation":
            self.observation_space = spaces.Dict(stones=spaces.MultiBinary(6), action_mask=spaces.Box(0, 1, (6,), kind))
        if where == "method":
            self.action_masks = self.mask

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.free = np.ones(6, np.int8)
        return self.show(), self.info()

    def mask(self):
        return self.free.astype(self.kind)[: self.width]

    def show(self):
        return {"stones": self.free.copy(), "action_mask": self.mask()} if self.where == "observation" else self.free

    def info(self):
        return {"action_mask": self.mask()} if self.where == "info" else {}

    def step(self, action):
        Game.illegal += not self.free[action]
        self.free[action] = 0
        over = not self.free.any()
        if self.free.sum() == self.dead_at:
            self.free[:] = 0
        return self.show(), 1.0, over, False, self.info()


class Wrapped(gymnasium.Wrapper):
    """A wrapper that offers the masks, as sb3-contrib's ActionMasker does."""

    def action_masks(self):
        return self.unwrapped.mask()


def config(**settings):
    base = {"run.root": None, "ppo.num_steps": 16, "ppo.total_timesteps": 64, "model.hidden_sizes": [8]}
    return override(Config(), {**base, "env.num_envs": 2, **settings})


OFFERS = {
    "info": lambda: Game("info"),
    "info, bool": lambda: Game("info", np.bool_),
    "info, float": lambda: Game("info", np.float32),
    "method": lambda: Game("method"),
    "method below a wrapper": lambda: gymnasium.wrappers.TimeLimit(Game("method", np.float64), 20),
    "method of a wrapper": lambda: Wrapped(Game("nowhere")),
    "observation": lambda: Game("observation"),
    "observation, float": lambda: Game("observation", np.float32),
}


@pytest.mark.parametrize("name", OFFERS)
def test_nobody_plays_what_is_illegal(name, caplog):
    Game.illegal = 0
    with caplog.at_level(logging.INFO, "ppo_lab"):
        trainer = Trainer(config(), envs=OFFERS[name])
    told = [record.getMessage() for record in caplog.records if "action masks are taken from" in record.getMessage()]
    where = [] if "observation" in name else ["info['action_mask']" if "info" in name else "action_masks()"]
    assert told == [f"env_factory: action masks are taken from {one} (env.mask_from_info)" for one in where]
    for update in trainer:
        assert update.metrics["episode/return_mean"] == update.metrics["episode/length_mean"] == 6
    assert evaluate(trainer.policy(), trainer.config, episodes=4, env_factory=OFFERS[name]).lengths.tolist() == [6] * 4
    assert evaluate(trainer.policy(), OFFERS[name](), episodes=2).lengths.tolist() == [6] * 2
    assert show_episode(trainer.policy(), OFFERS[name]()).length == 6
    assert Game.illegal == 0


@pytest.mark.parametrize("name", [name for name in OFFERS if "observation" not in name])
def test_false_ignores_them_and_says_so(name, caplog):
    with caplog.at_level(logging.INFO, "ppo_lab"):
        trainer = Trainer(config(**{"env.mask_from_info": False}), envs=OFFERS[name])
    assert "is ignored, as env.mask_from_info is false; set it to auto or true to use it" in caplog.text
    assert trainer.envs.observation_space == spaces.MultiBinary(6)


def test_true_takes_the_method_too():
    envs = make_envs(config(**{"env.mask_from_info": True}), env_factory=OFFERS["method"])
    assert envs.reset(1)["action_mask"].all()
    with pytest.raises(
        EnvError, match=r"info has no 'action_mask' \(its keys: none\); set it to false to train without masks"
    ):
        make_envs(config(**{"env.mask_from_info": True}), env_factory=lambda: Game("nowhere")).reset(1)


def test_what_does_not_fit_is_ignored_and_said(caplog):
    def half():
        return Game("info", width=3)

    Plain = type("Plain", (Game,), {"action_masks": lambda self, agent: None})  # another convention
    Broken = type("Broken", (Game,), {"action_masks": lambda self: 1 / 0})
    for make, text in (
        (half, "3 entries, Discrete(6) takes 6"),
        (lambda: Broken("nowhere"), "action_masks() is ignored: ZeroDivisionError"),
    ):
        caplog.clear()
        trainer = Trainer(config(), envs=make)
        assert trainer.envs.observation_space == spaces.MultiBinary(6)
        assert text in caplog.text
    caplog.clear()
    assert Trainer(config(), envs=lambda: Plain("nowhere")).envs.observation_space == spaces.MultiBinary(6)
    assert not caplog.records


def test_without_masks_nothing_is_said_and_nothing_changes(caplog):
    with caplog.at_level(logging.INFO, "ppo_lab"):
        for settings in ({}, {"env.id": "Pendulum-v1"}, {"env.id": "ppo_lab/CartPole-v1"}):
            envs = Trainer(config(**settings)).envs
            assert not isinstance(envs.observation_space, spaces.Dict)
    assert "mask" not in caplog.text


def test_a_registered_environment_with_masks_in_info_is_masked():
    envs = make_envs(Config(env=EnvConfig(id="Taxi-v4", num_envs=1)))
    assert list(envs.reset(1)) == ["obs", "action_mask"]


def test_workers_find_the_same():
    settings = {"env.workers": 2, "env.id": "Taxi-v4"}
    here, there = make_envs(config(**{**settings, "env.workers": 0})), make_envs(config(**settings))
    one, other = here.reset(3), there.reset(3)
    assert one.keys() == other.keys() == {"obs", "action_mask"}
    assert all(torch.equal(one[key], other[key]) for key in one)
    there.close()


@pytest.mark.parametrize("mask", [
    np.array([0, 1, 1, 1, 0]), [0, 1, 1, 1, 0], (0, 1, 1, 1, 0), ([0, 1], [1, 1, 0]),
    [np.array([0, 1]), np.array([1, 1, 0])],
    (np.array([False, True]), np.array([1.0, 1.0, 0.0])), np.array([np.array([0, 1]), np.array([1, 1, 0])], object),
])  # fmt: skip
def test_masks_of_several_choices_may_be_flat_or_nested(mask):
    class Two(Game):
        action_space = spaces.MultiDiscrete([2, 3])

        def info(self):
            return {"action_mask": mask}

    envs = make_envs(config(**{"env.num_envs": 1}), env_factory=Two)
    assert envs.reset(1)["action_mask"].int().tolist() == [[0, 1, 1, 1, 0]]


def test_a_mask_of_logits_is_refused():
    class Late(Game):
        def mask(self):
            return self.free if self.free.all() else np.where(self.free, 0.0, -np.inf)

    envs = make_envs(config(), env_factory=Late)
    envs.reset(1)
    with pytest.raises(EnvError, match=r"a mask of dtype float64 that holds -inf; expected 0 or 1 for each action"):
        envs.step(torch.zeros(2, dtype=torch.int64))


def test_a_run_decides_the_same_when_it_goes_on(tmp_path):
    settings = config(**{"run.root": str(tmp_path), "run.name": "one", "run.tensorboard": False})
    trainer = Trainer(settings, envs=OFFERS["method"])
    next(iter(trainer))
    trainer.save()
    trainer.close()
    again = Trainer.resume(tmp_path / "one", envs=OFFERS["method"])
    assert (again.config.env.mask_from_info, again.inexact) == ("auto", None)
    assert again.state.model.masked
    again.close()


# ---- vector environments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["info", "method"])
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_a_vector_environment_says_that_they_are_ignored(name, kind, caplog, monkeypatch):
    monkeypatch.setattr(vector_checks, "_told", set())
    envs = VectorEnvs(kind([OFFERS[name]] * 2))
    envs.reset(1)
    envs.reset(1)
    assert caplog.text.count(f"{kind.__name__}: {'info' if name == 'info' else 'action_masks'}") == 1
    assert "is ignored: a vector environment must have its masks in the observation" in caplog.text
    envs.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("dead_at", [0, 2])
def test_no_legal_action_is_an_error_in_a_live_row_only(mode, dead_at):
    """With next-step autoreset the last observation has nothing legal either, and nothing is chosen there."""
    Game.illegal = 0
    make = [lambda: Game("observation", dead_at=dead_at)] * 2
    trainer = Trainer(config(), envs=SyncVectorEnv(make, autoreset_mode=mode))
    if dead_at:
        with pytest.raises(EnvError, match=r"environment 0 has no legal action: its action_mask is False everywhere"):
            list(trainer)
        assert Game.illegal <= 2  # one step of both, at most: which row merely resets is known after it
    else:
        assert list(trainer)
        assert Game.illegal == 0
    trainer.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_evaluation_and_playback_stop_there_too(mode):
    policy = Trainer(config(), envs=lambda: Game("observation")).policy()
    make = [lambda: Game("observation", dead_at=2)] * 2
    text = r"environment 0 has no legal action"
    with pytest.raises(EnvError, match=text):
        evaluate(policy, SyncVectorEnv(make, autoreset_mode=mode), episodes=2)
    with pytest.raises(EnvError, match=text):
        show_episode(policy, make[0])
    whole = SyncVectorEnv([lambda: Game("observation")] * 2, autoreset_mode=mode)
    assert evaluate(policy, whole, episodes=6).lengths.tolist() == [6] * 6


def test_rows_that_are_not_live_may_have_nothing_legal():
    mask = torch.tensor([[1, 0, 0], [0, 0, 0]])
    check_mask(mask, [3], torch.tensor([True, False]))
    with pytest.raises(EnvError, match="environment 1 has no legal action"):
        check_mask(mask, [3], torch.tensor([False, True]))


# ---- predict ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["info", "observation"])
def test_predict_wants_a_mask_that_leaves_something(name):
    policy = Trainer(config(), envs=OFFERS[name]).policy()
    key = "obs" if name == "info" else "stones"
    stones = np.ones(6, np.int8)
    assert policy.predict({key: stones, "action_mask": np.array([0, 0, 1, 0, 0, 0])}) == 2
    whole = f"pass {{'{key}': ..., 'action_mask': ...}}"
    for obs in (stones, {key: stones}):
        with pytest.raises(ConfigError, match=r"the key 'action_mask' is missing, .*6 entries, 1 is legal") as caught:
            policy.predict(obs)
        assert whole in str(caught.value)
    with pytest.raises(EnvError, match="has no legal action"):
        policy.predict({key: stones, "action_mask": np.zeros(6)})
    batch = {key: np.stack([stones] * 2), "action_mask": np.eye(6)[[1, 4]]}
    assert policy.predict(batch).tolist() == [1, 4]
    batch["action_mask"][1] = 0
    with pytest.raises(EnvError, match="environment 1 has no legal action"):
        policy.predict(batch)


def test_looking_for_masks_is_not_seen_by_what_classes_remember():
    class Counted(Game):
        resets = 0

        def reset(self, **how):
            type(self).resets += 1
            return super().reset(**how)

    for where in ("nowhere", "info"):
        Counted.resets = 0
        envs = make_envs(config(), env_factory=lambda where=where: Counted(where))
        assert Counted.resets == 0
        envs.reset(1)
        assert Counted.resets == 2


class NamedOtherwise(Game):
    """The mask is where `place` says, under the name `key`; `late`: in the info of steps only, `early`: of reset."""

    def __init__(self, place, key, kind=None):
        super().__init__("nowhere")
        self.place, self.key, self.when = place, key, kind
        if place == "observation":
            self.observation_space = spaces.Dict({"stones": spaces.MultiBinary(6), key: spaces.MultiBinary(6)})
        if place == "attribute":
            setattr(self, key, self.forbidden)

    def forbidden(self):
        raise AssertionError("it was called")

    def reset(self, **how):
        self.begun = True
        return super().reset(**how)

    def show(self):
        return {"stones": self.free.copy(), self.key: self.mask()} if self.place == "observation" else self.free

    def info(self):
        first, self.begun = self.begun, False
        if self.place == "nested":
            return {"env": {self.key: self.mask()}}
        told = self.place == "info" and (self.when is None or first == (self.when == "early"))
        return {self.key: self.mask()} if told else {}


NEAR = {
    **{f"info {key}": (("info", key), f"info['{key}']") for key in NEAR_INFO},
    **{
        f"attribute {key}": (("attribute", key), f"NamedOtherwise.{key}") for key in NEAR_NAMES if key != "action_masks"
    },
    **{f"observation {key}": (("observation", key), f"'{key}' of the observation") for key in NEAR_KEYS},
    "nested": (("nested", "action_mask"), "info['env']['action_mask']"),
}


@pytest.mark.parametrize("name", NEAR)
def test_a_mask_of_another_name_is_said_to_be_unused_once(name, caplog):
    how, where = NEAR[name]
    list(Trainer(config(), envs=lambda: NamedOtherwise(*how)))
    lines = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert lines == [f"env_factory: {where} is not used as an action mask; {WRITE}"]
    caplog.clear()
    list(Trainer(config(**{"env.mask_from_info": False}), envs=lambda: NamedOtherwise(*how)))
    assert not [one for one in caplog.records if one.levelno == logging.WARNING]


def test_nothing_is_said_where_nothing_can_be_masked(caplog):
    class Moving(NamedOtherwise):
        action_space = spaces.Box(-1, 1, (6,))

        def step(self, action):
            return super().step(int(np.argmax(action)))

    envs = make_envs(config(), env_factory=lambda: Moving("info", "legal_actions"), aloud=True)
    envs.reset(1)
    envs.step(torch.zeros(2, 6))
    assert not caplog.records


def test_a_mask_at_the_reset_alone_is_an_error_that_says_so():
    with pytest.raises(
        EnvError, match=r"info of step has no 'action_mask' \(its keys: none\); the info of reset had one"
    ):
        list(Trainer(config(), envs=lambda: NamedOtherwise("info", "action_mask", "early")))


@pytest.mark.parametrize("made", ["function", "objects"])
def test_a_mask_in_steps_alone_is_said_to_be_unused_once(made, caplog, monkeypatch):
    monkeypatch.setattr(info_masks, "_told", set())
    make = lambda: NamedOtherwise("info", "action_mask", "late")  # noqa: E731
    list(Trainer(config(), envs=make if made == "function" else [make(), make()]))
    lines = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert lines == [
        "NamedOtherwise: info['action_mask'] of step is ignored: the info of reset has none, and must have one too"
    ]


@pytest.mark.parametrize("name", ["info legal_moves", "observation mask"])
def test_a_vector_environment_says_that_another_name_is_ignored(name, caplog, monkeypatch):
    monkeypatch.setattr(vector_checks, "_told", set())
    how, where = NEAR[name]
    envs = VectorEnvs(SyncVectorEnv([lambda: NamedOtherwise(*how)] * 2))
    envs.reset(1)
    envs.reset(2)
    assert [one.getMessage() for one in caplog.records] == [
        f"SyncVectorEnv: {where} is ignored: a vector environment must have its masks in the observation, "
        "as 'action_mask'"
    ]
