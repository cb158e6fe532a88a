"""Memory in rollout and update: recorded outputs are reproduced, and values equal those of a step-by-step loop."""

from __future__ import annotations

import copy

import pytest
import torch

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.errors import ConfigError
from ppo_lab.evaluation import evaluate
from ppo_lab.ppo.batches import minibatches, whole
from ppo_lab.ppo.events import AdvantagesEstimated, MinibatchStepped, RolloutCollected
from ppo_lab.ppo.rollout import Rollout, collect, estimate_values
from ppo_lab.ppo.state import initial_state
from ppo_lab.training.trainer import Trainer
from tests.scripted import Script

CORES = ("gru", "lstm", "window")
ENDS = ["....", "T...", "..C.", ".C..", "....", "B.T.", "...."]


def collected(core, T=11, L=4, rollouts=2, next_step=False, **model):
    envs = Script(ENDS, next_step)
    settings = {"hidden_sizes": [8], "core": core, "core_size": 8, "core_layers": 2, "window": 3, **model}
    config = override(Config(), {"model": settings})
    state = initial_state(config, envs)
    rollout = Rollout.empty(T, envs.num_envs, state.obs, state.model, L)
    for _ in range(rollouts):
        before = copy.deepcopy(state.memory)
        collect(envs, state.model, state, rollout)
    return state, rollout, before


@pytest.mark.parametrize("next_step", [False, True], ids=["same step", "next step"])
@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("L", [1, 3, 4, 11, 50])
@pytest.mark.parametrize("core", CORES)
@torch.no_grad()
def test_chunks_reproduce_what_the_rollout_recorded(core, L, shared, next_step):
    state, rollout, _ = collected(core, L=L, shared=shared, next_step=next_step)
    for batch in minibatches(rollout, rollout.value, rollout.value, 3, torch.Generator().manual_seed(1)):
        log_prob, _, value = state.model.evaluate(batch.obs, batch.action, batch.memory, batch.starts)
        pick = batch.experience
        assert (pick(log_prob) - pick(batch.log_prob)).abs().max() < 1e-6
        assert (pick(value) - pick(batch.value)).abs().max() < 1e-5


@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("core", CORES)
@torch.no_grad()
def test_values_are_those_of_a_loop_that_steps_the_critic(core, shared):
    state, rollout, before = collected(core, shared=shared)
    model, key = state.model, state.model.critic_key
    memory, no = before[key], torch.zeros(1, rollout.reward.shape[1], dtype=torch.bool)
    for t in range(len(rollout)):
        value, after, _ = model.critique(rollout.obs[t][None], {**before, key: memory}, rollout.starts[t][None], no)
        led_to, _, _ = model.critique(rollout.final_obs[t][None], after, no, no)  # memory from before any reset
        memory = after[key]
        assert torch.allclose(value[0], rollout.value[t], atol=1e-6)
        mattering = ~rollout.terminated[t]
        assert torch.allclose(led_to[0][mattering], rollout.next_value[t][mattering], atol=1e-6)
    assert torch.allclose(state.memory[key], memory, atol=1e-6)  # V(final_obs) did not change the memory


@torch.no_grad()
def test_the_memory_matters_to_all_of_this():
    """With a wrong memory the quantities that the tests above compare differ."""
    state, rollout, _ = collected("gru")
    batch = whole(rollout, rollout.value, rollout.value)
    wrong = {key: rows + 0.5 for key, rows in batch.memory.items()}
    log_prob, _, value = state.model.evaluate(batch.obs, batch.action, wrong, batch.starts)
    assert (batch.experience(value) - batch.experience(batch.value)).abs().max() > 1e-3
    assert (batch.experience(log_prob) - batch.experience(batch.log_prob)).abs().max() > 1e-5


@torch.no_grad()
def test_estimating_values_again_changes_nothing_while_the_critic_stays():
    state, rollout, before = collected("gru")
    value, next_value, live = rollout.value.clone(), rollout.next_value.clone(), copy.deepcopy(state.memory)
    estimate_values(state.model, rollout, rollout.first_memory())
    assert torch.equal(rollout.value, value)
    assert torch.equal(rollout.next_value, next_value)
    assert torch.equal(state.memory["actor"], live["actor"])
    assert torch.equal(rollout.first_memory()["critic"], before["critic"])


SMALL = {
    "env": {"id": "ppo_lab/CartPole-v1", "num_envs": 3},
    "model": {"hidden_sizes": [8], "core_size": 8},
    "ppo": {"total_timesteps": 96, "num_steps": 16, "num_minibatches": 2, "learning_rate": 1e-2, "chunk_length": 5},
    "run": {"root": None},
}


