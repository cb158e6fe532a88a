"""One step of gradient descent over tensors that stay where they are, to be captured."""

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
    """`learner.Autograd` and `optimizer.gradient_step` as one graph, for each size of a minibatch (two at most).

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
        """Return the loss and its gradient norm before clipping; the step is taken. None: this batch needs the plain
        way.
        """
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
        """Copy the settings in force to where the graphs read them; drop graphs that can no longer be used."""
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
        """Return the parameters, and the moments that exist."""
        moments = [moment for of in self.optimizer.state.values() for moment in of.values()]
        return [*self.model.parameters(), *self.model.buffers(), *moments]

    def _restored(self) -> Restore:
        """Return what restores the state; moments that the optimizer makes in its first step are set to zero."""
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
    """Let the optimizer read its learning rates from tensors inside; for everybody else they stay numbers."""
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
