"""One gradient step on a minibatch, with tensors at fixed addresses, captured as a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ppo_lab.config import PPOConfig
from ppo_lab.engine.cuda_graph import Captured, Restore, addresses, snapshot
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.models.networks.cores import Recurrent
from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.learner import LossSettings, minibatch_loss
from ppo_lab.ppo.losses import Loss
from ppo_lab.ppo.optimizer import clear_gradients, gradient_step
from ppo_lab.trees import apply, leaves


class GraphMinibatch:
    """`learner.Autograd` and `optimizer.gradient_step` as one graph for each minibatch size (at most two).

    Learning rates, clip range and entropy weight are tensors, so that schedules need no new graph. After a change of
    another live setting the graphs are captured again.
    """

    def __init__(self, model: ActorCritic, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        device = next(model.parameters()).device
        # torch's fused kernel on a GPU reads a float32; a step on a CPU reads a float64, so a dry run must too
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self.rates = [torch.zeros((), dtype=dtype, device=device) for _ in optimizer.param_groups]
        self.clip_coef = torch.zeros((), dtype=torch.float64, device=device)  # 1 - clip_coef is rounded once
        self.ent_coef = torch.zeros((), device=device)
        for core in (model.actor_core, model.critic_core):
            if isinstance(core, Recurrent):
                core.unrolled = True
        self._graphs: dict[tuple[int, ...], _Static] = {}
        self._ppo: PPOConfig | None = None
        self._baked: tuple[object, ...] = ()  # settings that the graphs contain as numbers
        self._addresses: tuple[int, ...] = ()

    def __call__(self, batch: Batch, ppo: PPOConfig) -> tuple[Loss, Tensor] | None:
        """Take the step; return the loss and the gradient norm () before clipping.

        Return None, without a step, for a batch with invalid rows: it needs plain autograd.
        """
        if batch.valid is not None:
            return None  # the number of invalid rows varies
        if ppo is not self._ppo:  # the first call of an update
            self._begin(ppo)
        size = tuple(batch.starts.shape)
        if size not in self._graphs:
            self._graphs[size] = self._capture(batch, ppo)
        static = self._graphs[size]
        for into, rows in zip(_tensors(static.batch), _tensors(batch), strict=True):
            into.copy_(rows)
        static.step()
        numbers = static.numbers.clone().unbind()  # the next replay overwrites them
        return Loss(*numbers[:-1]), numbers[-1]

    def _begin(self, ppo: PPOConfig) -> None:
        """Copy the current settings into the tensors that the graphs read; drop graphs that are no longer valid."""
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.clip_coef.fill_(ppo.clip_coef)
        self.ent_coef.fill_(ppo.ent_coef)
        numbers = [getattr(ppo, name) for name in LossSettings._fields if name not in ("clip_coef", "ent_coef")]
        baked = (*numbers, ppo.max_grad_norm, ppo.ent_coef != 0.0)
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
                norm = gradient_step(self.optimizer, ppo.max_grad_norm)
            numbers.copy_(torch.stack([*loss, norm]).detach())

        step = Captured(learn, self.clip_coef.device, self._restored())
        self._addresses = addresses(self._written())
        return _Static(static, numbers, step)

    def _written(self) -> list[Tensor]:
        """Return the tensors that a step writes: parameters, buffers and the moments that exist."""
        moments = [moment for of in self.optimizer.state.values() for moment in of.values()]
        return [*self.model.parameters(), *self.model.buffers(), *moments]

    def _restored(self) -> Restore:
        """Return a function that restores the state; moments created by the optimizer's first step are set to zero."""
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
    numbers: Tensor  # (7,) the fields of the Loss, and the gradient norm
    step: Captured


def _tensors(batch: Batch) -> list[Tensor]:
    columns = [batch.action, batch.log_prob, batch.value, batch.advantage, batch.returns, batch.starts]
    return [*leaves(batch.obs), *columns, *leaves(batch.memory)]


@contextmanager
def _rates_from(optimizer: torch.optim.Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """Let the optimizer read its learning rates from tensors inside the block; outside they are numbers again."""
    capturing = rates[0].device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    known = [dict(group) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if "capturable" in group:  # plain Adam needs this flag; the fused one can always be captured
            group["capturable"] = capturing
    try:
        yield
    finally:
        for group, before in zip(optimizer.param_groups, known, strict=True):
            group.update(before)
