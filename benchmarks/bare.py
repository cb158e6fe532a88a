"""What no PPO can do without, as fast as it can be done: the environment alone, and the arithmetic of its networks.

Nothing here draws an action, keeps a row or computes a loss. A piece comes in several ways; the fastest counts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from environment import BATCHED
from ppo_lab import Trainer, make_envs
from ppo_lab.engine.flat_adam import adam_step
from ppo_lab.engine.mlp_gradient import MLPGradient
from ppo_lab.engine.plain_mlp import PlainMLP, plain_mlp
from ppo_lab.envs.making import make_maker
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import minibatches
from ppo_lab.ppo.rollout import estimate_values

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}
IN_NUMPY: dict[str, Callable[..., np.ndarray]] = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0, out=x)}


class Way(NamedTuple):
    """One way to do a piece of the work."""

    run: Callable[[], Any]
    env_steps: float  # how many steps' worth of this piece a call does


def env_ways(trainer: Trainer) -> tuple[list[Way], Way]:
    """Steps with the last rollout's actions, on which their cost depends: every way, and our adapter's."""
    envs = make_envs(trainer.config)
    envs.reset(1)
    actions = [trainer.state.model.to_env(action) for action in trainer.rollout.action]
    acted = cycle(actions)
    ours = Way(lambda: envs.step(next(acted)), envs.num_envs)
    settings = trainer.config.env
    if settings.id in BATCHED or settings.vector or isinstance(envs.action_space, spaces.Dict):
        return [ours], ours
    make = make_maker(settings)
    singles = [make(index) for index in range(envs.num_envs)]
    for env in singles:
        env.reset(seed=1)
    arrays = cycle([action.numpy() for action in actions if isinstance(action, Tensor)])

    def step() -> None:
        for env, action in zip(singles, next(arrays), strict=True):
            if any(env.step(action)[2:4]):
                env.reset()

    return [ours, Way(step, envs.num_envs)], ours


def network_ways(trainer: Trainer) -> dict[str, list[Way]]:
    """The actor on N rows, values of a rollout, and a gradient step of a minibatch: by autograd, and by hand if plain.

    The rollout has to be filled.
    """
    ppo, rollout, model = trainer.config.ppo, trainer.rollout, copy.deepcopy(trainer.state.model)
    advantage = rollout.value
    batch = next(minibatches(rollout, advantage, advantage, ppo.num_minibatches, torch.Generator().manual_seed(1)))
    obs, memory, starts = trainer.state.obs, trainer.state.memory, trainer.state.starts
    steps, N = rollout.reward.numel(), rollout.reward.shape[1]
    ways = {
        "actor": [Way(torch.inference_mode()(lambda: model.step(obs, memory, starts)), N)],
        # with recomputed advantages one pass is wanted for every epoch
        "values": [Way(lambda: estimate_values(model, rollout, rollout.first_memory()), steps)],
        "autograd": [Way(_gradient_step(model, lambda: _sum(model.evaluate(*batch_inputs(batch)))), 0.0)],
    }
    if is_plain(trainer):
        bare = Bare(trainer)
        rows, few, all_rows = obs, batch.obs.squeeze(0), rollout.obs.flatten(0, 1)  # type: ignore[union-attr]  # vectors
        array = rows.numpy()  # type: ignore[union-attr]  # likewise
        ways["actor"].append(Way(torch.inference_mode()(lambda: bare.actor(rows)), N))
        ways["actor"].append(Way(lambda: bare.in_numpy(array), N))
        ways["values"].append(Way(torch.inference_mode()(lambda: bare.critic(all_rows)), steps))
        ways["autograd"].append(Way(_gradient_step(bare, lambda: _sum((bare.actor(few), bare.critic(few)))), 0.0))
        ways["by_hand"] = [Way(_by_hand(copy.deepcopy(model), few), 0.0)]
    passes = ppo.update_epochs if ppo.recompute_advantage else 1
    one_step = steps / (ppo.update_epochs * ppo.num_minibatches)
    ways["values"] = [way._replace(env_steps=steps / passes) for way in ways["values"]]
    for name in ways.keys() - {"actor", "values"}:
        ways[name] = [way._replace(env_steps=one_step) for way in ways[name]]
    return ways


def is_plain(trainer: Trainer) -> bool:
    """Two networks of linear layers on a vector: what `Bare` can be."""
    return not trainer.config.model.shared and isinstance(plain_mlp(trainer.state.model, trainer.state.obs), PlainMLP)


class Bare(nn.Module):
    """The linear layers of actor and critic and nothing else; the actor in NumPy too."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        settings, envs = trainer.config.model, trainer.envs
        inputs, actions = spaces.flatdim(envs.observation_space), spaces.flatdim(envs.action_space)
        self.actor, self.critic = (self._stack(settings, inputs, outputs) for outputs in (actions, 1))
        layers = [layer for layer in self.actor if isinstance(layer, nn.Linear)]
        self._arrays = [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy()) for layer in layers]
        self._activation = IN_NUMPY[settings.activation]

    @staticmethod
    def _stack(settings: Any, inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width in settings.hidden_sizes:
            layers += [nn.Linear(inputs, width), ACTIVATIONS[settings.activation]()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def in_numpy(self, x: np.ndarray) -> np.ndarray:
        """The actor's outputs (N, actions) for x (N, inputs)."""
        *hidden, (weight, bias) = self._arrays
        for w, b in hidden:
            x = self._activation(x @ w + b)
        return x @ weight + bias


def batch_inputs(batch: Any) -> tuple[Any, Tensor, Any, Tensor]:
    """What `ActorCritic.evaluate` takes of a minibatch."""
    return batch.obs, batch.action, batch.memory, batch.starts


def _gradient_step(model: nn.Module, total: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward, backward and Adam, without a loss worth the name and without clipping; learning rate 0."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        total().backward()
        optimizer.step()

    return step


def _by_hand(model: ActorCritic, x: Tensor) -> Callable[[], None]:
    """The same with the chain rule written out, and Adam's kernel called directly."""
    plain = plain_mlp(model, x)
    assert isinstance(plain, PlainMLP)
    gradient = MLPGradient(model, plain, len(x))  # for its memory
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, fused=True)
    body, heads = gradient.body, (gradient.actor_head, gradient.critic_head)
    slopes = [np.ones((len(head.bias), gradient.rows), np.float32) for head in heads]

    @torch.inference_mode()
    def step() -> None:
        gradient.flat.grad.zero_()
        for first in range(0, len(x), gradient.rows):
            few = x[first : first + gradient.rows]
            room = body.forward(few)
            for head, slope, features, upstream in zip(heads, slopes, room.features, room.upstream, strict=True):
                head.forward(features)
                head.backward(features, slope[:, : len(few)], upstream)
            body.backward(few)
        adam_step(optimizer, gradient.flat)

    return step


def _sum(outputs: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([output.sum() for output in outputs]).sum()
