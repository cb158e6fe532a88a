"""One step of a rollout, with tensors at fixed addresses, captured as a CUDA graph.

One step is captured and replayed T times: the memory and the capture time of a graph of all T steps would grow with T,
and it would only save T - 1 launches. The row of the rollout is a number on the device, which the graph increments.
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
    """`ppo.rollout.take_steps` as T replays of one graph, with the same result."""

    def __init__(self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout) -> None:
        self.envs, self.model, self.rollout, self.action_rng = envs, model, rollout, state.action_rng
        self.obs, self.starts = apply(torch.clone, state.obs), state.starts.clone()
        self.memory = None if state.memory is None else apply(torch.clone, state.memory)
        self.row = torch.zeros(1, dtype=torch.int64, device=envs.device)  # t, the row of the rollout
        self._step: Captured | None = None
        self._addresses: tuple[int, ...] = ()

    def is_of(self, envs: Envs, model: ActorCritic, rollout: Rollout) -> bool:
        """Return whether the graph reads and writes these objects."""
        return self.envs is envs and self.model is model and self.rollout is rollout

    def __call__(self, state: Collecting) -> None:
        """Fill the rollout with the next T steps, except the values, and advance `state`.

        The host does not wait for the device in between. Raises EnvError at the end if an action mask left no legal
        action.
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
            if t % rollout.chunk_length == 0:  # the host keeps its own count
                for key, kept in rollout.memory.items():
                    kept[t // rollout.chunk_length].copy_(self.memory[key])  # type: ignore[index]  # it has one here
            step()
        state.obs, state.starts = at(rollout.obs, -1), rollout.done[-1]
        state.memory = None if self.memory is None else apply(torch.clone, self.memory)
        if self.model.masked:
            check_mask(rollout.obs[MASK_KEY][:-1], self.model.actor_head.mask_layout)  # type: ignore[index]  # a dict

    def _captured(self) -> Captured:
        """Return the graph; capture it first if there is none, or if a parameter or buffer of the model has moved."""
        now = addresses([*self.model.parameters(), *self.model.buffers()])
        if self._step is None or now != self._addresses:
            generators = [self.action_rng, self.envs.generator]
            self._step = Captured(self._act, self.envs.device, self._restored(), generators)
            self._addresses = now
        return self._step

    def _restored(self) -> Restore:
        """Return a function that restores the state, except the rows of the rollout, which are overwritten anyway."""
        own = [*leaves(self.obs), self.starts, *leaves(self.memory), self.row]
        own_restore, saved = snapshot(own, [self.action_rng]), self.envs.state_dict()

        def restore() -> None:
            own_restore()
            self.envs.load_state_dict(saved)

        return restore

    def _act(self) -> None:
        """Take one step of all environments and write it into row `row` of the rollout. This function is captured."""
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
