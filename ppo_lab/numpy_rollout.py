"""The steps of a rollout in NumPy: the same transitions as torch's, for a small MLP and few environments on a CPU.

An operation on a few rows costs 1 to 3 microseconds in torch and 0.2 to 1.5 in NumPy, whatever it computes. Parameters,
rollout and random numbers are the same memory and the same streams; only the last digits of a product may differ. Log
probabilities are computed afterwards, in one batch, as values are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ppo_lab.actor_critic import ActorCritic
from ppo_lab.distributions import CategoricalHead, GaussianHead
from ppo_lab.envs import Envs, Obs
from ppo_lab.networks.mlp import MLP
from ppo_lab.networks.observation import LeafInput

if TYPE_CHECKING:
    from ppo_lab.rollout import Collecting, Rollout

# Rows * inputs * outputs of a layer. With more it is the arithmetic that takes time, and OpenBLAS, which run.threads
# does not reach, would use threads of its own: products of up to 2^18 it computes with one.
LARGEST = 2**18
IN_PLACE: dict[Callable[..., Any], Callable[[np.ndarray], Any]] = {
    torch.tanh: lambda x: np.tanh(x, out=x),
    F.relu: lambda x: np.maximum(x, 0.0, out=x),
}


def numpy_policy(model: ActorCritic, obs: Obs) -> NumpyPolicy | None:
    """The actor of `model` in NumPy, for observations like `obs` (N, F); None where torch has to do it.

    It does vectors of float32 on a CPU, an MLP without memory or masks, and Discrete or Box actions whose noise depends
    on nothing.
    """
    if not isinstance(model, ActorCritic) or not isinstance(obs, Tensor):
        return None  # an observation of several keys
    body, head = model.actor_body, model.actor_head
    if not isinstance(model.features, LeafInput) or not model.features.unchanged or not isinstance(body, MLP):
        return None
    if model.masked or model.actor_core is not None or model.autocast_dtype is not None:
        return None
    if isinstance(head, CategoricalHead):
        layers = [*body.layers, head.logits]
    elif isinstance(head, GaussianHead) and isinstance(head.log_std, Tensor) and not head.noise_size:
        layers = [*body.layers, head.mean]
    else:
        return None
    weights = [layer.weight for layer in layers]
    small = max(weight.numel() for weight in weights) * len(obs) <= LARGEST
    floats = {(each.device.type, each.dtype) for each in (obs, *weights)} == {("cpu", torch.float32)}
    return NumpyPolicy(model, layers, len(obs)) if small and floats and body.activation in IN_PLACE else None


class NumpyPolicy:
    """Normaliser, body and head of an actor on views of their numbers. Valid until these are moved or replaced."""

    def __init__(self, model: ActorCritic, layers: list[Any], num_envs: int) -> None:
        body, normalizer = model.actor_body, getattr(model.features, "normalizer", None)
        assert isinstance(body, MLP)
        self.activate = IN_PLACE[body.activation]
        self.layers = [
            (layer.weight.detach().numpy().T, layer.bias.detach().numpy(), np.empty((num_envs, len(layer.bias)), "f4"))
            for layer in layers
        ]
        self.moments = None if normalizer is None else (normalizer.center.numpy(), normalizer.scale.numpy())
        self.clip = 0.0 if normalizer is None else normalizer.clip
        self.drawn = torch.empty(num_envs, len(layers[-1].bias))  # (N, K) random numbers, from torch's generator
        self.noise = self.drawn.numpy()
        head, self.std = model.actor_head, None
        if isinstance(head, GaussianHead):
            assert isinstance(head.log_std, Tensor)
            self.std = head.log_std.detach().clamp(*head.log_std_bounds).exp().numpy()  # (K,)

    @np.errstate(all="ignore")  # what is not finite is found after the rollout, and named
    def act(self, obs: np.ndarray, generator: Generator, action: np.ndarray) -> None:
        """Draw an action for each row of obs (N, F) into `action`, (N,) int64 or (N, K) float32."""
        x = obs
        if self.moments is not None:
            center, scale = self.moments
            x = np.clip((x - center) * scale, -self.clip, self.clip)
        *hidden, (weight, bias, parameters) = self.layers
        for w, b, h in hidden:
            np.matmul(x, w, out=h)
            np.add(h, b, out=h)
            self.activate(h)
            x = h
        np.matmul(x, weight, out=parameters)
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


def collect_in_numpy(envs: Envs, model: ActorCritic, policy: NumpyPolicy, state: Collecting, rollout: Rollout) -> None:
    """What `rollout.collect_in_torch` does, with `policy` in the place of `model.step`."""
    assert isinstance(rollout.obs, Tensor)
    assert isinstance(rollout.final_obs, Tensor)
    obs_rows, action_rows, done_rows = rollout.obs.unbind(), rollout.action.unbind(), rollout.done.unbind()
    obs, final_obs, action = rollout.obs.numpy(), rollout.final_obs.numpy(), rollout.action.numpy()
    reward, terminated, done = rollout.reward.numpy(), rollout.terminated.numpy(), rollout.done.numpy()
    valid, starts, episode_done = rollout.valid.numpy(), rollout.starts.numpy(), rollout.episode_done.numpy()
    may_end_early = hasattr(envs, "episode_done")  # for learning, see `Envs`
    begins, step = state.starts.numpy(), None
    for t in range(len(rollout)):
        policy.act(obs[t], state.action_rng, action[t])
        last, step = step, envs.step(model.to_env(action_rows[t]))
        if step is not last:  # many environments write into one Step for ever
            led_to_next, rewards, ends, cut, led_to, counts = (rows.numpy() for rows in step)  # type: ignore[union-attr]  # tensors
        starts[t] = begins  # before `done`: with T = 1 it is a view of that very row
        reward[t] = rewards
        terminated[t] = ends
        np.logical_or(ends, cut, out=done[t])
        valid[t] = counts
        if may_end_early:
            over: Tensor | None = envs.episode_done  # type: ignore[attr-defined]  # asked above
            episode_done[t] = done[t] if over is None else over.numpy()
        final_obs[t] = led_to
        obs[t + 1] = led_to_next
        begins = ~valid[t] if envs.next_step_autoreset else done[t]
        state.obs = obs_rows[t + 1]
        state.starts = torch.from_numpy(begins) if envs.next_step_autoreset else done_rows[t]
    seen = model.distribution(rollout.obs[:-1], None, rollout.starts)
    rollout.log_prob.copy_(seen.log_prob(rollout.action))
