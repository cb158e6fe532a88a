"""Tests of cutting chunks at starts: each row is in exactly one column, in order; padding costs less than it saves."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.models.networks.sequences import cut, fresh, round_up, splice


def cut_rows(segments):
    rows, real = segments.rows(slice(0, len(segments.length)), int(segments.length[0]))
    return rows[real].tolist()


@given(st.integers(1, 12), st.integers(1, 6), st.floats(0, 1), st.floats(0, 1), st.integers(0, 10_000))
def test_columns_are_the_segments_between_starts(L, B, many, some, seed):
    rng = np.random.default_rng(seed)
    starts, ends = rng.random((L, B)) < many, rng.random((L, B)) < some
    segments = cut(torch.from_numpy(starts), torch.from_numpy(ends))
    rows, real = segments.rows(slice(0, len(segments.length)), int(segments.length[0]))
    seen = []
    for column in range(len(segments.length)):
        place = rows[:, column][real[:, column]]
        time, env = place // B, place % B
        assert set(env) == {segments.env[column]}
        assert time.tolist() == list(range(time[0], time[0] + segments.length[column]))
        assert not starts[time[1:], env[0]].any(), "an episode starts inside a column"
        assert time[0] == 0 or starts[time[0], env[0]], "a column begins where none starts"
        assert segments.begins[column] == (time[0] == 0)
        assert (rows[:, column][~real[:, column]] == place[-1]).all()
        seen += place.tolist()
    assert set(seen) == set(range(L * B))
    assert sorted(cut_rows(cut(torch.from_numpy(starts)))) == list(range(L * B)), "without ends every row comes once"
    assert (np.diff(segments.length) <= 0).all()
    last = segments.first + (segments.length - 1) * B
    assert (last[segments.last_of_env] == (L - 1) * B + np.arange(B)).all()
    assert (last[segments.at_ends] == np.flatnonzero(ends)).all()
    groups = segments.groups()
    assert [c for group in groups for c in range(group.start, group.stop)] == list(range(len(segments.length)))


@given(st.integers(1, 12), st.integers(1, 6), st.floats(0, 1), st.integers(0, 10_000))
def test_spliced_columns_keep_their_order_and_clear_right_before_each_start(L, B, many, seed):
    starts = np.random.default_rng(seed).random((L, B)) < many
    source, place = splice(torch.from_numpy(starts))
    middle = starts.copy()
    middle[0] = False
    assert len(source) == L + middle.sum(0).max(), "not a row more than the fullest column needs"
    assert (source.reshape(-1)[place] == np.arange(L * B).reshape(L, B)).all()
    assert (place % B == np.arange(B)).all(), "a column of its own for each environment"
    step = place // B
    for b in range(B):
        wanted = [row for t in range(L) for row in ([-1, t] if middle[t, b] else [t])]
        assert [-1 if row == L * B else row // B for row in source[: step[-1, b] + 1, b]] == wanted
        assert (source[step[-1, b] + 1 :, b] == L * B).all()


def test_an_end_right_before_a_start_costs_no_extra_column():
    starts, ends = torch.zeros(8, 2, dtype=torch.bool), torch.zeros(8, 2, dtype=torch.bool)
    starts[5, 0] = ends[4, 0] = ends[7, 1] = True
    assert len(cut(starts, ends).length) == 3
    ends[2, 1] = True
    assert len(cut(starts, ends).length) == 4


def test_groups_keep_padding_in_bounds():
    starts = torch.rand(128, 16, generator=torch.Generator().manual_seed(0)) < 0.05
    segments = cut(starts)
    padded = sum(int(segments.length[group.start]) * (group.stop - group.start) for group in segments.groups())
    assert padded < 1.5 * 128 * 16 < 0.5 * int(segments.length[0]) * len(segments.length)
    assert len(cut(torch.zeros(128, 16, dtype=torch.bool)).groups()) == 1


def test_rounding_wastes_at_most_a_fifth_of_what_it_keeps():
    for size in range(1, 2000):
        assert size <= round_up(size) <= 1.25 * size
        assert round_up(round_up(size)) == round_up(size)
    assert len({round_up(size) for size in range(1, 129)}) == 24


def test_fresh_replaces_only_what_starts_even_nan():
    memory = torch.full((3, 2, 4), torch.nan)
    memory[1] = 1.0
    kept = fresh(memory, torch.tensor([True, False, True]))
    assert torch.equal(kept[1], memory[1])
    assert not kept[[0, 2]].any()
