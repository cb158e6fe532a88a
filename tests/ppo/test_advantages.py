"""GAE equals its definition exactly, at terminations and truncations, too; normalisation handles all inputs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import zscore

from ppo_lab.ppo.advantages import discounted_sums, explained_variance, gae, normalized, normalized_parts
from tests.oracles import gae as oracle
from tests.tolerance import rounding

# Multiples of 1/8 and powers of 1/2 make every product and sum exact in float64: any right order gives the same bits.
EXACT = st.integers(-64, 64).map(lambda k: k / 8)


@st.composite
def rollouts(draw):
    T, N = draw(st.integers(1, 7)), draw(st.integers(1, 3))

    def table(element):
        return np.array(draw(st.lists(st.lists(element, min_size=N, max_size=N), min_size=T, max_size=T)))

    terminated, truncated, valid = (
        table(st.booleans()),
        table(st.booleans()),
        table(st.sampled_from([True] * 4 + [False])),
    )
    return {
        "reward": table(EXACT), "value": table(EXACT), "next_value": table(EXACT),
        "terminated": terminated & valid, "done": (terminated | truncated) & valid, "valid": valid,
        "gamma": draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])),
        "gae_lambda": draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    }  # fmt: skip


def ours(**x):
    tensors = {k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in x.items()}
    advantage, returns = gae(**tensors)
    return advantage.numpy(), returns.numpy()


@given(rollouts())
def test_equals_the_definition_bit_for_bit(x):
    advantage, returns = ours(**x)
    assert np.array_equal(advantage, oracle.advantages(**x))
    assert np.array_equal(returns, advantage + x["value"])


@pytest.mark.parametrize("flags", list(itertools.product([(0, 0), (1, 0), (0, 1), (1, 1)], repeat=4)))
def test_every_pattern_of_endings(flags):
    terminated = np.array([[bool(f[0])] for f in flags])
    done = np.array([[bool(f[0] or f[1])] for f in flags])
    rows = np.arange(1.0, 5.0)[:, None]
    x = {
        "reward": rows, "value": rows / 2, "next_value": rows * 4, "terminated": terminated, "done": done,
        "valid": np.ones((4, 1), bool), "gamma": 0.5, "gae_lambda": 0.5,
    }  # fmt: skip
    assert np.array_equal(ours(**x)[0], oracle.advantages(**x))


def test_an_exact_critic_sees_no_advantage_at_a_cut_but_would_if_it_were_taken_for_an_end():
    T, gamma = 8, 0.98
    value = np.full((T, 1), 1 / (1 - gamma))  # an endless task with reward 1
    cut = np.zeros((T, 1), bool)
    cut[-1] = True
    x = {"reward": np.ones((T, 1)), "value": value, "next_value": value, "done": cut, "valid": np.ones((T, 1), bool)}
    truncated, _ = ours(**x, terminated=np.zeros((T, 1), bool), gamma=gamma, gae_lambda=0.95)
    assert np.abs(truncated).max() < 1e-12
    terminated, _ = ours(**x, terminated=cut, gamma=gamma, gae_lambda=0.95)
    assert terminated[-1, 0] == pytest.approx(-49)


@given(rollouts())
def test_lambda_0_is_the_td_error(x):
    x["gae_lambda"] = 0.0
    td = x["reward"] + x["gamma"] * x["next_value"] * ~x["terminated"] - x["value"]
    assert np.array_equal(ours(**x)[0], np.where(x["valid"], td, 0.0))


def test_lambda_1_is_the_discounted_sum_of_rewards():
    reward = np.random.default_rng(0).normal(size=(20, 1))
    value = np.random.default_rng(1).normal(size=(21, 1))
    no = np.zeros((20, 1), bool)
    _, returns = ours(
        reward=reward,
        value=value[:-1],
        next_value=value[1:],
        terminated=no,
        done=no,
        valid=~no,
        gamma=0.9,
        gae_lambda=1.0,
    )
    expected = sum(0.9**k * reward[k, 0] for k in range(20)) + 0.9**20 * value[20, 0]
    assert returns[0, 0] == pytest.approx(expected, abs=1e-12)


@given(rollouts())
def test_a_row_that_is_no_experience_changes_nothing_whatever_it_holds(x):
    clean = ours(**x)[0]
    for name in ("reward", "value", "next_value"):
        x[name] = np.where(x["valid"], x[name], np.nan)
    assert np.array_equal(ours(**x)[0], clean)


@given(rollouts())
def test_environments_do_not_mix(x):
    order = np.arange(x["reward"].shape[1])[::-1]
    swapped = {k: v[:, order] if isinstance(v, np.ndarray) else v for k, v in x.items()}
    assert np.array_equal(ours(**swapped)[0], ours(**x)[0][:, order])


def test_normalized_equals_scipy():
    rows = torch.as_tensor(np.random.default_rng(0).normal(3.0, 5.0, size=(1, 257)))
    assert np.allclose(normalized(rows).numpy(), zscore(rows.numpy(), axis=None), atol=1e-12)


@pytest.mark.parametrize("rows", [[5.0], [1000.0] * 2048, [1000.0 + 1e-7] * 3, [0.0] * 4])
def test_one_row_or_equal_rows_become_zero(rows):
    assert torch.equal(normalized(torch.tensor([rows])), torch.zeros(1, len(rows)))


def test_rounding_of_nearly_equal_rows_is_not_blown_up():
    rows = torch.full((2048,), 1000.0) + torch.randn(2048, generator=torch.Generator().manual_seed(0)) * 1e-5
    assert normalized(rows).abs().max() == 0.0


def test_a_small_but_real_spread_is_kept():
    assert normalized(torch.tensor([1e-3, -1e-3])).tolist() == pytest.approx([1.0, -1.0])


def test_explained_variance_of_known_critics():
    returns = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((4,), 3.0), returns) == 0.0
    assert explained_variance(-returns, returns) == -3.0
    assert explained_variance(torch.ones(4), torch.ones(4)).isnan()


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**20))
def test_parts_are_normalised_each_on_its_own(rows, parts, seed):
    advantage = torch.randn(rows, generator=torch.Generator().manual_seed(seed)) * 3.0 + 5.0
    parts = min(parts, rows)
    expected = torch.cat([normalized(part) for part in advantage.tensor_split(parts)])
    limit = rounding(torch.float32, 4, expected.abs().max().item())  # sums in float64, then a few operations
    torch.testing.assert_close(normalized_parts(advantage, parts), expected, rtol=0, atol=limit)


@given(st.integers(1, 70), st.integers(1, 3), st.integers(0, 2**20))
def test_sums_by_doubling_are_those_of_a_loop(T, N, seed):
    rng = np.random.default_rng(seed)
    term, decay = rng.normal(size=(T, N)), rng.random((T, N)) * (rng.random((T, N)) < 0.9)
    expected = term.copy()
    for t in range(T - 2, -1, -1):
        expected[t] += decay[t] * expected[t + 1]
    given_term, given_decay = torch.from_numpy(term.copy()), torch.from_numpy(decay.copy())
    found = discounted_sums(given_term, given_decay)
    assert np.allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert np.array_equal(given_term.numpy(), term)  # the input is not modified
    assert np.array_equal(given_decay.numpy(), decay)


def test_nothing_comes_over_an_ending_however_large_it_is():
    term = torch.tensor([[1.0], [2.0], [1e30], [3e30]])
    decay = torch.tensor([[0.9], [0.0], [0.9], [0.9]])
    assert discounted_sums(term, decay)[:2, 0].tolist() == pytest.approx([2.8, 2.0])
