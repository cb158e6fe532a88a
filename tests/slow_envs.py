"""An environment that takes its time where it is told to, and says in a file what it is doing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


class Slow(gymnasium.Env):
    """Random numbers to look at; episodes of `length` steps. SLOW_MAKE, SLOW_STEP: seconds. SLOW_NOTES: a file."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length=10):
        self.length = length
        note("make")
        time.sleep(float(os.environ.get("SLOW_MAKE", 0)))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.show(), {}

    def show(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def step(self, action):
        note("step")
        time.sleep(float(os.environ.get("SLOW_STEP", 0)))
        self.t += 1
        return self.show(), float(action), self.t >= self.length, False, {}


def note(what):
    """One more line in SLOW_NOTES."""
    if "SLOW_NOTES" in os.environ:
        with Path(os.environ["SLOW_NOTES"]).open("a") as file:
            file.write(f"{what}\n")


gymnasium.register("Slow-v0", entry_point=Slow)
