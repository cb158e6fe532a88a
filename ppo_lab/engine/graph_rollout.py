"""One step of a rollout over tensors that stay where they are, to be captured.

One step is captured and replayed T times: a graph of all T steps would grow with T, in memory and in the time a capture
takes, to save T - 1 launches. Its row of the rollout is a number on the device, counted up in the graph.
"""

from __future__ import annotations

import torch

from ppo_lab.engine.cuda_graph import Captured, Restore, addresses, snapshot
from ppo_lab.envs.contract import Envs
from ppo_lab.envs.spaces import MASK_KEY
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.models.distributions import check_mask
from ppo_lab.ppo.rollout import Collecting, Rollout
from ppo_lab.trees import apply, at, copy, leaves


class GraphRollout:
    """`rollout.take_steps` with the same result, T replays of one graph."""

    def __init__(self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout) -> None:
        self.envs, self.model, self.rollout, self.action_rng = envs, model, rollout, state.action_rng
        self.obs, self.starts = apply(torch.clone, state.obs), state.starts.clone()
        self.memory = None if state.memory is None else apply(torch.clone, state.memory)
        self.row = torch.zeros(1, dtype=torch.int64, device=envs.device)  # of the rollout, t
        self._step: Captured | None = None
        self._addresses: tuple[int, ...] = ()

    def is_of(self, envs: Envs, model: ActorCritic, rollout: Rollout) -> bool:
        """Return whether the graph reads and writes these objects."""
        return self.envs is envs and self.model is model and self.rollout is rollout

    def __call__(self, state: Collecting) -> None:
        """Fill the rollout with the next T steps, but for the values, and move `state` with them.

        Nothing is asked of the device on the way. Raises EnvError if a mask left no legal action, afterwards.
        """
        rollout = self.rollout
        copy(self.obs, state.obs)
        self.starts.copy_(state.starts)
        if self.memory is not None:
            assert state.memory is not None
            copy(self.memory, state.memory)
        self.row.zero_()
        step = self._captured()
        for t in range(len(rollout)):
            if t % rollout.chunk_length == 0:  # the host counts along
                for key, kept in rollout.memory.items():
                    kept[t // rollout.chunk_length].copy_(self.memory[key])  # type: ignore[index]  # it has one, then
            step()
        state.obs, state.starts = at(rollout.obs, -1), rollout.done[-1]
        state.memory = None if self.memory is None else apply(torch.clone, self.memory)
        if self.model.masked:
            check_mask(rollout.obs[MASK_KEY][:-1], self.model.actor_head.mask_layout)  # type: ignore[index]  # a dictionary, then

    def _captured(self) -> Captured:
        """Return the graph, captured again where a parameter or a buffer of the model has moved."""
        now = addresses([*self.model.parameters(), *self.model.buffers()])
        if self._step is None or now != self._addresses:
            generators = [self.action_rng, self.envs.generator]
            self._step = Captured(self._act, self.envs.device, self._restored(), generators)
            self._addresses = now
        return self._step

    def _restored(self) -> Restore:
        """Return what restores the state; rows of the rollout are left out, as they are written again."""
        own = [*leaves(self.obs), self.starts, *leaves(self.memory), self.row]
        own_restore, saved = snapshot(own, [self.action_rng]), self.envs.state_dict()

        def restore() -> None:
            own_restore()
            self.envs.load_state_dict(saved)

        return restore

    def _act(self) -> None:
        """Take one step of all environments and write it into row `row` of the rollout: this is what is captured."""
        rollout, row = self.rollout, self.row
        distribution, memory = self.model.step(self.obs, self.memory, self.starts)
        action = distribution.sample(self.action_rng)  # (N, *action)
        step = self.envs.step(self.model.to_env(action))
        done = step.terminated | step.truncated
        for column, new in (
            (rollout.action, action), (rollout.log_prob, distribution.log_prob(action)), (rollout.reward, step.reward),
            (rollout.terminated, step.terminated), (rollout.done, done), (rollout.valid, step.valid),
            (rollout.starts, self.starts), *zip(leaves(rollout.final_obs), leaves(step.final_obs), strict=True),
        ):  # fmt: skip
            column.index_copy_(0, row, new.unsqueeze(0))
        row.add_(1)
        for column, new in zip(leaves(rollout.obs), leaves(step.obs), strict=True):
            column.index_copy_(0, row, new.unsqueeze(0))
        copy(self.obs, step.obs)
        self.starts.copy_(done)
        if self.memory is not None:
            assert memory is not None
            copy(self.memory, memory)
