"""Environments in which something outlives an episode, each in another way, and some in which nothing does."""

from __future__ import annotations

import itertools
import random
import time
import weakref
from collections import Counter as Counts
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces


class Guess(gymnasium.Env):
    """Guess the sign of a number; episodes of some 12 steps, random as the seed says. `price` is paid for an error."""

    observation_space = spaces.Box(-10, 10, (1,), np.float32)
    action_space = spaces.Discrete(2)
    length = 12

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.begin()
        return self.show(), {}

    def begin(self):
        """An episode begins."""

    def price(self):
        return 1.0

    def won(self):
        """A guess was right."""

    def show(self):
        self.x = self.np_random.uniform(-1, 1)
        return np.array([self.x], np.float32)

    def step(self, action):
        right = (action == 1) == (self.x > 0)
        self.t += 1
        if right:
            self.won()
        return self.show(), 1.0 if right else -self.price(), False, self.t >= self.length, {}


class Counter(Guess):
    level = 0.0

    def begin(self):
        self.level += 0.1

    def price(self):
        return self.level


class RareSuccess(Guess):
    """Harder after every hundredth right guess: no probe sees it."""

    def __init__(self):
        self.right, self.level = 0, 0

    def won(self):
        self.right += 1
        self.level = self.right // 100

    def price(self):
        return 1.0 + self.level


class Curriculum:
    __slots__ = ("history",)

    def __init__(self):
        self.history = []


class Nested(Guess):
    def __init__(self):
        self.parts = {"curriculum": Curriculum()}

    def begin(self):
        self.parts["curriculum"].history.append(self.np_random.integers(3))

    def price(self):
        return float(sum(self.parts["curriculum"].history[-5:]))


class OnTheClass(Guess):
    episodes = 0

    def begin(self):
        type(self).episodes += 1

    def price(self):
        return 0.01 * self.episodes


class Playlist(Guess):
    """A pointer into data that no seed sets."""

    data = np.linspace(-1, 1, 7)
    at = -1

    def begin(self):
        self.at = (self.at + 1) % len(self.data)

    def price(self):
        return 2.0 + float(self.data[self.at])


class OwnGenerator(Guess):
    """Random numbers of its own, which reset does not seed."""

    def __init__(self):
        self.rng, self.old, self.python = np.random.default_rng(3), np.random.RandomState(4), random.Random(5)

    def price(self):
        return float(self.rng.random() + self.old.rand() + self.python.random())


class LastAction(Guess):
    """The action before counts, in the first step of an episode too."""

    last = 0

    def step(self, action):
        obs, reward, over, cut, info = super().step(action)
        reward += 0.5 * (action == self.last)
        self.last = int(action)
        return obs, reward, over, cut, info


class Cycle(Guess):
    """An iterator, whose place no attribute shows."""

    def __init__(self):
        self.prices = itertools.cycle([0.5, 1.5, 2.5])

    def begin(self):
        self.now = next(self.prices)

    def price(self):
        return self.now


class Closure(Guess):
    def __init__(self):
        episodes = 0

        def count():
            nonlocal episodes
            episodes += 1
            return 0.1 * episodes

        self.count = count

    def begin(self):
        self.now = self.count()

    def price(self):
        return self.now


WORLD = {"age": 0}


class Global(Guess):
    def begin(self):
        WORLD["age"] += 1

    def price(self):
        return 0.01 * WORLD["age"]


class Drift(Guess):
    """What is shown moves a little with every episode, as physics that are not reset do."""

    drift = 0.0

    def show(self):
        return super().show() + np.float32(self.drift)

    def begin(self):
        self.drift += 1e-6


