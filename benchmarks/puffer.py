"""Measurements of PufferLib 3's trainer on environments of Gymnasium. A child process of peers.py; see `measurement`.

What cannot be equal: its minibatches are whole rows of the rollout, drawn anew each time, and advantages are computed
again before each of them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import gymnasium
import pufferlib.emulation
import pufferlib.pufferl
import pufferlib.vector
import torch
from measurement import Clock, answer, peak_megabytes
from torch import Tensor, nn


class Networks(nn.Module):
    """Actor and critic of tanh layers, as the others have them. The two methods are those that PufferLib calls."""

    def __init__(self, envs: Any, hidden: list[int]) -> None:
        super().__init__()
        inputs = envs.single_observation_space.shape[0]
        self.actor = _stack([inputs, *hidden, int(envs.single_action_space.n)])
        self.critic = _stack([inputs, *hidden, 1])

    def forward_eval(self, obs: Tensor, state: Any = None) -> tuple[Tensor, Tensor]:
        """Logits (B, actions) and values (B, 1)."""
        return self.actor(obs), self.critic(obs)

    def forward(self, obs: Tensor, state: Any = None) -> tuple[Tensor, Tensor]:
        """The same while it learns."""
        return self.forward_eval(obs, state)


def _stack(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def speed(
    env: str, num_envs: int, hidden: list[int], config: dict[str, Any], seed: int, warm_up: int, updates: int
) -> dict[str, Any]:
    """Seconds for `updates` updates after `warm_up` others."""

    def make(buf: Any = None, seed: int = 0) -> Any:
        return pufferlib.emulation.GymnasiumPufferEnv(env=gymnasium.make(env), buf=buf, seed=seed)

    torch.manual_seed(seed)
    envs = pufferlib.vector.make(make, backend=pufferlib.vector.Serial, num_envs=num_envs, seed=seed)
    networks = Networks(envs, hidden)
    trainer = pufferlib.pufferl.PuffeRL(config | {"seed": seed}, envs, networks)
    trainer.print_dashboard = lambda *_, **__: None
    clock = Clock()
    try:
        for update in range(warm_up + updates):
            if update == warm_up:
                clock = Clock()
            trainer.evaluate()
            trainer.train()
        numbers = clock.read()
    finally:
        trainer.utilization.stop()  # a thread that would keep this process alive
    parameters = sum(parameter.numel() for parameter in networks.parameters())
    told = {"parameters": parameters, "peak_megabytes": peak_megabytes()}
    return {"steps": updates * config["batch_size"], **told, **numbers}


if __name__ == "__main__":
    answer({"speed": speed})
