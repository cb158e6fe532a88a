"""Gymnasium environments for tests: what they answer follows from their script or their seed and from nothing else."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec


class ScriptedEnv(gymnasium.Env):
    """Observation (who, episode, step, action) and endings as written: episode k is script[k % len(script)].

    One character a step: '.' goes on, 'T' terminates, 'C' is cut off, 'B' both at once. With `reuse` every observation
    is the same array, written over; `spoil` writes into the action, as environments that clip in place do.
    """

    metadata: ClassVar = {"render_modes": []}
    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, who: int, script: tuple[str, ...], reuse: bool = False, spoil: bool = False) -> None:
        self.who, self.script, self.reuse, self.spoil = who, script, reuse, spoil
        self.episode, self.seeds, self.closed = -1, [], 0
        self.buffer = np.zeros(4, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.episode += 1
        self.t = 0
        return self._observe(0.0), {}

    def step(self, action: np.ndarray):
        ending = self.script[self.episode % len(self.script)][self.t]
        self.t += 1
        obs = self._observe(float(action[0]))
        if self.spoil:
            action *= 0
        reward = self.who + self.episode / 8 + self.t / 64
        return obs, reward, ending in "TB", ending in "CB", {}

    def close(self) -> None:
        self.closed += 1

    def _observe(self, action: float) -> np.ndarray:
        obs = self.buffer if self.reuse else np.zeros(4, np.float32)
        obs[:] = self.who, self.episode, self.t, action
        return obs


class SeededEnv(gymnasium.Env):
    """A noisy walk that follows from its seed; an episode lasts 1 to 6 steps. Fails where `faults` says so.

    faults: [seed of an episode, step in it, kind], kind one of FAULTS.
    """

    metadata: ClassVar = {"render_modes": []}
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)  # float64: handed out as float32
    action_space = spaces.Discrete(3, start=5)
    FAULTS = (
        "raise", "exit", "slow", "stuck", "nan reward", "nan obs", "huge obs", "no reward", "shape", "four"
    )  # fmt: skip

    def __init__(self, faults: tuple = ()) -> None:
        self.faults = {int(seed): (step, kind) for seed, step, kind in faults}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.fault = self.faults.get(seed, (0, ""))
        self.t = 0
        self.length = int(self.np_random.integers(1, 7)) if seed not in self.faults else 10
        return self.np_random.normal(size=3), {}

    def step(self, action: np.integer):
        assert isinstance(action, np.integer)
        assert self.action_space.contains(action), f"action {action}"
        self.t += 1
        obs, reward = self.np_random.normal(size=3) + action, float(self.np_random.normal())
        over, cut = self.t == self.length and self.length % 2 == 0, self.t == self.length and self.length % 3 == 0
        answer = obs, reward, over or (self.t == self.length and not cut), cut, {}
        return self.faulty(answer) if self.t == self.fault[0] else answer

    def faulty(self, answer: tuple) -> Any:
        obs, reward, *rest = answer
        kind = self.fault[1]
        if kind == "raise":
            raise ZeroDivisionError("a wheel\n came off")
        if kind == "exit":
            os._exit(7)
        if kind in ("slow", "stuck"):
            time.sleep(1.0 if kind == "slow" else 3600)
        if kind in ("nan obs", "huge obs"):
            obs[1] = np.nan if kind == "nan obs" else 1e300
        changed = {"nan reward": (obs, np.nan), "no reward": (obs, None), "shape": (obs[:2], reward)}.get(kind)
        answer = (*(changed or (obs, reward)), *rest)
        return answer[:4] if kind == "four" else answer


class NestedEnv(gymnasium.Env):
    """Every kind of space, nested, on both sides. What it shows follows from its seed, its step and its last action."""

    metadata: ClassVar = {"render_modes": []}
    observation_space = spaces.Dict({
        "picture": spaces.Box(0, 255, (2, 3, 1), np.uint8),
        "self": spaces.Dict({
            "speed": spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "gear": spaces.Discrete(4, start=-1),
            "doors": spaces.MultiBinary(3),
        }),
        "pair": spaces.Tuple((
            spaces.MultiDiscrete([2, 3], start=[0, 5]), spaces.Box(0, 60_000, (1,), np.uint16)
        )),
        "action_mask": spaces.Box(0, 1, (3 + 5 + 4,), np.int8),
    })  # fmt: skip
    action_space = spaces.Tuple((
        spaces.Discrete(3, start=5),
        spaces.Dict({
            "many": spaces.MultiDiscrete([2, 3]),
            "move": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "on": spaces.MultiBinary(2),
        }),
    ))  # fmt: skip

    def __init__(self, length: int = 3, fault: str = "") -> None:
        self.length, self.fault = length, fault

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t, self.episode = 0, getattr(self, "episode", -1) + 1
        self.noise = self.np_random.normal(size=2) if seed is not None else np.zeros(2)
        return self.show(np.zeros(2, np.float32)), {}

    def step(self, action: tuple):
        assert self.action_space.contains(action), f"action {action}"
        assert isinstance(action, tuple), type(action)
        self.t += 1
        obs = self.show(action[1]["move"])
        reward = float(action[0] + action[1]["many"].sum() / 8 + action[1]["on"].sum() / 64)
        action[1]["move"][:] = 9  # as environments that clip in place do
        if self.fault == "missing":
            del obs["self"]["gear"]
        if self.fault == "nan":
            obs["self"]["speed"][1] = np.nan
        if self.fault == "range":
            obs["pair"][0][1] = 8
        if self.fault == "shape":
            obs["picture"] = obs["picture"][..., 0]
        return obs, reward, self.t == self.length and self.t % 2 == 1, self.t == self.length and self.t % 2 == 0, {}

    def show(self, move: np.ndarray) -> dict[str, Any]:
        t = self.t
        return {
            "pair": (np.array([t % 2, 5 + t % 3]), np.array([50_000 + t], np.uint16)),
            "self": {
                "doors": np.array([t % 2, 1, 0], np.int8),
                "gear": t % 4 - 1,
                "speed": self.noise + move,
            },
            "picture": np.full((2, 3, 1), 10 * t + 1, np.uint8),
            "action_mask": (np.arange(12) % (t + 1) == 0).astype(np.int8),
        }


class TextEnv(gymnasium.Env):
    """Speaks, which no network of ours understands."""

    metadata: ClassVar = {"render_modes": []}
    observation_space = spaces.Text(5)
    action_space = spaces.Discrete(2)


def seeded_spec(env_id: str = "test/Seeded-v0") -> EnvSpec:
    """SeededEnv as Gymnasium registers it: its entry point is text, so another process can import it."""
    return EnvSpec(env_id, entry_point="tests.scripted_envs:SeededEnv", max_episode_steps=20)
