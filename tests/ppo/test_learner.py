"""The gradient of a minibatch does not depend on how many parts it is computed in."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch.amp import GradScaler

from ppo_lab.config import Config, PPOConfig
from ppo_lab.config.loading import override
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import minibatches
from ppo_lab.ppo.learner import Autograd, minibatch_loss
from ppo_lab.ppo.rollout import Rollout, collect
from ppo_lab.ppo.state import initial_state
from tests.scripted import Script

ENDS = ["....", "T...", "..C.", ".C..", "....", "B.T.", "...."]


class Learner(NamedTuple):
    model: ActorCritic
    optimizer: torch.optim.Optimizer
    scaler: GradScaler


def gradient(model, batch, parts):
    ppo = PPOConfig(accumulate=parts, ent_coef=0.01, vf_coef=0.7)
    optimizer = torch.optim.Adam(model.parameters())
    loss = Autograd(Learner(model, optimizer, GradScaler("cpu", enabled=False)), ppo, minibatch_loss).gradient(batch)
    return loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("core", ["none", "gru"])
@pytest.mark.parametrize("next_step", [False, True])
def test_parts_add_up_to_the_whole(core, next_step):
    envs = Script(ENDS, next_step)
    state = initial_state(override(Config(), {"model": {"hidden_sizes": [8], "core": core, "core_size": 8}}), envs)
    rollout = Rollout.empty(11, 4, state.obs, state.model, 4)
    collect(envs, state.model, state, rollout)
    advantage = torch.randn(11, 4, generator=torch.Generator().manual_seed(2))
    (batch,) = minibatches(rollout, advantage, rollout.value + advantage, 1, torch.Generator().manual_seed(1))
    loss, whole = gradient(state.model, batch, 1)
    assert whole.abs().max() > 1e-3
    for parts in (2, 3, 1000):
        others, pieces = gradient(state.model, batch, parts)
        assert (pieces - whole).abs().max() <= 1e-6 * whole.abs().max() + 1e-7
        for ours, theirs in zip(loss, others, strict=True):
            assert torch.isclose(ours.detach(), theirs, atol=1e-6)


def test_rows_that_are_no_experience_have_no_gradient():
    envs = Script(ENDS, next_step=True)
    state = initial_state(override(Config(), {"model": {"hidden_sizes": [8], "core": "gru", "core_size": 8}}), envs)
    rollout = Rollout.empty(11, 4, state.obs, state.model, 4)
    collect(envs, state.model, state, rollout)
    assert not rollout.valid.all()
    found = []
    for garbage in (0.0, 1e6):
        rollout.log_prob[~rollout.valid] = garbage
        advantage = torch.where(rollout.valid, rollout.reward, garbage)
        (batch,) = minibatches(rollout, advantage, rollout.reward, 1, torch.Generator().manual_seed(1))
        found.append(gradient(state.model, batch, 1)[1])
    assert torch.equal(*found)
