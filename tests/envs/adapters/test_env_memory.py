"""A stopped run goes on bit for bit, or it says so: environments in which something outlives an episode."""

from __future__ import annotations

import collections
import json
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ppo_lab import Config, Trainer, override
from ppo_lab.envs.adapters.attributes import look
from ppo_lab.envs.adapters.env_memory import EnvMemory
from ppo_lab.envs.adapters.plain_data import OpaqueError, decode, encode
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.metrics import read_rows
from ppo_lab.runs.run import find_checkpoint
from tests.envs_with_a_past import (
    SAVED,
    WITH_A_PAST,
    WITHOUT_ONE,
    WORLD,
    Counter,
    Cycle,
    Endless,
    Guess,
    OnTheClass,
    WithStateDict,
)

BASE = {
    "env.num_envs": 3, "model.hidden_sizes": [8], "run.tensorboard": False, "run.checkpoint_every": 0,
    "ppo": {"num_steps": 16, "total_timesteps": 960, "update_epochs": 1, "num_minibatches": 2},
}  # fmt: skip


def title(make):
    return getattr(make, "__name__", "?")


def trained(config, make, updates=None):
    OnTheClass.episodes = WORLD["age"] = 0  # as in a process of its own
    trainer = Trainer(config, envs=make if isinstance(make, Plain) else lambda i: make())
    for update in trainer:
        if update.update == updates:
            break
    return trainer


