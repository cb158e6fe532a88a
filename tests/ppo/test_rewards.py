"""Reward scaling equals a loop over episodes; termination and truncation both reset the discounted return."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.config import PPOConfig
from ppo_lab.ppo.rewards import RewardScaler, rewards_to_learn
from ppo_lab.ppo.rollout import Rollout


def run(reward, done, valid, gamma, cuts=()):
    scaler = RewardScaler(reward.shape[1], torch.device("cpu"))
    edges = [0, *cuts, len(reward)]
    parts = [
        scaler(*(torch.as_tensor(a[i:j]) for a in (reward, done, valid)), gamma, 1e9)
        for i, j in itertools.pairwise(edges)
    ]
    return scaler, torch.cat(parts).numpy()


@given(st.integers(2, 15), st.integers(1, 3), st.integers(0, 10_000))
def test_the_statistics_equal_a_loop_by_hand(T, N, seed):
    rng = np.random.default_rng(seed)
    reward, valid = rng.normal(size=(T, N)), rng.random((T, N)) < 0.8
    done = (rng.random((T, N)) < 0.3) & valid
    seen = []
    for n in range(N):
        total = 0.0
        for t in range(T):
            if valid[t, n]:
                total = 0.9 * total + reward[t, n]
                seen.append(total)
            if done[t, n]:
                total = 0.0
    scaler, _scaled = run(reward, done, valid, 0.9, cuts=[T // 2])
    if seen:
        assert scaler.moments.mean.item() == pytest.approx(np.mean(seen), abs=1e-12)
        assert scaler.moments.var.item() == pytest.approx(np.var(seen), rel=1e-9, abs=1e-12)


def test_rewards_keep_their_sign_and_the_input_stays_raw():
    reward = np.array([[1.0], [-2.0], [3.0]])
    done, valid = np.zeros((3, 1), bool), np.ones((3, 1), bool)
    _, scaled = run(reward, done, valid, 0.5)
    assert np.array_equal(np.sign(scaled), np.sign(reward))
    assert reward.ravel().tolist() == [1.0, -2.0, 3.0]


def test_constant_reward_stays_of_ordinary_size():
    T = 400
    done = np.zeros((T, 1), bool)
    done[99::100] = True
    _, scaled = run(np.ones((T, 1)), done, np.ones((T, 1), bool), 0.99)
    assert 0.01 < scaled[-1, 0] < 1.0


def test_clip():
    scaler = RewardScaler(1, torch.device("cpu"))
    reward = torch.tensor([[0.0]] * 99 + [[100.0]])
    no = torch.zeros(100, 1, dtype=torch.bool)
    assert scaler(reward, no, ~no, 0.9, 2.0).max() == 2.0


def learned(**ppo):
    T, N = 6, 2
    reward = torch.tensor([[-7.0, 0.5], [0.0, 3.0], [3.0, 0.25], [1.0, -1.0], [0.0, 0.0], [9.0, -0.5]])
    flags, zeros = torch.zeros(T, N, dtype=torch.bool), torch.zeros(T, N)
    rollout = Rollout(
        torch.zeros(T + 1, N, 1), torch.zeros(T, N, 1), zeros.long(), zeros, zeros, zeros, reward,
        flags, flags, ~flags, flags, flags,
    )  # fmt: skip
    seen = rewards_to_learn(rollout, PPOConfig(**ppo), RewardScaler(N, torch.device("cpu")))
    assert torch.equal(rollout.reward, reward)  # the recorded rewards stay raw
    return reward, seen


def test_rewards_are_scaled_then_bounded():
    reward, seen = learned(reward_scale=0.5, reward_bound=1.0)
    assert torch.equal(seen, (reward * 0.5).clamp(-1, 1))
    reward, seen = learned()
    assert torch.equal(seen, reward)


def test_whole_rewards_bounded_by_1_are_their_signs():
    reward, seen = learned(reward_bound=1.0)
    whole = reward == reward.round()
    assert torch.equal(seen[whole], reward[whole].sign())


def test_normalising_sees_the_bounded_rewards():
    reward, seen = learned(reward_bound=1.0, normalize_reward=True, gamma=0.5)
    scaler = RewardScaler(2, torch.device("cpu"))
    flags = torch.zeros(6, 2, dtype=torch.bool)
    assert torch.equal(seen, scaler(reward.clamp(-1, 1), flags, ~flags, 0.5, 10.0))
