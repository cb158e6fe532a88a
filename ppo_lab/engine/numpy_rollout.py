"""The steps of a rollout in NumPy: the same transitions as in torch, for a small MLP and few environments on a CPU.

An operation on a few rows takes 1 to 3 microseconds in torch and 0.2 to 1.5 in NumPy, whatever it computes. Parameters
and rollout use the same memory, and random numbers come from the same generators; only the last digits of a product may
differ. Log-probabilities are computed at the end in one batch, like the values.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from ppo_lab.engine.plain_mlp import PlainMLP, plain_mlp
from ppo_lab.envs.contract import Envs, Obs
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.rollout import Asked, Collecting, Rollout

# Rows * inputs * outputs of a layer. Above this the arithmetic dominates, and OpenBLAS, which run.threads does not
# control, would use its own threads: it computes products of up to 2^18 with one thread.
LARGEST = 2**18


def numpy_policy(model: ActorCritic, obs: Obs) -> NumpyPolicy | str:
    """Return the actor of `model` in NumPy, for observations like `obs` (N, F); or the reason why it needs torch."""
    plain = plain_mlp(model, obs)
    if isinstance(plain, str):
        return plain
    if max(layer.weight.numel() for layer in (*plain.actor, plain.actor_head)) * len(obs) > LARGEST:
        return f"a layer is too large for NumPy with {len(obs)} environments"
    return NumpyPolicy(plain, len(obs))


class NumpyPolicy:
    """The normaliser, body and head of an actor with their current parameters; valid for one rollout."""

    def __init__(self, plain: PlainMLP, num_envs: int) -> None:
        layers = [*plain.actor, plain.actor_head]
        self.layers = [  # a bias for each row: broadcasting one takes twice as long
            (
                layer.weight.detach().numpy().T,
                np.tile(layer.bias.detach().numpy(), (num_envs, 1)),
                np.empty((num_envs, len(layer.bias)), np.float32),
            )
            for layer in layers
        ]
        self.tanh = plain.tanh
        self.normalize = None if plain.normalizer is None else plain.normalizer.in_numpy(num_envs)
        self.drawn = torch.empty(num_envs, len(layers[-1].bias))  # (N, K) random numbers, from torch's generator
        self.noise = self.drawn.numpy()
        self.std = None  # (K,)
        if plain.log_std is not None:
            self.std = plain.log_std.detach().clamp(*plain.log_std_bounds).exp().numpy()

    @np.errstate(all="ignore")  # non-finite numbers are found after the rollout and reported
    def act(self, obs: np.ndarray, generator: Generator, action: np.ndarray) -> None:
        """Sample an action for each row of obs (N, F) into `action`, (N,) int64 or (N, K) float32."""
        x = obs if self.normalize is None else self.normalize(obs)
        *hidden, (weight, bias, parameters) = self.layers
        for w, b, h in hidden:
            np.dot(x, w, out=h)
            np.add(h, b, out=h)
            np.tanh(h, out=h) if self.tanh else np.maximum(h, 0.0, out=h)
            x = h
        np.dot(x, weight, out=parameters)
        np.add(parameters, bias, out=parameters)  # (N, K) logits or means
        if self.std is None:  # the exponential race of `Categorical.sample`, in logarithms: argmax of log p_i - log E_i
            self.drawn.exponential_(generator=generator)
            np.log(self.noise, out=self.noise)
            np.subtract(parameters, self.noise, out=self.noise)
            self.noise.argmax(-1, out=action)
        else:
            self.drawn.normal_(generator=generator)
            np.multiply(self.noise, self.std, out=self.noise)
            np.add(parameters, self.noise, out=action)


def take_numpy_steps(
    envs: Envs, model: ActorCritic, policy: NumpyPolicy, state: Collecting, rollout: Rollout, asked: Asked
) -> Iterator[None]:
    """Take the steps as `ppo.rollout.take_steps` does, with `policy` in place of `model.step`."""
    assert isinstance(rollout.obs, Tensor)
    assert isinstance(rollout.final_obs, Tensor)
    obs_rows, action_rows, done_rows = rollout.obs.unbind(), rollout.action.unbind(), rollout.done.unbind()
    obs, final_obs, action = rollout.obs.numpy(), rollout.final_obs.numpy(), rollout.action.numpy()
    reward, terminated, done = rollout.reward.numpy(), rollout.terminated.numpy(), rollout.done.numpy()
    valid, starts, episode_done = rollout.valid.numpy(), rollout.starts.numpy(), rollout.episode_done.numpy()
    begins, step, over = state.starts.numpy(), None, envs.episode_done
    to_env = model.actor_head.to_env  # submodules are slow to look up
    for t in range(len(rollout)):
        if asked():
            yield
        policy.act(obs[t], state.action_rng, action[t])
        last, step = step, envs.step(to_env(action_rows[t]))
        if step is not last:  # many environments reuse one Step
            led_to_next, rewards, ends, cut, led_to, counts = (rows.numpy() for rows in step)  # type: ignore[union-attr]  # tensors
        starts[t] = begins  # before `done` is written: with T = 1, `begins` is a view of that row
        reward[t] = rewards
        terminated[t] = ends
        np.logical_or(ends, cut, out=done[t])
        valid[t] = counts
        if over is not None:  # written by each step
            episode_done[t] = envs.episode_done.numpy()  # type: ignore[union-attr]  # as before the first step
        final_obs[t] = led_to
        obs[t + 1] = led_to_next
        begins = ~valid[t] if envs.next_step_autoreset else done[t]
        state.obs = obs_rows[t + 1]
        state.starts = torch.from_numpy(begins) if envs.next_step_autoreset else done_rows[t]
    seen = model.distribution(rollout.obs[:-1], None, rollout.starts)
    rollout.log_prob.copy_(seen.log_prob(rollout.action))