def cut_and_resumed(make, folder, at, **more):
    """The fingerprint of a whole run, that of one stopped and resumed, and what the latter said."""
    config = override(override(Config(), BASE), {"run.root": str(folder), **more})
    whole = trained(override(config, {"run.name": "whole"}), make)
    whole.close()
    cut = trained(override(config, {"run.name": "cut"}), make, at)
    said = cut.inexact
    cut.save()
    cut.close()
    OnTheClass.episodes = WORLD["age"] = 0
    again = Trainer.resume(folder / "cut", envs=make if isinstance(make, Plain) else lambda i: make())
    list(again)
    again.close()
    rows = [[{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_rows(folder / name)]
            for name in ("whole", "cut")]  # fmt: skip
    assert (whole.fingerprint() == again.fingerprint()) == (rows[0] == rows[1])
    return whole.fingerprint(), again.fingerprint(), said or again.inexact


@pytest.mark.parametrize("make", WITH_A_PAST, ids=title)
@pytest.mark.parametrize("at", [7, 13])
def test_a_run_goes_on_bit_for_bit_or_it_says_so(make, at, tmp_path):
    whole, resumed, said = cut_and_resumed(make, tmp_path, at)
    assert whole == resumed or said is not None
    if make in SAVED:
        assert said is None


@pytest.mark.parametrize("make", [Counter, Cycle, WithStateDict], ids=title)
def test_workers_remember_as_one_process_does(make, tmp_path):
    whole, resumed, said = cut_and_resumed(Plain(make), tmp_path, 7, **{"env.workers": 2})
    assert (whole == resumed) == (said is None) == (make is not Cycle)


class Plain:
    """A factory that a worker can import."""

    def __init__(self, make):
        self.make = make

    def __call__(self, index=0):
        return self.make()


@pytest.mark.parametrize("make", WITHOUT_ONE, ids=title)
def test_what_does_not_matter_is_no_reason(make, tmp_path):
    whole, resumed, said = cut_and_resumed(make, tmp_path, 7)
    assert said is None
    assert whole == resumed


@pytest.mark.parametrize("make", [Cycle, Counter], ids=title)
def test_a_new_object_for_each_episode_has_no_past(make, tmp_path):
    whole, resumed, said = cut_and_resumed(make, tmp_path, 7, **{"env.new_each_episode": True})
    assert whole == resumed
    assert said is None


def test_a_new_object_each_episode_has_to_be_new():
    one = Guess()
    with pytest.raises(Exception, match="the same object was returned again"):
        trained(override(override(Config(), BASE), {"run.root": None, "env.new_each_episode": True, "env.num_envs": 1}),
                lambda: one)  # fmt: skip


def test_a_checkpoint_and_the_table_say_why(tmp_path):
    config = override(override(Config(), BASE), {"run.root": str(tmp_path), "run.name": "one"})
    trainer = trained(config, Cycle, 3)
    assert "the iterator env.prices is kept across episodes" in trainer.inexact
    assert "state_dict" in trainer.inexact
    trainer.save()
    trainer.close()
    about = load_checkpoint(find_checkpoint(tmp_path / "one")[0])["about"]
    assert about["exact_resume"] is False
    assert about["inexact_because"] == trainer.inexact


def test_a_hook_that_is_meant_for_something_else_is_left_alone(tmp_path):
    class Secretive(Counter):
        def get_state(self):
            return object()

        def set_state(self, state):
            raise AssertionError

    class OfAPlayer(Counter):
        def get_state(self, player):
            raise AssertionError

        def set_state(self, state):
            raise AssertionError

    for i, make in enumerate((Secretive, OfAPlayer)):
        whole, resumed, said = cut_and_resumed(make, tmp_path / str(i), 7)
        assert whole == resumed
        assert said is None


def test_trying_things_out_leaves_what_classes_hold_as_it_was(tmp_path):
    OnTheClass.episodes = 0
    config = override(override(Config(), BASE), {"run.root": str(tmp_path), "env.num_envs": 2})
    trainer = Trainer(config, envs=lambda i: OnTheClass())
    assert OnTheClass.episodes == 2  # one reset each
    trainer.close()


class Tables(Guess):
    """Classes hold containers of many kinds, two of them by two names."""

    shared: ClassVar = {"a": collections.Counter({"x": 2})}
    tables: ClassVar = {
        "a": shared["a"], "lasts": collections.deque([1], maxlen=3), "data": bytearray(b"abc"),
        "lists": collections.defaultdict(list, {"k": [1]}), "ordered": collections.OrderedDict(b=1, a=2),
    }  # fmt: skip
    begun: ClassVar = collections.defaultdict(lambda: collections.defaultdict(list))

    def begin(self):
        self.tables["lasts"].append(self.t)
        self.tables["data"][0] = 120
        self.tables["lists"]["new"].append(1)
        self.shared["a"]["y"] += 1


def test_trying_things_out_leaves_containers_of_classes_the_very_same(tmp_path):
    before = {key: (id(value), type(value), repr(value)) for key, value in Tables.tables.items()}
    config = override(override(Config(), BASE), {"run.root": str(tmp_path), "env.num_envs": 1})
    trainer = Trainer(config, envs=lambda i: Tables())
    assert Tables.shared["a"]["y"] == 1  # the reset of the run's own environment
    assert Tables.tables["a"] is Tables.shared["a"]
    assert Tables.tables["lasts"].maxlen == 3
    assert type(Tables.tables["data"]) is bytearray
    assert Tables.tables["lists"].default_factory is list
    assert {key: value[:2] for key, value in before.items()} == {
        key: (id(value), type(value)) for key, value in Tables.tables.items()
    }
    trainer.close()


class Shared(Guess):
    def __init__(self, curriculum):
        self.curriculum = curriculum

    def begin(self):
        self.curriculum["level"] += 1

    def price(self):
        return 0.01 * self.curriculum["level"]


def test_trying_things_out_leaves_what_a_factory_shares_as_it_was(tmp_path):
    curriculum = {"level": 0}
    config = override(override(Config(), BASE), {"run.root": str(tmp_path), "env.num_envs": 2})
    trainer = Trainer(config, envs=lambda i: Shared(curriculum))
    assert curriculum == {"level": 2}  # one reset of each environment of the run
    trainer.close()


class Files(gymnasium.Env):
    """Ten files, one after the other; a seeded reset starts from the first one again."""

    observation_space, action_space = spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(2)
    seen: ClassVar = collections.Counter()
    file = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.file = -1
        self.file = (self.file + 1) % 10
        self.seen[self.file] += 1
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, False, self.t >= 10, {}


@pytest.mark.parametrize("seeded", [True, False])
def test_only_the_first_reset_is_seeded_where_a_seed_rewinds(seeded, caplog):
    config = override(override(Config(), BASE), {"run.root": None, "env.seed_episodes": seeded})
    Files.seen.clear()
    trained(config, Files).close()
    assert ("a seed rewinds this environment (env.file)" in caplog.text) == seeded
    assert set(Files.seen) == ({0} if seeded else set(range(10)))


@pytest.mark.parametrize("make", [Guess, Counter, Endless, lambda: gymnasium.make("CartPole-v1")], ids=title)
def test_no_seed_rewinds_the_others(make, caplog):
    trained(override(override(Config(), BASE), {"run.root": None}), make, 1).close()
    assert "rewinds" not in caplog.text


def test_episodes_without_seeds_are_exact_where_nothing_is_random_and_said_elsewhere(tmp_path):
    layer = {"env.seed_episodes": False}
    whole, resumed, said = cut_and_resumed(Files, tmp_path / "files", 5, **layer)
    assert whole == resumed
    assert said is None
    whole, resumed, said = cut_and_resumed(Guess, tmp_path / "guess", 5, **layer)
    assert "env.seed_episodes is false" in said


VALUES = [
    None, True, -3, 2**80, 0.1, float("inf"), "text", [1, [2.5, None]], (1, (2,)),
    {"a": {"b": [1]}}, {1: "x", (2, 3): "y"},
    {3, 1, 2}, frozenset({"a"}), collections.deque([1, 2], maxlen=5), collections.Counter("abca"), [0.5] * 2000,
    collections.OrderedDict(b=1, a=2), collections.defaultdict(list, {"a": [1]}), bytearray(b"ab"),
    list(range(3000)), [np.float32(2)] * 100, b"\x00\xff", np.float32(0.1), np.arange(6.0).reshape(2, 3),
    np.array([True, False]), np.zeros((0, 3), np.int8), np.array(5, np.uint16),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_data_survives_json(value):
    again = decode(json.loads(json.dumps(encode(value))))
    assert type(again) is type(value)
    if isinstance(value, np.ndarray):
        assert again.dtype == value.dtype
        np.testing.assert_array_equal(again, value)
    else:
        assert again == value


def test_nan_equals_itself_once_encoded():
    assert encode([float("nan")]) == encode([float("nan")])
    assert np.isnan(decode(encode(float("nan"))))


@pytest.mark.parametrize("value", [object(), iter([1]), len, [object()], np.array([None])], ids=str)
def test_what_is_no_plain_data_is_refused(value):
    with pytest.raises(OpaqueError):
        encode(value)


def test_a_list_that_holds_itself_is_passed_over():
    env = Guess()
    env.loop = []
    env.loop.append(env.loop)
    env.me = env
    assert look(env)["env.loop"].text == '{"$large": 1}'
    assert EnvMemory(env).save()["changed"] == {}


def test_what_never_changed_is_left_alone():
    class Port(Counter):
        """Each object has a port of its own."""

        ports = iter(range(100))

        def __init__(self):
            self.port = next(Port.ports)

    one, other = Port(), Port()
    for env in (one, other):
        env.reset(seed=1)
    memory, new = EnvMemory(one), EnvMemory(other)
    for _ in range(5):
        one.reset(seed=2)
    assert new.load(json.loads(json.dumps(memory.save())))
    assert (one.level, other.level) == (pytest.approx(0.6), one.level)
    assert (one.port, other.port) == (0, 1)