class ManyReturns(Guess):
    """All that ever happened, more than is worth keeping."""

    def __init__(self):
        self.all = [0.0] * 5000

    def won(self):
        self.all.append(1.0)

    def price(self):
        return 1.0 + 0.1 * (len(self.all) // 150)


class Toggle(Guess):
    left = True

    def begin(self):
        self.left = not self.left

    def price(self):
        return 3.0 if self.left else 0.0


class RunningMean(gymnasium.Wrapper):
    """Statistics in a wrapper, of all episodes."""

    def __init__(self, env):
        super().__init__(env)
        self.mean, self.count = np.zeros(1), 0

    def step(self, action):
        obs, reward, over, cut, info = self.env.step(action)
        self.count += 1
        self.mean += (obs - self.mean) / self.count
        return (obs - self.mean).astype(np.float32), reward, over, cut, info


class WithStateDict(Cycle):
    """One that saves itself: the iterator is put back by counting."""

    def __init__(self):
        super().__init__()
        self.begun = 0

    def begin(self):
        super().begin()
        self.begun += 1

    def state_dict(self):
        return {"begun": self.begun, "now": self.now, "x": self.x, "t": self.t}

    def load_state_dict(self, state):
        self.prices = itertools.cycle([0.5, 1.5, 2.5])
        for _ in range(state["begun"]):
            next(self.prices)
        self.begun, self.now, self.x, self.t = state["begun"], state["now"], state["x"], state["t"]


class Opponent(Guess):
    """An object gives way to one of another class after many right guesses."""

    class Easy:
        price = 1.0

    class Hard:
        price = 5.0

    def __init__(self):
        self.right, self.opponent = 0, self.Easy()

    def won(self):
        self.right += 1
        if self.right == 100:
            self.opponent = self.Hard()

    def price(self):
        return self.opponent.price


class LastTen(Guess):
    """A bounded deque within a dictionary."""

    def __init__(self):
        self.log = {"wins": deque(maxlen=10)}

    def won(self):
        self.log["wins"].append(float(self.t))

    def price(self):
        return 1.0 + sum(self.log["wins"])


class TwoNames(Guess):
    """An attribute is one of several entries: put back by value it would write over the others."""

    def __init__(self):
        self.tasks = [{"price": 1.0, "played": 0}, {"price": 3.0, "played": 0}]
        self.task = self.tasks[0]

    def begin(self):
        self.task["played"] += 1
        self.task = self.tasks[self.tasks[0]["played"] // 12 % 2]

    def price(self):
        return self.task["price"]


class Level(Enum):
    EASY = 1.0
    HARD = 4.0


class Stage(Guess):
    """A member of an Enum."""

    def __init__(self):
        self.right, self.stage = 0, Level.EASY

    def won(self):
        self.right += 1
        self.stage = Level.HARD if self.right > 80 else Level.EASY

    def price(self):
        return self.stage.value


ZERO = np.zeros(1)


class SharedZero(Guess):
    """Every object begins with one and the same array, and goes on with another."""

    def __init__(self):
        self.level = ZERO

    def begin(self):
        self.level = self.level + 0.1

    def price(self):
        return float(self.level[0])


@dataclass(frozen=True)
class Settings:
    price: float = 1.0


class Replaced(Guess):
    """Every object begins with one and the same frozen settings, and goes on with others."""

    settings: ClassVar = Settings()

    def __init__(self):
        self.settings = type(self).settings

    def begin(self):
        self.settings = replace(self.settings, price=self.settings.price + 0.1)

    def price(self):
        return self.settings.price


class FewerAndFewer(Guess):
    """A list of objects that shrinks."""

    def __init__(self):
        self.left, self.right = [Curriculum() for _ in range(5)], 0

    def won(self):
        self.right += 1
        if self.right % 60 == 0 and self.left:
            self.left.pop()

    def price(self):
        return float(len(self.left))


class SavesTensors(WithStateDict):
    """One whose state_dict holds tensors, as torch's do."""

    def state_dict(self):
        return {**super().state_dict(), "weights": torch.arange(3.0), "deep": {"$tensor": torch.zeros(2, 2)}}

    def load_state_dict(self, state):
        assert torch.equal(state["weights"], torch.arange(3.0))
        assert state["deep"]["$tensor"].shape == (2, 2)
        super().load_state_dict(state)


WITH_A_PAST = [
    SavesTensors,
    Opponent, LastTen, TwoNames, Stage, SharedZero, Replaced, FewerAndFewer,
    Counter, RareSuccess, Nested, OnTheClass, Playlist, OwnGenerator, LastAction, Cycle, Closure, Global, Drift,
    ManyReturns, Toggle, lambda: RunningMean(Guess()),
    lambda: gymnasium.wrappers.NormalizeReward(Guess()), WithStateDict,
]  # fmt: skip
SAVED = [
    SavesTensors,
    LastTen,
    Stage,
    SharedZero,
    Replaced,
    Counter,
    RareSuccess,
    Nested,
    Playlist,
    Toggle,
    OnTheClass,
    WithStateDict,
]  # exactly, without a word


class Cards(gymnasium.Env):
    """Raises on an illegal action."""

    observation_space = spaces.Dict({"x": spaces.Box(-1, 1, (2,), np.float32), "action_mask": spaces.MultiBinary(5)})
    action_space = spaces.Discrete(5)

    def show(self):
        self.mask = np.zeros(5, np.int8)
        self.mask[self.np_random.permutation(5)[:2]] = 1
        return {"x": np.zeros(2, np.float32), "action_mask": self.mask.copy()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.show(), {}

    def step(self, action):
        if not self.mask[action]:
            raise ValueError("illegal move")
        self.t += 1
        return self.show(), float(action), self.t >= 9, False, {}


class TwoHands(Cards):
    """The same with two choices at once."""

    observation_space = spaces.Dict({"x": spaces.Box(-1, 1, (2,), np.float32), "action_mask": spaces.MultiBinary(5)})
    action_space = spaces.MultiDiscrete([2, 3])

    def show(self):
        self.mask = np.zeros(5, np.int8)
        self.mask[self.np_random.integers(2)] = self.mask[2 + self.np_random.integers(3)] = 1
        return {"x": np.zeros(2, np.float32), "action_mask": self.mask.copy()}

    def step(self, action):
        if not (self.mask[action[0]] and self.mask[2 + action[1]]):
            raise ValueError("illegal move")
        self.t += 1
        return self.show(), 1.0, self.t >= 9, False, {}


class SpacesInReset(Guess):
    def __init__(self):
        self.make_spaces()

    def make_spaces(self):
        self.observation_space, self.action_space = spaces.Box(-10, 10, (1,), np.float32), spaces.Discrete(2)

    def begin(self):
        self.make_spaces()


class SpacesAsProperties(Guess):
    observation_space = property(lambda self: spaces.Box(-10, 10, (1,), np.float32))
    action_space = property(lambda self: spaces.Discrete(2))


class ForTheRecord(Guess):
    """Counts, and looks at the clock, but nobody is paid for it."""

    episodes = steps = 0

    def begin(self):
        self.episodes += 1
        self.began = time.time()

    def won(self):
        self.steps += 1


class Cached(Guess):
    def price(self):
        return self.slow(self.t)

    @staticmethod
    @lru_cache
    def slow(t):
        return 0.1 * t


class OneBuffer(Guess):
    def __init__(self):
        self.buffer = np.zeros(1, np.float32)

    def show(self):
        self.buffer[:] = super().show()
        return self.buffer


class StrictAboutItsEnd(Guess):
    over = True

    def begin(self):
        self.over = False

    def step(self, action):
        assert not self.over, "step after the end"
        answer = super().step(action)
        self.over = answer[3]
        return answer


class WritesIntoActions(Guess):
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def step(self, action):
        action *= 0.5
        return super().step(int(action.sum() > 0))


class SeededOldGenerator(Guess):
    def begin(self):
        self.rng = np.random.RandomState(int(self.np_random.integers(2**31)))

    def price(self):
        return float(self.rng.rand())


class BigTable(Guess):
    def __init__(self):
        self.table = {i: [(j, 0.5) for j in range(20)] for i in range(200)}
        self.image = np.zeros((300, 300))


class ManyLogs(Guess):
    """Everything is written down, in containers of every kind, and nobody is paid for it."""

    def __init__(self):
        self.rewards, self.heat, self.stage = [], np.zeros((120, 120)), Level.EASY
        self.groups, self.counts = defaultdict(lambda: defaultdict(list)), Counts()
        self.paths = {(0, 0): {frozenset({"a", "b"})}}

    def begin(self):
        self.groups["episodes"]["begun"].append(self.x if hasattr(self, "x") else None)
        self.counts["episodes"] += 1

    def won(self):
        self.rewards.append(float(self.t))
        self.heat[self.t % 120] += 1
        self.stage = Level.HARD if len(self.rewards) > 80 else Level.EASY


class Gone(Guess):
    """A proxy of something that is gone, and an object that cannot be shown."""

    class Hostile:
        def __repr__(self):
            raise RuntimeError("no")

    def __init__(self):
        self.proxy, self.hostile = weakref.proxy(set()), {self.Hostile()}


class Endless(Guess):
    length = 10**9


class OneStep(Guess):
    length = 1


WITHOUT_ONE = [
    ManyLogs, Gone,
    Cards, TwoHands, SpacesInReset, SpacesAsProperties, ForTheRecord, Cached, OneBuffer, StrictAboutItsEnd,
    WritesIntoActions, SeededOldGenerator, BigTable, Endless, OneStep, Guess,
    lambda: gymnasium.wrappers.RecordEpisodeStatistics(Guess()),
    lambda: gymnasium.wrappers.TimeLimit(Endless(), 7),
]  # fmt: skip
