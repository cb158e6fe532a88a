"""One PPO update: collect a rollout, estimate advantages, and take gradient steps on minibatches."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ppo_lab.config import PPOConfig
from ppo_lab.envs.contract import Envs
from ppo_lab.ppo.adaptive import adapt, divergence_if_needed
from ppo_lab.ppo.advantages import gae
from ppo_lab.ppo.batches import Batch, minibatches
from ppo_lab.ppo.contract import Engine
from ppo_lab.ppo.events import AdvantagesEstimated, Event, MinibatchStepped, RolloutCollected, Update
from ppo_lab.ppo.losses import Loss
from ppo_lab.ppo.metrics import critic_metrics, loss_metrics, settings_metrics
from ppo_lab.ppo.optimizer import learning_rates, set_learning_rates
from ppo_lab.ppo.rewards import rewards_to_learn
from ppo_lab.ppo.rollout import Asked, Rollout, collect_stepwise, estimate_values, never
from ppo_lab.ppo.schedules import in_force, settings_at
from ppo_lab.ppo.state import TrainState


def update(
    engine: Engine, envs: Envs, state: TrainState, rollout: Rollout, configured: PPOConfig, asked: Asked = never
) -> Iterator[Event | None]:
    """Run one iteration of PPO (Schulman et al. 2017, algorithm 1). Yield an event after each part of it.

        1. Collect T steps of N environments with the current policy pi_old.
        2. Compute advantages and returns (`advantages.gae`).
        3. For K epochs, take a gradient step on the loss (`losses.ppo_loss`) of each minibatch. Stop early if the
           policy has moved further than 1.5 * target_kl (nats).

    configured: the settings at the start of the run; schedules and live changes are applied here. Also yields None
    before an environment step whenever `asked()` returns True, so that the caller can interrupt the rollout.
    Raises NonFiniteError if an observation, a reward, a loss or a gradient is NaN or infinite.
    """
    ppo = settings_in_force(state, configured, rollout)
    yield from collect_stepwise(envs, state.model, state, rollout, engine.take_steps, asked)
    state.global_step += int(rollout.valid.sum())  # counted now: the steps were taken even if the update fails
    state.episodes.update(rollout.reward, rollout.episode_done, rollout.valid)
    yield RolloutCollected(rollout)

    reward = rewards_to_learn(rollout, ppo, state.reward_scaler)  # (T, N), as are advantage and returns
    advantage, returns = advantages(rollout, reward, ppo)
    yield AdvantagesEstimated(advantage, returns)

    metrics = settings_metrics(ppo, learning_rates(state.optimizer))
    metrics |= critic_metrics(rollout.value, returns, rollout.valid) | state.episodes.metrics()
    state.model.critic_head.refresh(returns[rollout.valid])
    moved = divergence_if_needed(ppo, state.model, rollout)
    steps = list[tuple[Loss, Tensor]]()
    learner = engine.learner(state, rollout, ppo)
    for epoch, batch in batches(state, rollout, ppo, reward, advantage, returns, learner.inputs):
        loss = learner.gradient(batch)
        if ppo.target_kl is not None and not loss.approx_kl <= 1.5 * ppo.target_kl:  # NaN stops, too
            break
        norm = learner.step()
        steps.append((loss, norm))
        yield MinibatchStepped(epoch, batch, loss, norm)

    metrics |= loss_metrics(steps, scaled=state.scaler.is_enabled())
    metrics |= adapt(state, configured, ppo, metrics, moved)
    state.model.refresh_statistics(rollout.obs, rollout.valid)
    state.update += 1
    envs.learned(state.model)
    yield Update(state.update, state.global_step, metrics)


def settings_in_force(state: TrainState, configured: PPOConfig, rollout: Rollout) -> PPOConfig:
    """Return the settings of the update that starts now, and set the learning rates of the optimizer accordingly."""
    settings = settings_at(configured, state.live, state.global_step, state.total_timesteps)
    ppo = in_force(settings, state.adapted)
    set_learning_rates(state.optimizer, configured, ppo.learning_rate, state.global_step, rollout.reward.numel())
    return ppo


def advantages(rollout: Rollout, reward: Tensor, ppo: PPOConfig) -> tuple[Tensor, Tensor]:
    """Compute advantage and returns, (T, N) each, from the values in the rollout."""
    r = rollout
    return gae(reward, r.value, r.next_value, r.terminated, r.done, r.valid, ppo.gamma, ppo.gae_lambda)


def batches(
    state: TrainState,
    rollout: Rollout,
    ppo: PPOConfig,
    reward: Tensor,
    advantage: Tensor,
    returns: Tensor,
    inputs: Tensor | None,
) -> Iterator[tuple[int, Batch]]:
    """Yield (epoch, minibatch) for `update_epochs` passes over the rollout, shuffled again in each.

    reward, advantage, returns: (T, N). inputs: (T, N, F), see `Batch`. With `recompute_advantage`, each pass after the
    first uses advantages from the values of the current critic.
    """
    for epoch in range(ppo.update_epochs):
        if ppo.recompute_advantage and epoch > 0:
            estimate_values(state.model, rollout, rollout.first_memory())
            advantage, returns = advantages(rollout, reward, ppo)
        for batch in minibatches(
            rollout, advantage, returns, ppo.num_minibatches, state.shuffle_rng, ppo.normalize_advantage, inputs
        ):
            yield epoch, batch
