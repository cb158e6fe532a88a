"""Tests of running moments, equal to NumPy's over all rows, and the normaliser: clipped, changed only by `refresh`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.models.networks.normalization import ObsNormalizer, RunningMoments


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(0, 1000))
def test_any_chunks_give_the_moments_of_the_whole(sizes, seed):
    rows = np.random.default_rng(seed).normal(1e3, 2.0, size=(sum(sizes), 3))
    moments = RunningMoments((3,))
    for chunk in np.split(rows, np.cumsum(sizes)[:-1]):
        moments.update(torch.as_tensor(chunk))
    if len(rows):
        assert np.allclose(moments.mean.numpy(), rows.mean(0), rtol=1e-12)
        assert np.allclose(moments.var.numpy(), rows.var(0), rtol=1e-9, atol=1e-9)
    assert moments.count == len(rows)


def test_the_count_is_exact_where_float32_would_stop():
    moments = RunningMoments(())
    moments.count.fill_(2**24)
    moments.update(torch.zeros(1))
    assert moments.count == 2**24 + 1


def test_a_single_row_and_no_row():
    moments = RunningMoments((2,))
    moments.update(torch.empty(0, 2))
    assert moments.var.tolist() == [1.0, 1.0]
    moments.update(torch.tensor([[1.0, 2.0]]))
    assert moments.mean.tolist() == [1.0, 2.0]
    assert moments.var.tolist() == [0.0, 0.0]


def test_a_constant_feature_becomes_0_and_a_jump_is_clipped():
    normalizer = ObsNormalizer(2, clip=10.0)
    rows = torch.stack([torch.full((50,), 7.0), torch.linspace(-1, 1, 50)], dim=-1)
    normalizer.refresh(rows)
    assert torch.equal(normalizer(rows)[:, 0], torch.zeros(50))
    assert normalizer(torch.tensor([[1e9, -1e9]])).tolist() == [[10.0, -10.0]]


def test_before_the_first_refresh_it_only_clips():
    assert ObsNormalizer(2, clip=5.0)(torch.tensor([[3.0, -9.0]])).tolist() == [[3.0, -5.0]]


def test_statistics_are_part_of_the_weights():
    a, b = ObsNormalizer(2, 10.0), ObsNormalizer(2, 10.0)
    a.refresh(torch.randn(30, 2) * 4)
    b.load_state_dict(a.state_dict())
    x = torch.randn(5, 2)
    assert torch.equal(a(x), b(x))


def test_the_input_is_not_changed():
    normalizer = ObsNormalizer(2, 1.0)
    x = torch.full((3, 2), 5.0)
    normalizer(x)
    assert x.unique().tolist() == pytest.approx([5.0])
