"""A rollout records exactly what happened, row by row; minibatches have every valid row once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.errors import NonFiniteError
from ppo_lab.ppo import rollout as rollouts
from ppo_lab.ppo.advantages import gae
from ppo_lab.ppo.batches import minibatches
from ppo_lab.ppo.rollout import Rollout, collect
from ppo_lab.ppo.state import initial_state
from tests.scripted import Script
from tests.scripted_envs import ScriptedEnv
from tests.tolerance import rounding


def collected(envs, T, rollouts=1, **model):
    config = override(Config(), {"model": {"hidden_sizes": [8], **model}})
    state = initial_state(config, envs)
    rollout = Rollout.empty(T, envs.num_envs, state.obs, state.model)
    for _ in range(rollouts):
        collect(envs, state.model, state, rollout)
    return state, rollout


def test_the_rows_are_the_transitions():
    envs = Script(["..", "T.", "..", ".C"])
    state, rollout = collected(envs, 5)
    assert rollout.obs[:, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 1, 2], [0, 1, 3]]
    assert rollout.obs[:, 1].tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 2], [1, 0, 3], [1, 1, 0], [1, 1, 1]]
    assert rollout.final_obs[1, 0].tolist() == [0, 0, 2]
    assert rollout.final_obs[3, 1].tolist() == [1, 0, 4]
    assert rollout.reward.T.tolist() == [[1, 2, 1, 2, 3], [1, 2, 3, 4, 1]]
    assert rollout.starts.T.tolist() == [[True, False, True, False, False], [True, False, False, False, True]]
    assert torch.equal(state.obs, rollout.obs[-1])
    assert torch.equal(torch.stack(envs.actions), rollout.action)


def test_the_next_rollout_goes_on_where_the_last_one_stopped():
    _, rollout = collected(Script(["." * 2] * 7), 3, rollouts=2)
    assert rollout.obs[:, 0, 2].tolist() == [3, 4, 5, 6]
    assert not rollout.starts.any()


def test_recorded_log_probs_and_values_are_those_of_the_policy():
    state, rollout = collected(Script(["...", "TC.", "..C"]), 6)
    log_prob, _, value = state.model.evaluate(rollout.obs[:-1], rollout.action, None, rollout.starts)
    assert torch.allclose(log_prob, rollout.log_prob, atol=1e-6)
    assert torch.allclose(value, rollout.value, atol=1e-6)


def test_the_value_after_a_cut_is_that_of_the_final_observation_and_after_a_step_that_of_the_next():
    state, rollout = collected(Script(["..", "C.", ".T", "B."]), 4)
    expected = state.model.value(rollout.final_obs)  # (T, N) value after each action
    cut = rollout.done & ~rollout.terminated
    assert cut.sum() == 1
    assert torch.allclose(rollout.next_value[cut], expected[cut], atol=1e-6)
    assert torch.allclose(rollout.next_value[~rollout.done], expected[~rollout.done], atol=1e-6)
    assert not torch.allclose(rollout.next_value[cut], state.model.value(rollout.obs[1:])[cut])


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95])
def test_the_same_advantages_through_both_kinds_of_reset(gae_lambda):
    """With or without reset rows, the transitions and what is computed from them are the same."""
    ends = ["...", "T.C", ".B.", "C..", "...", "T.T"]
    rows = []
    for next_step in (False, True):
        _, rollout = collected(Script(ends, next_step), 40)
        x = rollout
        advantage, returns = gae(
            x.reward, x.value, x.next_value, x.terminated, x.done, x.valid, gamma=0.9, gae_lambda=gae_lambda
        )
        table = torch.cat(
            [x.obs[:-1], x.reward[..., None], advantage[..., None], returns[..., None]], dim=-1
        )  # (T, N, 6)
        rows.append([(table[:, n][x.valid[:, n]], x.done[:, n][x.valid[:, n]]) for n in range(3)])
    for (same, done), (later, _) in zip(*rows, strict=True):
        ended = done[: len(later)].nonzero()[-1].item() + 1  # whole episodes only: the last one was cut at another row
        assert ended > 15
        assert torch.allclose(same[:ended], later[:ended], atol=1e-5)


class Still:
    """A model without learning, whose value is a fixed weighted sum of the observation."""

    actor_head = SimpleNamespace(action_shape=(1,), action_dtype=torch.float32)

    masked, recurrent, shared = False, (), False

    def initial_memory(self, num_envs):
        return None

    def step(self, obs, memory, starts):
        return self, memory

    def sample(self, generator):
        return torch.zeros(3, 1)

    def log_prob(self, action):
        return torch.zeros(3)

    def to_env(self, action):
        return action

    def value(self, obs):
        return obs @ torch.tensor([1.0, 0.5, 0.25, 0.0])


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95])
def test_the_same_advantages_through_every_autoreset_mode_of_gymnasium(gae_lambda):
    script = ["...T", "C", "..B", "T", "C", ".C", ".....T"]

    def make(who):
        return lambda: ScriptedEnv(who, tuple(script[who:] + script[:who]))

    def learned(envs):
        """Return every valid row of complete episodes: observation, reward, flags, advantage, returns."""
        ones = torch.ones(3, dtype=torch.bool)
        state = SimpleNamespace(obs=envs.reset(1), memory=None, starts=ones, action_rng=None)
        rollout = Rollout.empty(60, 3, state.obs, Still())
        collect(envs, Still(), state, rollout)
        x = rollout
        advantage, returns = gae(
            x.reward, x.value, x.next_value, x.terminated, x.done, x.valid, gamma=0.9, gae_lambda=gae_lambda
        )
        columns = [x.obs[:-1], *(c[..., None].float() for c in (x.reward, x.terminated, x.done, advantage, returns))]
        rows = [torch.cat(columns, dim=-1)[:, n][x.valid[:, n]] for n in range(3)]
        return [row[: row[:, 6].nonzero()[-1].item() + 1] for row in rows]

    reference = learned(SingleEnvs([make(who)() for who in range(3)]))
    for mode in AutoresetMode:
        for theirs, ours in zip(
            learned(VectorEnvs(SyncVectorEnv([make(who) for who in range(3)], autoreset_mode=mode))),
            reference,
            strict=True,
        ):
            count = min(len(theirs), len(ours))
            assert count > 30
            # values come in one batch, whose size depends on the mode; an advantage is a sum over up to 60 rows
            limit = rounding(torch.float32, 60, ours.abs().max().item())
            torch.testing.assert_close(theirs[:count], ours[:count], rtol=0, atol=limit)


def test_reset_rows_of_a_next_step_environment_are_no_experience():
    _, rollout = collected(Script(["..", "T.", ".C", "..", ".."], next_step=True), 5)
    assert rollout.valid.T.tolist() == [[True, True, False, True, True], [True, True, True, False, True]]
    assert rollout.starts.T.tolist() == [[True, False, False, True, False], [True, False, False, False, True]]
    # at a truncation, the next row still has the final observation: its value is the bootstrap
    assert torch.equal(rollout.next_value[2, 1], rollout.value[3, 1])


def test_an_observation_keeps_its_dtype():
    class Bytes(Script):
        def reset(self, seed):
            return super().reset(seed).byte()

    rollout = Rollout.empty(2, 1, Bytes(["."]).reset(0), initial_state(Config(), Script(["."])).model)
    assert rollout.obs.dtype == rollout.final_obs.dtype == torch.uint8


@pytest.mark.parametrize("what", ["reward", "obs"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named_with_its_place(what, bad):
    class Broken(Script):
        def step(self, action):
            step = super().step(action)
            if self.t == 3:
                getattr(step, what)[1] = bad
            return step

    with pytest.raises(NonFiniteError, match=r"environment 1 gave a .* that is not finite at step [23]"):
        collected(Broken(["..."] * 5), 5)


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99))
def test_every_valid_row_once_a_pass_in_parts_that_differ_by_one(T, N, parts, seed):
    numbers = torch.arange(T * N, dtype=torch.float32).reshape(T, N)
    valid = torch.as_tensor(np.random.default_rng(seed).random((T, N)) < 0.8)
    valid[0, 0] = True
    obs = torch.cat([numbers, torch.full((1, N), -1.0)]).unsqueeze(-1)
    flags = torch.zeros(T, N, dtype=torch.bool)
    rollout = Rollout(
        obs, obs[:-1], numbers.long(), numbers, numbers, numbers, numbers, flags, flags, valid, flags, flags
    )
    batches = list(minibatches(rollout, numbers, numbers, parts, torch.Generator().manual_seed(seed)))
    rows = torch.cat([batch.advantage[0] for batch in batches])
    assert sorted(rows.tolist()) == sorted(numbers[valid].tolist())
    sizes = [batch.advantage.shape[1] for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == min(parts, int(valid.sum()))
    for batch in batches:  # the columns belong to the same row
        assert torch.equal(batch.obs[0, :, 0], batch.advantage[0])
        assert torch.equal(batch.action.float(), batch.log_prob)


def test_every_pass_has_another_order():
    numbers = torch.arange(50.0).reshape(50, 1)
    flags = torch.zeros(50, 1, dtype=torch.bool)
    obs = torch.zeros(51, 1, 1)
    rollout = Rollout(
        obs, obs[:-1], numbers.long(), numbers, numbers, numbers, numbers, flags, flags, ~flags, flags, flags
    )
    rng = torch.Generator().manual_seed(0)
    first, second = (next(minibatches(rollout, numbers, numbers, 1, rng)).advantage for _ in range(2))
    assert not torch.equal(first, second)


def test_values_in_blocks_are_the_values(monkeypatch):
    def model_of(obs):
        return obs["a"].sum(-1) + 2.0 * obs["b"]

    obs = {"a": torch.randn(5, 3, 4), "b": torch.randn(5, 3)}
    whole = rollouts._in_blocks(model_of, obs)
    for rows, sizes in ((7, [5, 5, 5]), (8, [8, 7]), (14, [5]), (15, [5])):  # one extra row gets no block of its own
        seen = []
        monkeypatch.setattr(rollouts, "ROWS", rows)
        blocks = rollouts._in_blocks(lambda few, seen=seen: seen.append(len(few["b"])) or model_of(few), obs)
        assert seen == sizes
        torch.testing.assert_close(blocks, whole, rtol=0, atol=rounding(torch.float32, 6, whole.abs().max().item()))


def test_large_rows_go_through_in_smaller_blocks():
    assert rollouts.rows_at_once(torch.zeros(2, 4)) == rollouts.ROWS
    assert rollouts.rows_at_once(torch.zeros(2, 84, 84, 4, dtype=torch.uint8)) == rollouts.BLOCK // (84 * 84 * 4)
    assert rollouts.rows_at_once(torch.zeros(2, 4, device="meta")) > 1e9  # no limit on a GPU
