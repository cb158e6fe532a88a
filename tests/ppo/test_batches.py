"""Minibatches: each valid row once per pass; chunks keep the order of time and the memory recorded at their start."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_lab.ppo.advantages import normalized
from ppo_lab.ppo.batches import minibatches, whole
from ppo_lab.ppo.rollout import Rollout


def numbered(T: int, N: int, L: int = 1, dict_obs: bool = False) -> Rollout:
    """Make a rollout in which obs, action, value and memory encode their row: 100 t + n."""
    number = (100 * torch.arange(T + 1)[:, None] + torch.arange(N)).float()  # (T + 1, N)
    row, flag = number[:T], torch.zeros(T, N, dtype=torch.bool)
    obs = number[..., None]
    memory = {"actor": row[::L, :, None].clone(), "critic": -row[::L, :, None]} if L > 1 else {}
    return Rollout(
        obs={"a": obs, "b": -obs} if dict_obs else obs,
        final_obs=obs[1:],
        action=row.long(),
        log_prob=row,
        value=row,
        next_value=row,
        reward=row,
        terminated=flag.clone(),
        done=flag.clone(),
        valid=~flag,
        starts=flag.clone(),
        episode_done=flag.clone(),
        memory=memory,
        chunk_length=L,
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**20))
def test_every_row_of_experience_once(T, N, L, parts, seed):
    rng = torch.Generator().manual_seed(seed)
    rollout = numbered(T, N, L)
    rollout.valid = torch.rand(T, N, generator=rng) < 0.7
    seen, sizes = [], []
    for batch in minibatches(rollout, rollout.value + 0.5, rollout.value - 0.5, parts, rng):
        rows = batch.experience(batch.value)
        seen += rows.flatten().tolist()
        sizes.append(batch.starts.shape[1])
        assert torch.equal(batch.experience(batch.advantage), rows + 0.5)
        assert torch.equal(batch.experience(batch.returns), rows - 0.5)
        assert torch.equal(batch.experience(batch.obs.squeeze(-1)), rows)
        assert torch.equal(batch.experience(batch.action), rows.long())
    assert sorted(seen) == sorted(rollout.value[rollout.valid].tolist())
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len(sizes) <= parts


@pytest.mark.parametrize("L", [2, 3, 4, 7])
def test_chunks_keep_the_order_of_time_and_their_own_memory(L):
    rollout = numbered(7, 3, L, dict_obs=True)
    rollout.starts[3, 1] = rollout.starts[6, 2] = True
    count = 0
    for batch in minibatches(rollout, rollout.value, rollout.value, 2, torch.Generator().manual_seed(1)):
        for b in range(batch.starts.shape[1]):
            inside = torch.ones(L, dtype=torch.bool) if batch.valid is None else batch.valid[:, b]
            rows = batch.value[:, b][inside]
            assert (rows.diff() == 100).all()
            assert batch.memory["actor"][b].item() == -batch.memory["critic"][b].item() == rows[0].item()
            assert torch.equal(batch.obs["a"][:, b, 0][inside], rows)
            assert torch.equal(batch.obs["b"][:, b, 0][inside], -rows)
            assert batch.starts[:, b].nonzero().squeeze(-1).tolist() == [
                i for i, row in enumerate(rows.tolist()) if row in (301, 602)
            ]
            count += len(rows)
    assert count == 21


def test_a_batch_in_parts_is_the_batch():
    rollout = numbered(6, 5, 4)
    rollout.valid[2, 3] = False
    (batch,) = minibatches(rollout, rollout.value, rollout.value, 1, torch.Generator().manual_seed(1))
    for parts in (1, 2, 3, 100):
        pieces = list(batch.split(parts))
        assert len(pieces) == min(parts, 10)
        assert sum(share for _, share in pieces) == pytest.approx(1.0)
        rows = torch.cat([piece.experience(piece.value).flatten() for piece, _ in pieces])
        assert sorted(rows.tolist()) == sorted(rollout.value[rollout.valid].tolist())
        memory = torch.cat([piece.memory["actor"] for piece, _ in pieces])
        assert torch.equal(memory, batch.memory["actor"])


@pytest.mark.parametrize("L", [1, 4])
def test_the_whole_is_all_of_it(L):
    rollout = numbered(6, 2, L)
    rollout.valid[5, 0] = False
    batch = whole(rollout, rollout.value, rollout.value)
    assert sorted(batch.experience(batch.value).tolist()) == sorted(rollout.value[rollout.valid].tolist())


@pytest.mark.parametrize("L", [1, 3])
@pytest.mark.parametrize("how", ["never", "rollout", "minibatch"])
def test_advantages_are_normalised_as_asked(L, how):
    rollout = numbered(7, 3, L)
    rollout.valid[2:4, 1] = False
    advantage = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    plain, found = (
        list(minibatches(rollout, advantage, rollout.value, 4, torch.Generator().manual_seed(2), mode))
        for mode in ("never", how)
    )
    scaled = dict(zip(rollout.value.flatten().tolist(), normalized(advantage, rollout.valid).flatten(), strict=True))
    for before, after in zip(plain, found, strict=True):
        assert torch.equal(before.value, after.value)  # the same rows
        expected = before.advantage
        if how == "minibatch":
            expected = normalized(before.advantage, before.valid)
        elif how == "rollout":
            expected = torch.tensor([scaled[each] for each in before.value.flatten().tolist()]).view_as(expected)
        torch.testing.assert_close(after.experience(after.advantage), after.experience(expected))


def test_inputs_stay_with_their_rows():
    rollout = numbered(7, 3)
    inputs = rollout.obs[:-1] * 2.0 + 1.0
    for batch in minibatches(rollout, rollout.value, rollout.value, 4, torch.Generator().manual_seed(2), inputs=inputs):
        assert torch.equal(batch.inputs, batch.obs * 2.0 + 1.0)
