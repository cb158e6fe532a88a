"""Episode returns and lengths equal those of a step-by-step loop, wherever one rollout ends and the next starts."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.ppo.episodes import EpisodeStatistics


def by_hand(reward, done, valid):
    """Return (returns, lengths) in the order of their ends, by environment within a step."""
    T, N = reward.shape
    total, steps = [0.0] * N, [0] * N
    returns, lengths = [], []
    for t in range(T):
        for n in range(N):
            if valid[t, n]:
                total[n] += reward[t, n]
                steps[n] += 1
            if done[t, n]:
                returns.append(total[n])
                lengths.append(steps[n])
                total[n], steps[n] = 0.0, 0
    return returns, lengths


@given(st.integers(1, 12), st.integers(1, 4), st.floats(0, 1), st.integers(0, 10_000), st.integers(1, 11))
def test_equals_a_count_by_hand_in_one_rollout_or_two(T, N, share, seed, cut):
    rng = np.random.default_rng(seed)
    reward = rng.integers(-8, 8, size=(T, N)) / 4
    valid = rng.random((T, N)) < 0.8
    done = (rng.random((T, N)) < share) & valid
    x = [torch.as_tensor(a) for a in (reward, done, valid)]
    statistics = EpisodeStatistics(N, torch.device("cpu"))
    got_returns, got_lengths = [], []
    for part in ([a[:cut] for a in x], [a[cut:] for a in x]):
        if len(part[0]):
            returns, lengths = statistics.update(*part)
            got_returns += returns
            got_lengths += lengths
    assert (got_returns, got_lengths) == by_hand(reward, done, valid)
    assert statistics.count == len(got_returns)


def test_nothing_is_reported_before_the_first_episode_ends():
    statistics = EpisodeStatistics(2, torch.device("cpu"))
    no = torch.zeros(3, 2, dtype=torch.bool)
    statistics.update(torch.ones(3, 2), no, ~no)
    assert statistics.metrics() == {}


def test_the_mean_is_over_the_last_100():
    statistics = EpisodeStatistics(1, torch.device("cpu"))
    every = torch.ones(150, 1, dtype=torch.bool)
    statistics.update(torch.arange(150.0)[:, None], every, every)
    assert statistics.metrics()["episode/return_mean"] == np.arange(50, 150).mean()
    assert statistics.metrics()["episode/count"] == 150


def test_returns_of_whole_rewards_are_whole_even_late():
    statistics = EpisodeStatistics(1, torch.device("cpu"))
    done = torch.zeros(5000, 1, dtype=torch.bool)
    done[499::500] = True
    returns, _ = statistics.update(torch.ones(5000, 1), done, torch.ones_like(done))
    assert returns == [500.0] * 10
