"""Recall is what its docstring says, told once more in plain Python; memory gets 1, no memory gets chance."""

from __future__ import annotations

import pytest
import torch

from environment.recall import Recall


class Told:
    """One episode of Recall, from its cue and delay."""

    def __init__(self, num_cues, cue, delay):
        self.num_cues, self.cue = num_cues, cue
        self.script = ["cue", *["blank"] * delay, "go", "blank"]
        self.t = 0

    def obs(self):
        shown = [0.0] * (self.num_cues + 1)
        if self.script[self.t] == "cue":
            shown[self.cue] = 1.0
        if self.script[self.t] == "go":
            shown[-1] = 1.0
        return shown

    def step(self, action):
        answering = self.script[self.t] == "go"
        self.t += 1
        return float(answering and action == self.cue), answering


@pytest.mark.parametrize(
    "kwargs", [{}, {"num_cues": 5, "min_delay": 0, "max_delay": 3}, {"min_delay": 2, "max_delay": 2}]
)
def test_episodes_are_those_told_in_plain_python(kwargs):
    N = 16
    envs = Recall(N, **kwargs)

    def begin(i):
        state = envs.state_dict()
        return Told(envs.num_cues, state["cue"][i].item(), state["delay"][i].item())

    obs = envs.reset(seed=1)
    told = [begin(i) for i in range(N)]
    generator, answers = torch.Generator().manual_seed(0), 0
    for _ in range(120):
        assert obs.tolist() == [episode.obs() for episode in told]
        action = torch.randint(envs.num_cues, (N,), generator=generator)
        step = envs.step(action)
        for i in range(N):
            reward, terminated = told[i].step(action[i].item())
            assert (step.reward[i].item(), step.terminated[i].item()) == (reward, terminated)
            assert step.final_obs[i].tolist() == told[i].obs()
            if terminated:
                answers += 1
                told[i] = begin(i)
        assert not step.truncated.any()
        obs = step.obs
    assert answers > 4 * N


def mean_return(remember, N=256, steps=400, **kwargs):
    """Of a policy that names the last cue it saw (remember), or always the first one."""
    envs = Recall(N, **kwargs)
    obs, seen = envs.reset(seed=2), torch.zeros(N, dtype=torch.int64)
    reward = episodes = 0.0
    for _ in range(steps):
        cue = obs[:, :-1]
        seen = torch.where(cue.sum(1) > 0, cue.argmax(1), seen)
        step = envs.step(seen if remember else torch.zeros_like(seen))
        reward, episodes, obs = reward + step.reward.sum(), episodes + step.terminated.sum(), step.obs
    return (reward / episodes).item(), episodes.item()


@pytest.mark.parametrize("num_cues", [2, 4])
def test_memory_gets_one_and_no_memory_gets_chance(num_cues):
    assert mean_return(True, num_cues=num_cues)[0] == 1.0
    value, episodes = mean_return(False, num_cues=num_cues)
    assert value == pytest.approx(1 / num_cues, abs=4 * 0.5 / episodes**0.5)


def test_cues_and_delays_are_uniform_and_independent():
    N = 60_000
    envs = Recall(N, num_cues=3, min_delay=1, max_delay=4)
    envs.reset(seed=0)
    for steps in (0, 6):
        for _ in range(steps):
            envs.step(torch.zeros(N, dtype=torch.int64))
        state = envs.state_dict()
        begins = state["elapsed"] == 0
        counts = (5 * state["cue"] + state["delay"])[begins].bincount(minlength=15).view(3, 5)
        assert (counts[:, 0] == 0).all()
        expected = begins.sum() / 12
        assert ((counts[:, 1:] - expected).abs() < 4 * expected**0.5).all()
