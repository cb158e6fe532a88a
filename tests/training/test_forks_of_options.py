"""Forks that change how is learned, rollouts of one step, chunks without experience, policies in other surroundings."""

from __future__ import annotations

import gymnasium
import pytest
import torch

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.evaluation.policy import load_policy
from ppo_lab.ppo.batches import minibatches
from ppo_lab.ppo.events import MinibatchStepped
from ppo_lab.ppo.rewards import rewards_to_learn
from ppo_lab.ppo.rollout import Rollout, collect
from ppo_lab.ppo.state import initial_state
from ppo_lab.training.trainer import Trainer
from tests.scripted import Script

BASE = {
    "env": {"id": "ppo_lab/CartPole-v1", "num_envs": 4},
    "model": {"hidden_sizes": [8], "core_size": 8},
    "ppo": {"total_timesteps": 256, "num_steps": 16, "learning_rate": 1e-3},
}


def parent(tmp_path, **settings):
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    trainer = Trainer(override(Config(), {**BASE, **changes, "run.root": str(tmp_path), "run.name": "parent"}))
    for update in trainer:
        if update.update == 2:
            break
    trainer.save()
    trainer.close()
    return tmp_path / "parent"


ADAM, ADAMW, SGD = ({"ppo.optimizer": name} for name in ("adam", "adamw", "sgd"))
DECAY = {**ADAMW, "ppo.weight_decay": 0.01}


@pytest.mark.parametrize("after", [ADAM, ADAMW, DECAY, SGD], ids=["adam", "adamw", "decay", "sgd"])
@pytest.mark.parametrize("before", [ADAM, DECAY, SGD], ids=["adam", "decay", "sgd"])
def test_a_fork_may_have_another_optimizer_and_keeps_the_moments_it_can(tmp_path, before, after):
    folder = parent(tmp_path, **{key.replace(".", "__"): value for key, value in before.items()})
    old = Trainer.resume(folder)
    fork = Trainer.fork(folder, overrides={"ppo.weight_decay": 0.0, **after})
    if SGD not in (before, after):
        names = {id(p): name for name, p in old.state.model.named_parameters()}
        moments = {names[id(p)]: m["exp_avg"] for p, m in old.state.optimizer.state.items()}
        for name, p in fork.state.model.named_parameters():
            assert torch.equal(fork.state.optimizer.state[p]["exp_avg"], moments[name]), name
    for _ in fork:
        pass
    fork.close()
    old.close()


def test_a_fork_that_no_longer_adapts_learns_at_the_rate_its_config_says(tmp_path):
    folder = parent(tmp_path, ppo__learning_rate_schedule="adaptive", ppo__target_entropy=0.1, ppo__ent_coef=0.01)
    constant = {"ppo.learning_rate_schedule": "constant", "ppo.target_entropy": None}
    for overrides in (constant, {"ppo.learning_rate": 1e-3, "ppo.target_entropy": None}):
        fork = Trainer.fork(folder, overrides=overrides)
        update = next(iter(fork))
        assert update.metrics["update/learning_rate"] == 1e-3
        assert update.metrics["update/ent_coef"] == 0.01
        fork.close()


def values(trainer, obs):
    with torch.no_grad():
        return trainer.state.model.value(obs)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_a_fork_may_turn_value_normalisation_on_and_off_and_expects_the_same(tmp_path, before, shared):
    folder = parent(tmp_path, model__normalize_value=before, model__shared=shared)
    old = Trainer.resume(folder)
    fork = Trainer.fork(folder, overrides={"model.normalize_value": not before})
    obs = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    expected = values(old, obs)
    assert expected.std() > 0.01
    assert torch.allclose(values(fork, obs), expected, rtol=1e-6, atol=1e-6)
    for (name, p), q in zip(fork.state.model.named_parameters(), old.state.model.parameters(), strict=True):
        kept = fork.state.optimizer.state.get(p, {}).get("exp_avg")
        if name.startswith("critic"):
            assert kept is None, name  # gradients of a loss in other units
        else:
            assert torch.equal(p, q), name
            assert torch.equal(kept, old.state.optimizer.state[q]["exp_avg"]), name
    old.close()
    again = fork.run.folder
    next(iter(fork))
    fork.save()
    fork.close()
    if not before:  # the first rollout's returns are all that it has seen
        assert fork.state.model.critic_head.moments.count == 64
    resumed = Trainer.resume(again)
    assert resumed.fingerprint() == fork.fingerprint()
    resumed.close()


@pytest.mark.parametrize(
    "overrides", [{"model.normalize_obs": True}, {"model.hidden_sizes": [9]}, {"model.core": "gru"}], ids=str
)
def test_a_fork_to_another_network_is_refused_by_the_name_of_the_setting(tmp_path, overrides):
    folder = parent(tmp_path)
    with pytest.raises(RunError, match=f"a fork cannot change {next(iter(overrides))} ") as caught:
        Trainer.fork(folder, overrides=overrides)
    assert len(str(caught.value)) < 160


NORMALIZED = {"ppo__normalize_reward": True, "model__normalize_value": True}


def test_a_fork_with_another_reward_scale_learns_the_same_normalised_rewards(tmp_path):
    folder = parent(tmp_path, **NORMALIZED, ppo__reward_scale=0.5)
    old, fork = Trainer.resume(folder), Trainer.fork(folder, overrides={"ppo.reward_scale": 100.0})
    for trainer in (old, fork):
        collect(trainer.envs, trainer.state.model, trainer.state, trainer.rollout)
    learned = [rewards_to_learn(t.rollout, t.config.ppo, t.state.reward_scaler) for t in (old, fork)]
    assert torch.allclose(*learned, rtol=1e-6)
    scalers = old.state.reward_scaler, fork.state.reward_scaler
    assert torch.allclose(scalers[0].discounted_return * 200, scalers[1].discounted_return)
    assert scalers[1].moments.count == scalers[0].moments.count == 3 * 64
    assert fork.state.model.critic_head.moments.count == 2 * 64  # of returns that come as before
    old.close()
    fork.close()


