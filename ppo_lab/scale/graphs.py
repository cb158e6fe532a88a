"""A rollout step and a minibatch step as one CUDA graph each (`run.cuda_graphs`); docs/gpu.md says what is refused.

One step of a rollout is captured, and replayed T times: a graph of all T steps would grow with T, in memory and in the
time a capture takes, to save T - 1 launches. Its row of the rollout is a number on the device, counted up in the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ppo_lab.actor_critic import ActorCritic
from ppo_lab.batches import Batch
from ppo_lab.config import Config, PPOConfig
from ppo_lab.distributions import check_mask
from ppo_lab.envs import Envs
from ppo_lab.errors import ConfigError
from ppo_lab.flat_spaces import MASK_KEY
from ppo_lab.gradient import minibatch_loss
from ppo_lab.losses import Loss
from ppo_lab.networks.cores import Recurrent
from ppo_lab.optimizer import clear_gradients, gradient_step
from ppo_lab.rollout import Collecting, Rollout
from ppo_lab.scale.captured import Captured, Restore, addresses, snapshot
from ppo_lab.train_state import TrainState
from ppo_lab.trees import apply, at, copy, leaves


@dataclass(frozen=True)
class Graphs:
    """What of a trainer's work is captured; None: nothing of it, the plain way is taken."""

    rollout: RolloutStep | None = None
    minibatch: MinibatchStep | None = None

    def step(self, batch: Batch, ppo: PPOConfig) -> tuple[Loss, Tensor] | None:
        """The gradient of a minibatch and the step down it: the loss and the gradient's norm. None: not captured."""
        return None if self.minibatch is None else self.minibatch(batch, ppo)


def make_graphs(config: Config, envs: Envs, state: TrainState, rollout: Rollout) -> Graphs:
    """The captured steps that `run.cuda_graphs` asks for. Nothing is captured before it is used.

    Raises ConfigError where it is true and something cannot be captured.
    """
    wanted = config.run.cuda_graphs
    if wanted is False or (wanted == "auto" and envs.device.type != "cuda"):
        return Graphs()
    refused = {"rollout": why_not_rollout(envs), "minibatch": why_not_minibatch(config, rollout)}
    for part, reason in refused.items():
        if reason is not None and wanted is True:
            raise ConfigError(f"run.cuda_graphs: the {part} step cannot be captured: {reason}; auto captures the rest")
    return Graphs(
        None if refused["rollout"] else RolloutStep(envs, state, rollout),
        None if refused["minibatch"] else MinibatchStep(state.model, state.optimizer),
    )


def why_not_rollout(envs: Envs) -> str | None:
    """Why a step of these environments cannot be captured; None if it can."""
    if getattr(envs, "capturable", False):
        return None
    return f"{type(envs).__name__} is not known to step on the device alone, in memory that stays where it is"


def why_not_minibatch(config: Config, rollout: Rollout) -> str | None:
    """Why a minibatch step of these settings cannot be captured; None if it can."""
    ppo = config.ppo
    if ppo.target_kl is not None:
        return "ppo.target_kl needs a look at every minibatch before its step is taken"
    if ppo.accumulate > 1:
        return "ppo.accumulate cuts a minibatch into parts that may be empty"
    if config.model.precision == "float16":
        return "model.precision float16 scales gradients by a factor that the host moves; bfloat16 needs none"
    if rollout.memory and len(rollout) % rollout.chunk_length:
        return "ppo.num_steps is no multiple of ppo.chunk_length, and how many rows of a short chunk count varies"
    return None


class RolloutStep:
    """`rollout.collect_in_torch` with the same result, T replays of one graph."""

    def __init__(self, envs: Envs, state: TrainState, rollout: Rollout) -> None:
        self.envs, self.model, self.rollout, self.action_rng = envs, state.model, rollout, state.action_rng
        self.obs, self.starts = apply(torch.clone, state.obs), state.starts.clone()
        self.memory = None if state.memory is None else apply(torch.clone, state.memory)
        self.row = torch.zeros(1, dtype=torch.int64, device=envs.device)  # of the rollout, t
        self._step: Captured | None = None
        self._addresses: tuple[int, ...] = ()

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
        """The graph, captured anew where a parameter or a buffer of the model lies elsewhere than before."""
        now = addresses([*self.model.parameters(), *self.model.buffers()])
        if self._step is None or now != self._addresses:
            generators = [self.action_rng, self.envs.generator]  # type: ignore[attr-defined]  # capturable ones have it
            self._step = Captured(self._act, self.envs.device, self._restored(), generators)
            self._addresses = now
        return self._step

    def _restored(self) -> Restore:
        """Rows of the rollout need not be put back: they are written again."""
        own = [*leaves(self.obs), self.starts, *leaves(self.memory), self.row]
        own_restore, saved = snapshot(own, [self.action_rng]), self.envs.state_dict()  # type: ignore[attr-defined]

        def restore() -> None:
            own_restore()
            self.envs.load_state_dict(saved)  # type: ignore[attr-defined]

        return restore

    def _act(self) -> None:
        """One step of all environments, written into row `row` of the rollout: what is captured."""
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


