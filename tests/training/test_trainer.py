"""The trainer equals a loop written by hand; it starts, stops and goes on without losing anything."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import nn

from environment.cartpole import CartPole
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.errors import ConfigError, NonFiniteError
from ppo_lab.evaluation import evaluate
from ppo_lab.ppo.events import AdvantagesEstimated, MinibatchStepped, RolloutCollected, Update
from ppo_lab.ppo.metrics import LOSS_METRICS
from ppo_lab.training.trainer import Trainer
from tests.scripted import Script

SMALL = {
    "run.root": None,
    "env.num_envs": 4,
    "model.hidden_sizes": [16],
    "ppo": {"num_steps": 16, "total_timesteps": 256, "num_minibatches": 3, "update_epochs": 2},
}


def settings(**changes):
    return override(override(Config(), SMALL), {key.replace("__", "."): value for key, value in changes.items()})


def trainer(envs=None, **changes):
    config = settings(**changes)
    return Trainer(config, envs or CartPole(config.env.num_envs))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_equals_a_loop_written_by_hand(normalize, shared):
    """The algorithm once more, in its most naive form: one list of transitions, no library function but Adam."""
    changes = {"model__normalize_obs": normalize, "model__shared": shared, "ppo__ent_coef": 0.01}
    ours = trainer(**changes)
    twin = trainer(**changes)  # for its initial weights, environments and random numbers
    model, envs, rng, shuffle = twin.state.model, twin.envs, twin.state.action_rng, twin.state.shuffle_rng
    adam = torch.optim.Adam(model.parameters(), lr=3e-4, eps=1e-5)
    obs = twin.state.obs
    all_obs = []
    for _ in ours:
        rows = []
        for _ in range(16):
            with torch.no_grad():
                distribution, _ = model.step(obs, None, None)
                action = distribution.sample(rng)
                step = envs.step(action)
                log_p, v, next_v = distribution.log_prob(action), model.value(obs), model.value(step.final_obs)
            rows.append(
                [obs, action, log_p, v, next_v, step.reward.clone(), step.terminated.clone(), step.truncated.clone()]
            )
            obs = step.obs.clone()
        advantages, running = [], torch.zeros(4)
        for _, _, _, v, next_v, r, terminated, truncated in reversed(rows):
            delta = r + 0.99 * next_v * (1 - terminated.float()) - v
            running = delta + 0.99 * 0.95 * (1 - (terminated | truncated).float()) * running
            advantages.insert(0, running)
        o, a, lp, v = (torch.cat([row[i] for row in rows]) for i in range(4))
        adv = torch.cat(advantages)
        for _ in range(2):
            for index in torch.randperm(64, generator=shuffle).tensor_split(3):
                distribution, _ = model.step(o[index], None, None)
                ratio = (distribution.log_prob(a[index]) - lp[index]).exp()
                x = (adv[index] - adv[index].mean()) / adv[index].std(correction=0)
                policy = -torch.min(ratio * x, ratio.clamp(0.8, 1.2) * x).mean()
                critic = ((model.value(o[index]) - (adv + v)[index]) ** 2).mean()
                adam.zero_grad()
                (policy + 0.5 * critic - 0.01 * distribution.entropy().mean()).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                adam.step()
        all_obs.append(o)
        if normalize:
            seen = torch.cat(all_obs).double()
            normalizer = model.features.normalizer
            normalizer.center.copy_(seen.mean(0))
            normalizer.scale.copy_(1 / (seen.var(0, correction=0) + 1e-8).sqrt())
    assert ours.state.update == 4
    for theirs, mine in zip(model.parameters(), ours.state.model.parameters(), strict=True):
        assert torch.allclose(theirs, mine, atol=2e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_every_ratio_is_1_before_the_first_step_of_every_update(normalize):
    t = trainer(model__normalize_obs=normalize, ppo__num_minibatches=1)
    first = True
    for event in t.events():
        if isinstance(event, MinibatchStepped) and first:
            assert event.loss.approx_kl.item() == pytest.approx(0.0, abs=1e-9)
            assert event.loss.clip_fraction == 0.0
        first = isinstance(event, AdvantagesEstimated)
    assert t.finished


def test_the_events_of_an_update_come_in_order():
    kinds = [type(event) for event in trainer(ppo__total_timesteps=1).events()]
    assert kinds == [RolloutCollected, AdvantagesEstimated, *[MinibatchStepped] * 6, Update]


def test_equal_seeds_give_equal_runs_and_different_seeds_different_ones():
    def fingerprint(seed):
        t = trainer(run__seed=seed)
        list(t)
        return t.fingerprint()

    assert fingerprint(3) == fingerprint(3)
    assert fingerprint(3) != fingerprint(4)


def test_global_random_numbers_are_neither_used_nor_moved():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    t = trainer()
    list(t)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = trainer()
    list(again)
    assert t.fingerprint() == again.fingerprint()


def test_stopping_anywhere_and_going_on_changes_nothing():
    whole = trainer()
    list(whole)
    broken = trainer()
    for stop in range(1, 6):  # leave the loop in the middle of an update, look, go on
        for i, _ in enumerate(broken.events()):
            if i == stop:
                break
        broken.fingerprint()
        broken.policy()
    updates = list(broken)
    assert updates[-1].update == 4
    assert broken.fingerprint() == whole.fingerprint()


def test_evaluating_in_between_changes_nothing():
    undisturbed, watched = trainer(), trainer()
    list(undisturbed)
    for _ in watched:
        evaluate(watched.policy(), "ppo_lab/CartPole-v1", episodes=3, deterministic=False)
        watched.policy().predict(watched.state.obs, deterministic=False)
    assert watched.fingerprint() == undisturbed.fingerprint()


def test_the_budget_is_met_by_whole_rollouts():
    t = trainer(ppo__total_timesteps=129)
    assert [u.global_step for u in t] == [64, 128, 192]
    assert t.finished
    assert list(t) == []


def test_an_interrupt_arrives_between_two_events_and_loses_nothing():
    class Pressed(CartPole):
        presses = 0

        def step(self, action):
            self.presses += 1
            if self.presses == 40:  # in the middle of the third rollout
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(action)

    pressed, undisturbed = trainer(Pressed(4)), trainer()
    with pytest.raises(KeyboardInterrupt):
        list(pressed.events())
    assert pressed.state.global_step == 192
    after = [type(event) for event in pressed.events()]
    assert after[0] is RolloutCollected  # the event during which it was pressed
    list(undisturbed)
    assert pressed.fingerprint() == undisturbed.fingerprint()


def test_a_live_change_is_taken_at_the_next_update():
    t = trainer(ppo__learning_rate_schedule="linear")
    rates = []
    for update in t:
        rates.append(update.metrics["update/learning_rate"])
        if update.update == 2:
            t.set(learning_rate=1e-2, clip_coef=0.1)
            assert t.state.optimizer.param_groups[0]["lr"] == rates[-1]
    assert rates == pytest.approx([3e-4, 3e-4 * 0.75, 1e-2, 0.5e-2])
    assert update.metrics["update/clip_coef"] == 0.1


def test_a_wrong_live_change_changes_nothing():
    t = trainer()
    with pytest.raises(ConfigError, match=r"ppo.clip_coef"):
        t.set(learning_rate=1e-3, clip_coef=-1)
    update = next(iter(t))
    assert update.metrics["update/learning_rate"] == 3e-4
    with pytest.raises(ConfigError, match="live keys"):
        t.set(num_steps=8)


def test_actor_and_critic_have_learning_rates_of_their_own():
    t = trainer(ppo__critic_learning_rate=0.0)
    actor, critic = ([p.clone() for p in group] for group in t.state.model.parameter_groups())
    next(iter(t))
    now_actor, now_critic = t.state.model.parameter_groups()
    assert all(torch.equal(a, b) for a, b in zip(critic, now_critic, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(actor, now_actor, strict=True))


def test_the_update_stops_when_the_policy_has_moved_too_far():
    update = next(iter(trainer(ppo__target_kl=1e-9, ppo__learning_rate=1e-2)))
    assert update.metrics["update/gradient_steps"] == 1.0  # the first minibatch has no KL yet, the second too much
    free = next(iter(trainer(ppo__target_kl=1e9, ppo__learning_rate=1e-2)))
    assert free.metrics["update/gradient_steps"] == 6.0


def test_a_gradient_that_is_not_finite_stops_the_run_with_the_weights_whole():
    t = trainer()
    events = t.events()
    for event in events:
        if isinstance(event, AdvantagesEstimated):
            event.returns[3, 1] = float("nan")
            break
    with pytest.raises(
        NonFiniteError, match=r"minibatch \d of 6: loss nan, gradient norm nan; that step was not taken"
    ):
        list(t)
    assert all(p.isfinite().all() for p in t.state.model.parameters())
    assert all(s["exp_avg"].isfinite().all() for s in t.state.optimizer.state.values())
    assert next(iter(t)).update == 1  # and it can go on


def test_metrics_of_episodes_are_absent_before_the_first_ended():
    t = trainer(Script(["." * 4]), ppo__total_timesteps=1)
    (update,) = t
    assert not any(name.startswith("episode/") for name in update.metrics)
    assert set(LOSS_METRICS) <= update.metrics.keys()


def test_rows_that_are_no_experience_do_not_count():
    t = trainer(Script(["T" * 4], next_step=True), ppo__total_timesteps=64)
    steps = [update.global_step for update in t]
    assert steps == [32, 64]  # every second row is a reset
    assert t.state.episodes.count == 64


def test_statistics_of_observations_stand_still_within_an_update():
    t = trainer(model__normalize_obs=True)
    normalizer = t.state.model.features.normalizer
    for event in t.events():
        if isinstance(event, RolloutCollected):
            frozen = normalizer.center.clone()
        elif isinstance(event, Update):
            assert not torch.equal(normalizer.center, frozen)
        else:
            assert torch.equal(normalizer.center, frozen)
    seen = normalizer.moments.count.item()
    assert seen == t.state.global_step


def test_one_optimizer_step_is_adam_by_hand():
    t = trainer(ppo__num_minibatches=1, ppo__update_epochs=1, ppo__max_grad_norm=1e9)
    before = [p.detach().double().clone() for p in t.state.model.parameters()]
    for event in t.events():
        if isinstance(event, MinibatchStepped):
            for p, old in zip(t.state.model.parameters(), before, strict=True):
                g = p.grad.double()
                # first step: both moments, corrected for their start at zero, are g and g^2
                assert torch.allclose(p.detach().double(), old - 3e-4 * g / (g.abs() + 1e-5), atol=1e-7)
            return


def test_the_gradient_norm_reported_is_the_one_before_clipping():
    t = trainer(ppo__max_grad_norm=1e-3)
    for event in t.events():
        if isinstance(event, MinibatchStepped):
            after = torch.stack([p.grad.norm() for p in t.state.model.parameters()]).norm()
            assert after.item() == pytest.approx(1e-3, rel=1e-3)
            assert event.grad_norm > 1e-3
            return


def test_value_learning_rate_zero_means_nothing_moves():
    t = trainer(ppo__learning_rate=0.0)
    before = [p.clone() for p in t.state.model.parameters()]
    list(t)
    assert all(torch.equal(a, b) for a, b in zip(before, t.state.model.parameters(), strict=True))


def test_a_policy_is_a_copy():
    t = trainer()
    obs = t.state.obs.clone()
    policy, value = t.policy(), t.state.model.value(obs)
    list(t)
    assert torch.equal(policy.value(obs)[0], value)
    assert not torch.equal(t.policy().value(obs)[0], value)
    assert not any(p.requires_grad for p in policy.model.parameters())