@pytest.mark.parametrize("core", CORES)
def test_every_ratio_is_1_before_the_first_step(core):
    trainer = Trainer(override(Config(), {**SMALL, "model.core": core, "model.normalize_obs": True}))
    for _ in range(2):
        for event in trainer.events():
            if isinstance(event, MinibatchStepped):
                assert event.loss.approx_kl.abs() < 1e-6
                assert event.loss.clip_fraction == 0
                break
        for _ in trainer:
            break


def test_the_length_of_a_chunk_changes_what_is_learned_and_not_what_is_collected():
    seen = {}
    for L in (2, 16):
        trainer = Trainer(override(Config(), {**SMALL, "model.core": "gru", "ppo.chunk_length": L}))
        for event in trainer.events():
            if isinstance(event, RolloutCollected):
                log_prob = event.rollout.log_prob.clone()
            if isinstance(event, AdvantagesEstimated) and L not in seen:
                seen[L] = [log_prob, event.advantage.clone()]
        seen[L].append(trainer.fingerprint())
    assert torch.equal(seen[2][0], seen[16][0])
    assert torch.allclose(seen[2][1], seen[16][1], atol=1e-5)
    assert seen[2][2] != seen[16][2]


def test_the_policy_remembers_from_call_to_call_and_forgets_when_told():
    trainer = Trainer(override(Config(), {**SMALL, "model.core": "gru"}))
    for _ in trainer:
        pass
    policy = trainer.policy()
    obs, no = torch.randn(6, 1, 4), torch.zeros(1, dtype=torch.bool)
    memory, by_hand = policy.initial_memory(1), []
    for row in obs:
        action, memory = policy.act(row, memory, no)
        by_hand.append(action.item())
    for _ in range(2):
        policy.reset()
        assert [policy.predict(row[0]).item() for row in obs] == by_hand
    before = copy.deepcopy(policy._memory)
    assert not torch.equal(before["actor"], policy.initial_memory(1)["actor"])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("core", ["none", "gru", "lstm", "window"])
def test_the_policy_s_values_along_episodes_are_those_of_the_rollout(core, shared):
    """Values of one observation at a time equal those of the batches in `collect`."""
    settings = {"model.core": core, "model.shared": shared, "env.kwargs": {"max_episode_steps": 7}}
    trainer = Trainer(override(Config(), {**SMALL, **settings}))
    policy, rollout = trainer.policy(), trainer.rollout
    next(trainer.events())
    assert rollout.done[:-1].any()
    memory = policy.initial_memory(trainer.envs.num_envs)
    for t in range(len(rollout)):
        value, memory = policy.value(rollout.obs[t], memory, rollout.starts[t])
        assert torch.allclose(value, rollout.value[t], atol=1e-5), f"step {t}"
        _, memory = policy.act(rollout.obs[t], memory, rollout.starts[t])
    if core != "none":
        with pytest.raises(ConfigError, match="this model has a memory"):
            policy.value(rollout.obs[0])


def test_evaluating_a_policy_with_memory_changes_nothing():
    trainer = Trainer(override(Config(), {**SMALL, "model.core": "lstm"}))
    for _ in trainer:
        break
    before = trainer.fingerprint()
    evaluate(trainer.policy(), "ppo_lab/CartPole-v1", episodes=3)
    assert trainer.fingerprint() == before


@pytest.mark.parametrize("core", ["none", "gru"])
def test_advantages_are_recomputed_from_the_critic_as_it_is_before_every_pass(core):
    """The returns of each pass are GAE with values of the current critic; without the option, of the first."""
    settings = {
        **SMALL,
        "model.core": core,
        "ppo.update_epochs": 3,
        "ppo.num_minibatches": 1,
        "ppo.total_timesteps": 48,
    }
    for recompute in (False, True):
        config = override(Config(), {**settings, "ppo.recompute_advantage": recompute})
        trainer = Trainer(config)
        expected, seen = [], []
        for event in trainer.events():
            if isinstance(event, AdvantagesEstimated | MinibatchStepped):  # the critic that the next pass uses
                fresh = copy.deepcopy(trainer.rollout)
                estimate_values(trainer.state.model, fresh, fresh.first_memory())
                expected.append(fresh.value.flatten().sort().values)
            if isinstance(event, MinibatchStepped):
                seen.append(event.batch.experience(event.batch.value).flatten().sort().values)
        for i, values in enumerate(seen):
            assert torch.allclose(values, expected[i if recompute else 0], atol=1e-5)
        assert not torch.allclose(expected[0], expected[1], atol=1e-4)