class MinibatchStep:
    """`gradient.leave_gradient` and `optimizer.gradient_step` as one graph, for each size of a minibatch (two at most).

    Learning rates, clip range and entropy weight are tensors, so that schedules need no other graph. After a change of
    another live setting it is captured anew.
    """

    def __init__(self, model: ActorCritic, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        device = next(model.parameters()).device
        # torch's fused kernel on a GPU reads a float; on a CPU the plain way reads a double, and so does a dry run
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self.rates = [torch.zeros((), dtype=dtype, device=device) for _ in optimizer.param_groups]
        self.clip_coef = torch.zeros((), dtype=torch.float64, device=device)  # 1 - it is rounded once, as a float's is
        self.ent_coef = torch.zeros((), device=device)
        for core in (model.actor_core, model.critic_core):
            if isinstance(core, Recurrent):
                core.unrolled = True
        self._graphs: dict[tuple[int, ...], _Static] = {}
        self._ppo: PPOConfig | None = None
        self._baked: tuple[object, ...] = ()  # what graphs have in them as numbers
        self._addresses: tuple[int, ...] = ()

    def __call__(self, batch: Batch, ppo: PPOConfig) -> tuple[Loss, Tensor] | None:
        """The loss, and the norm of its gradient before clipping; the step is taken. None: this one has to be plain."""
        if batch.valid is not None:
            return None  # rows that are no experience: how many varies
        if ppo is not self._ppo:  # the first of an update
            self._begin(ppo)
        size = tuple(batch.starts.shape)
        if size not in self._graphs:
            self._graphs[size] = self._capture(batch, ppo)
        static = self._graphs[size]
        for into, rows in zip(_tensors(static.batch), _tensors(batch), strict=True):
            into.copy_(rows)
        static.step()
        numbers = static.numbers.clone().unbind()  # the next replay writes over them
        return Loss(*numbers[:-1]), numbers[-1]

    def _begin(self, ppo: PPOConfig) -> None:
        """The settings in force, to where the graphs read them; graphs that cannot be used any more are dropped."""
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.clip_coef.fill_(ppo.clip_coef)
        self.ent_coef.fill_(ppo.ent_coef)
        baked = (ppo.vf_coef, ppo.value_clip_coef, ppo.dual_clip, ppo.max_grad_norm, ppo.ent_coef != 0.0)
        if baked != self._baked or addresses(self._written()) != self._addresses:
            self._graphs.clear()
        self._ppo, self._baked = ppo, baked

    def _capture(self, batch: Batch, ppo: PPOConfig) -> _Static:
        memory = None if batch.memory is None else apply(torch.clone, batch.memory)
        static = batch.map(torch.clone)._replace(memory=memory)
        numbers = torch.zeros(len(Loss._fields) + 1, device=self.clip_coef.device)
        coefs = {"clip_coef": self.clip_coef, "ent_coef": self.ent_coef if ppo.ent_coef else 0.0}
        read = ppo.model_copy(update=coefs)

        def learn() -> None:
            clear_gradients(self.optimizer)
            loss = minibatch_loss(self.model, static, read)
            loss.total.backward()
            with _rates_from(self.optimizer, self.rates):
                norm = gradient_step(self.optimizer, None, ppo.max_grad_norm)
            numbers.copy_(torch.stack([*loss, norm]).detach())

        step = Captured(learn, self.clip_coef.device, self._restored())
        self._addresses = addresses(self._written())
        return _Static(static, numbers, step)

    def _written(self) -> list[Tensor]:
        """Parameters, and the moments that there are."""
        moments = [moment for of in self.optimizer.state.values() for moment in of.values()]
        return [*self.model.parameters(), *self.model.buffers(), *moments]

    def _restored(self) -> Restore:
        """Moments that the optimizer makes at its first step begin with zeros."""
        before = self._written()
        known, restore_known = {id(tensor) for tensor in before}, snapshot(before)

        def restore() -> None:
            restore_known()
            for tensor in self._written():
                if id(tensor) not in known:
                    tensor.zero_()

        return restore


@dataclass(frozen=True)
class _Static:
    """A captured minibatch step and the memory it reads and writes."""

    batch: Batch
    numbers: Tensor  # (7,) the loss and what it was made of, the gradient's norm
    step: Captured


def _tensors(batch: Batch) -> list[Tensor]:
    columns = [batch.action, batch.log_prob, batch.value, batch.advantage, batch.returns, batch.starts]
    return [*leaves(batch.obs), *columns, *leaves(batch.memory)]


@contextmanager
def _rates_from(optimizer: torch.optim.Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """The optimizer reads its learning rates from tensors; for everybody else they stay the numbers they are."""
    capturing = rates[0].device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    known = [dict(group) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if "capturable" in group:  # Adam wants to be told; the fused one is in any case
            group["capturable"] = capturing
    try:
        yield
    finally:
        for group, before in zip(optimizer.param_groups, known, strict=True):
            group.update(before)