OTHER_UNITS = {"bound": {"ppo.reward_bound": 0.3}, "task": {"env.kwargs": {"max_episode_steps": 50}}}


@pytest.mark.parametrize("overrides", OTHER_UNITS.values(), ids=list(OTHER_UNITS))
def test_statistics_of_other_rewards_begin_anew_in_a_fork(tmp_path, overrides):
    folder = parent(tmp_path, **NORMALIZED)
    old, fork = Trainer.resume(folder), Trainer.fork(folder, overrides=overrides)
    obs = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(values(fork, obs), values(old, obs))
    old.close()
    scaler, moments = fork.state.reward_scaler, fork.state.model.critic_head.moments
    assert moments.count == scaler.moments.count == 0
    assert not scaler.discounted_return.any()
    next(iter(fork))
    assert moments.count == scaler.moments.count == 64
    fork.close()


@pytest.mark.parametrize("overrides", [{"ppo.reward_scale": 8.0}, {"ppo.normalize_reward": True}], ids=str)
def test_statistics_of_returns_in_other_units_begin_anew_in_a_fork(tmp_path, overrides):
    folder = parent(tmp_path, model__normalize_value=True)
    fork = Trainer.fork(folder, overrides=overrides)
    assert fork.state.model.critic_head.moments.count == 0
    fork.close()


@pytest.mark.parametrize("core", ["none", "gru"])
def test_rollouts_of_one_step_know_where_episodes_start(core):
    short = {"env.kwargs": {"max_episode_steps": 3}, "ppo.num_steps": 1, "ppo.num_minibatches": 1}
    trainer = Trainer(override(Config(), {**BASE, **short, "model.core": core, "run.root": None}))
    done = torch.ones(4, dtype=torch.bool)
    for event in trainer.events():
        if isinstance(event, MinibatchStepped) and event.epoch == 0:
            assert torch.equal(trainer.rollout.starts[0], done)
            assert event.loss.approx_kl.abs() < 1e-6
            done = trainer.rollout.done[0].clone()


def test_a_chunk_of_nothing_but_resets_is_left_out():
    envs = Script(["T.", "..", "..", ".."], next_step=True)
    state = initial_state(override(Config(), {"model": {"core": "gru", "core_size": 8, "hidden_sizes": [8]}}), envs)
    rollout = Rollout.empty(5, 2, state.obs, state.model, 1)
    collect(envs, state.model, state, rollout)
    assert not rollout.valid.all()
    batches = list(minibatches(rollout, rollout.value, rollout.value, 100, torch.Generator().manual_seed(1)))
    assert len(batches) == int(rollout.valid.sum())
    assert all(batch.experience(batch.value).numel() == 1 for batch in batches)


def test_a_policy_acts_without_what_only_the_critic_saw():
    env = {"id": "ppo_lab/Spaces-v0", "num_envs": 2, "kwargs": {"observation": "dict"}}
    privileged = {"env": env, "model.privileged": ["privileged"], "run.root": None}
    trainer = Trainer(override(Config(), {**BASE, **privileged}))
    policy, obs = trainer.policy(), {key: rows[0] for key, rows in trainer.state.obs.items()}
    seen = {key: rows for key, rows in obs.items() if key != "privileged"}
    action = policy.predict(seen)
    policy.reset()
    assert torch.equal(policy.predict({**obs, "mission": "words no network reads"}), action)
    with pytest.raises(ConfigError, match=r"an observation needs the keys .*vector"):
        policy.predict({key: rows for key, rows in seen.items() if key != "vector"})


@pytest.mark.parametrize("text", ["[a, b]", ["a", "b"], ("a", "b")])
def test_lists_of_words_can_be_given_as_text(text):
    assert override(Config(), {"model.privileged": text}).model.privileged == ("a", "b")


def test_drawing_after_looking_explores():
    settings = {**BASE, "env.id": "Pendulum-v1", "model.std": "gsde", "run.root": None}
    policy = Trainer(override(Config(), settings)).policy()
    obs = torch.tensor([0.5, 0.5, 0.1])
    best = policy.predict(obs, deterministic=True)
    assert not torch.equal(policy.predict(obs, deterministic=False), best)


class Far(gymnasium.Wrapper):
    """CartPole whose every reward is -1000."""

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, -1000.0, *rest


def test_what_a_factory_makes_is_what_is_evaluated_and_resumed(tmp_path):
    def make(index):
        return Far(gymnasium.make("CartPole-v1"))

    settings = {"run.eval_every": 64, "run.eval_episodes": 2, "run.root": str(tmp_path), "run.name": "far"}
    config = override(Config(), {**BASE, **settings})
    trainer = Trainer(config, envs=make)
    for update in trainer:
        assert update.metrics["eval/return_mean"] < -1000
        break
    trainer.save()
    trainer.close()
    resumed = Trainer.resume(tmp_path / "far", envs=make)
    assert resumed.fingerprint() == trainer.fingerprint()
    resumed.close()
    assert load_policy(tmp_path / "far").envs_given
    with pytest.raises(ConfigError, match="cannot be recreated"):
        Trainer(override(config, {"run.name": None}), envs=Script(["."]))
