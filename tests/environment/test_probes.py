"""Each probe pays, ends and is worth what its docstring says, and TwoState tells the truncation bugs apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from environment.probes import (
    PROBES,
    ActionDependentReward,
    DiscountedReward,
    ObsAndActionReward,
    ObsDependentValue,
    TwoState,
    ValueOnly,
)
from ppo_lab.errors import EnvError

GAMMA = 0.9
KNOWN = {
    ValueOnly: {0.0: 1.0},
    ObsDependentValue: {-1.0: -1.0, 1.0: 1.0},
    DiscountedReward: {0.0: GAMMA, 1.0: 1.0},
    ActionDependentReward: {0.0: 1.0},
    ObsAndActionReward: {-1.0: 1.0, 1.0: 1.0},
    TwoState: {-1.0: 100 / 19, 1.0: 90 / 19},
}


def best_action(probe, obs):
    """(N, 1) -> (N,)"""
    if probe is ActionDependentReward:
        return torch.ones(len(obs), dtype=torch.int64)
    if probe is ObsAndActionReward:
        return (obs[:, 0] > 0).long()
    return torch.zeros(len(obs), dtype=torch.int64)


@pytest.mark.parametrize("probe", PROBES)
def test_known_values_are_the_ones_on_paper(probe):
    assert {obs.item(): value for obs, value in probe.known_values(GAMMA)} == pytest.approx(KNOWN[probe])


@pytest.mark.parametrize("probe", PROBES)
def test_played_returns_are_the_known_values(probe):
    horizon = 300 if probe is TwoState else None  # 0.9^300 is 2e-14
    envs = probe(32, max_episode_steps=horizon)
    start = envs.reset(seed=0)
    obs, total, alive, weight = start, torch.zeros(32, dtype=torch.float64), torch.ones(32, dtype=torch.bool), 1.0
    for _ in range(horizon or 2):
        step = envs.step(best_action(probe, obs))
        total += weight * step.reward * alive
        alive &= ~(step.terminated | step.truncated)
        obs, weight = step.obs, weight * GAMMA
    assert not alive.any()
    assert set(start[:, 0].tolist()) <= set(KNOWN[probe])
    expected = torch.tensor([KNOWN[probe][o] for o in start[:, 0].tolist()], dtype=torch.float64)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("probe", PROBES)
def test_known_values_solve_the_bellman_equation(probe):
    table = probe.table
    values = np.array(table.values(GAMMA))
    follow = np.where(table.terminates, 0.0, GAMMA * values[list(table.next_state)])
    np.testing.assert_allclose(values, (np.array(table.reward) + follow[:, None]).max(1), rtol=1e-12)


@pytest.mark.parametrize("probe", [ValueOnly, ObsDependentValue, ActionDependentReward, ObsAndActionReward])
def test_one_step_probes_end_each_step(probe):
    envs = probe(16)
    obs = envs.reset(seed=1)
    for t in range(6):
        action = torch.randint(envs.action_space.n, (16,), generator=torch.Generator().manual_seed(t))
        step = envs.step(action)
        sign = 2.0 * action - 1
        reward = {
            ValueOnly: torch.ones(16),
            ObsDependentValue: obs[:, 0],
            ActionDependentReward: sign,
            ObsAndActionReward: sign * obs[:, 0],
        }[probe]
        assert torch.equal(step.reward, reward)
        assert step.terminated.all()
        assert not step.truncated.any()
        assert step.valid.all()
        obs = step.obs
    if len(probe.table.start) == 2:
        assert set(obs[:, 0].tolist()) == {-1.0, 1.0}


def test_discounted_reward_takes_two_steps():
    envs = DiscountedReward(2)
    assert envs.reset(seed=0).tolist() == [[0.0], [0.0]]
    action = torch.zeros(2, dtype=torch.int64)
    for _ in range(2):
        step = envs.step(action)
        assert (step.reward.tolist(), step.terminated.tolist()) == ([0.0, 0.0], [False, False])
        assert step.obs.tolist() == step.final_obs.tolist() == [[1.0], [1.0]]
        step = envs.step(action)
        assert (step.reward.tolist(), step.terminated.tolist()) == ([1.0, 1.0], [True, True])
        assert step.obs.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("length", [None, 1, 4])
def test_two_state_alternates_and_is_cut_but_never_ends(length):
    envs = TwoState(64, max_episode_steps=length)
    obs = envs.reset(seed=2)
    action = torch.zeros(64, dtype=torch.int64)
    for t in range(1, 25):
        step = envs.step(action)
        assert torch.equal(step.final_obs, -obs)
        assert torch.equal(step.reward, (obs[:, 0] < 0).float())
        assert not step.terminated.any()
        cut = t % (length or 3) == 0
        assert step.truncated.all() if cut else not step.truncated.any()
        assert cut or torch.equal(step.obs, step.final_obs)
        obs = step.obs


def test_two_state_starts_in_a_three_times_in_four():
    assert (TwoState(20_000).reset(seed=3) < 0).double().mean() == pytest.approx(0.75, abs=0.015)


def settled_values(bug, gamma=0.9, gae_lambda=0.95, length=3, start=(0.75, 0.25)):
    """Where E[advantage | state] is 0 in TwoState under GAE with one bug, in exact expectation over the starts."""
    reward, start = np.array([1.0, 0.0]), np.array(start)

    def mean_advantage(V):
        advantage, after_reset = np.zeros((length, 2)), 0.0
        for _ in range(200):  # a trace that is not cut runs on into the next episode: iterate to its limit
            for t in reversed(range(length)):
                for s in (0, 1):
                    bootstrap, follow = V[1 - s], advantage[t + 1, 1 - s] if t + 1 < length else 0.0
                    if t + 1 == length:
                        bootstrap = {"no bootstrap": 0.0, "V(s_t)": V[s]}.get(bug, V[1 - s])
                        bootstrap = start @ V if bug in ("V(reset)", "glued") else bootstrap
                        follow = after_reset if bug in ("no cut", "glued") else 0.0
                    advantage[t, s] = reward[s] + gamma * bootstrap - V[s] + gamma * gae_lambda * follow
            after_reset = start @ advantage[0]
        visits = np.array([[start[s ^ (t & 1)] for s in (0, 1)] for t in range(length)])  # (length, 2)
        return (visits * advantage).sum(0) / visits.sum(0)

    at_zero = mean_advantage(np.zeros(2))
    slope = np.stack([mean_advantage(unit) - at_zero for unit in np.eye(2)], axis=1)
    return np.linalg.solve(slope, -at_zero)


def test_two_state_tells_the_bugs_apart_as_its_docstring_says():
    told = re.findall(r"\| +(\d\.\d{3}) \| +(\d\.\d{3}) \|", TwoState.__doc__)
    found = [settled_values(bug) for bug in ("right", "no bootstrap", "V(s_t)", "V(reset)", "glued")]
    np.testing.assert_allclose(np.array(told, dtype=float), found, atol=6e-4)
    np.testing.assert_allclose(found[0], [100 / 19, 90 / 19])
    np.testing.assert_allclose(settled_values("no cut"), found[0])
    gaps = [np.abs(a - b).max() for i, a in enumerate(found) for b in found[:i]]
    assert min(gaps) > 0.15


def test_two_state_shows_a_trace_that_is_not_cut_before_it_has_learned():
    told = re.search(r"first advantage is (\d\.\d{3})\s+instead\s+of (\d\.\d{3})", TwoState.__doc__)
    rewards = [1, 0, 1, 0, 1, 0]  # A B A, B A B
    weighted = [(0.9 * 0.95) ** k * r for k, r in enumerate(rewards)]
    assert [sum(weighted), sum(weighted[:3])] == pytest.approx([float(x) for x in told.groups()], abs=6e-4)


def reset_anew(probe):
    envs = probe(16)
    envs.reset(seed=4)
    return envs


@pytest.mark.parametrize("probe", PROBES)
def test_seeds_and_a_loaded_state_continue_alike(probe):
    def play(envs, steps):
        return torch.stack([envs.step(torch.zeros(16, dtype=torch.int64)).obs for _ in range(steps)])

    envs, same = probe(16), probe(16)
    assert torch.equal(envs.reset(seed=4), same.reset(seed=4))
    assert torch.equal(play(envs, 5), play(same, 5))
    snapshot = envs.state_dict()
    rest = play(envs, 10)
    other = probe(16)
    other.load_state_dict(snapshot)
    assert torch.equal(play(other, 10), rest)
    same.reset(seed=4)  # in the middle of its episodes
    assert torch.equal(play(same, 5), play(reset_anew(probe), 5))
    if len(probe.table.obs) > 1 and len(probe.table.start) > 1:
        assert not torch.equal(envs.reset(seed=5).clone(), envs.reset(seed=6))


def test_impossible_arguments_and_states_are_refused():
    for kwargs in ({"num_envs": 0}, {"num_envs": 1, "max_episode_steps": 0}):
        with pytest.raises(EnvError, match="TwoState"):
            TwoState(**kwargs)
    with pytest.raises(EnvError, match="needs 'state'"):
        TwoState(2).load_state_dict(TwoState(3).state_dict())
