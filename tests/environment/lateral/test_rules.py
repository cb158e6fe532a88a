"""Tokens, cost and noise against what the challenge's rules say, written out by hand."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from environment.lateral.rules import BINS, COST_END, ROWS, cost, encode, official_draws


def test_a_token_is_the_first_bin_that_is_not_below():
    assert len(BINS) == 1024
    assert encode(np.array([-5.0, -9.0, 5.0, 9.0])).tolist() == [0, 0, 1023, 1023]
    assert np.array_equal(encode(BINS), np.arange(1024))  # a bin's own value is that bin, not the next
    just_above = np.nextafter(BINS[:-1], 9.0)
    assert np.array_equal(encode(just_above), np.arange(1, 1024))


@given(st.floats(-6, 6))
def test_decoding_is_never_further_off_than_a_bin(x):
    assert abs(BINS[encode(np.array(x))] - np.clip(x, -5, 5)) <= BINS[1] - BINS[0] + 1e-12


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_the_cost_row_by_row(kind):
    rng = np.random.default_rng(0)
    target, lataccel = rng.normal(size=(2, ROWS, 3))
    found = cost(kind(target), kind(lataccel))
    for i in range(3):
        errors = [(target[t, i] - lataccel[t, i]) ** 2 for t in range(100, 500)]
        jerks = [((lataccel[t, i] - lataccel[t - 1, i]) / 0.1) ** 2 for t in range(101, 500)]
        lateral, jerk = 100 * math.fsum(errors) / 400, 100 * math.fsum(jerks) / 399
        assert [float(part[i]) for part in found] == pytest.approx([lateral, jerk, 50 * lateral + jerk], rel=1e-12)


def test_only_rows_100_to_499_cost():
    target, lataccel = np.zeros((2, ROWS, 1))
    lataccel[:100], lataccel[COST_END:] = 3.0, 3.0
    assert cost(target, lataccel).total == 0.0


def test_the_official_noise_is_numpys_of_the_paths_md5():
    seed = int(hashlib.md5(b"data/00000.csv").hexdigest(), 16) % 10_000
    state = np.random.RandomState(seed)
    one_by_one = [state.random_sample() for _ in range(20, 500)]
    assert official_draws("data/00000.csv").tolist() == one_by_one[80:]
    assert not np.array_equal(official_draws("data/00001.csv"), official_draws("data/00000.csv"))
