"""The gradient of a minibatch's loss, derived by hand: the same as autograd's, for a small MLP on a CPU.

Autograd creates a node, a tensor and some checks for each of about eighty operations. With 256 rows this overhead takes
longer than the arithmetic. Here the chain rule is written out, into preallocated memory: large products in torch, which
respect its number of threads, and the rest in NumPy, whose calls cost less. Rows are processed in blocks that fit into
the processor's cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ppo_lab.config import PPOConfig
from ppo_lab.engine.flat_parameters import FlatParameters
from ppo_lab.engine.mlp_layers import Array, StackedBody, StackedHead
from ppo_lab.engine.plain_mlp import PlainMLP, plain_mlp
from ppo_lab.envs.contract import Obs
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.losses import Loss

BLOCK = 2**17  # outputs of a layer for one block: 512 kB
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
KNOWN_SETTINGS = frozenset({"clip_coef", "vf_coef", "ent_coef", "value_clip_coef", "dual_clip"})  # of LossSettings
HALF, ONE = np.float32(0.5), np.float32(1.0)


class MLPGradient:
    """Computes the loss and the gradient of a batch, and adds the gradient to the parameters' `grad`.

    Equations: see `losses` and `distributions`. flat: parameters and gradients side by side. inputs: (T, N, F)
    normalised observations; None if the model does not normalise.
    """

    def __init__(self, model: ActorCritic, plain: PlainMLP, rows: int) -> None:
        """Allocate the memory. rows: the largest size of a minibatch."""
        bodies = [plain.actor] if model.shared else [plain.actor, plain.critic]
        layers = list(zip(*bodies, strict=True))  # pairs of the same layer of both
        stacked = [part for both in layers for part in (*(each.weight for each in both), *(each.bias for each in both))]
        self.flat = FlatParameters(model.parameters(), stacked)
        self.rows = block_rows(plain, rows)
        inputs = (*plain.actor, plain.actor_head)[0].in_features
        self.body = StackedBody(len(bodies), layers, self.flat, plain.tanh, self.rows, inputs)
        self.actor_head, self.critic_head = (
            StackedHead(each, self.flat) for each in (plain.actor_head, model.critic_head)
        )
        self.policy = Choice() if plain.log_std is None else Gaussian(plain.log_std, plain.log_std_bounds, self.flat)
        self.value_head, self.made_for = model.critic_head, _identity(model, plain, rows)

    def fits(self, model: ActorCritic, plain: PlainMLP, rows: int) -> bool:
        """Return whether it can still be used for this model: no parameter and no size has changed."""
        return self.made_for == _identity(model, plain, rows)

    def begin(self, plain: PlainMLP, ppo: PPOConfig, obs: Tensor | None = None) -> MLPGradient:
        """Prepare for an update with these settings and return self. obs: (T, N, F), the rows of its minibatches."""
        self.flat.begin()
        self.ppo, self.normalizer, head = ppo, plain.normalizer, self.value_head
        self.value_scale = None if head.moments is None else head.scale.numpy()  # the value loss is in units of the std
        self.value_mean = None if head.moments is None else (head.mean / head.scale).numpy()
        self.inputs = None if obs is None or self.normalizer is None else self.normalizer(obs)
        return self

    def __call__(self, batch: Batch) -> Loss:
        """Compute the gradient of a batch (1, B) without invalid rows; return the loss."""
        return Loss(*torch.from_numpy(self._numbers(batch)).unbind())

    @torch.inference_mode()  # like no_grad(), but each operation takes a tenth less time
    @np.errstate(all="ignore")  # non-finite numbers are found in the gradient norm and reported
    def _numbers(self, batch: Batch) -> Array:
        """Compute the gradient; return the fields of the Loss, (6,)."""
        assert batch.valid is None
        x = batch.inputs
        if x is None:
            assert isinstance(batch.obs, Tensor)
            x = batch.obs if self.normalizer is None else self.normalizer(batch.obs)
        columns = (batch.action, batch.log_prob, batch.advantage, batch.value, batch.returns)
        arrays, x = [column.numpy()[0] for column in columns], x[0]  # x (B, F)
        B = len(arrays[0])
        if self.value_scale is not None:
            arrays[3:] = [values / self.value_scale for values in arrays[3:]]
        self.flat.hold()
        self.flat.grad.zero_()
        if self.rows >= B:
            sums = self._block(B, x, *arrays)
        else:
            blocks = [slice(first, first + self.rows) for first in range(0, B, self.rows)]
            sums = np.add.reduce([self._block(B, x[few], *(array[few] for array in arrays)) for few in blocks])
        policy, value, entropy, kl, clipped = (sums / B).tolist()
        total = policy + self.ppo.vf_coef * value - self.ppo.ent_coef * entropy
        return np.array([total, policy, value, entropy, kl, clipped], np.float32)

    def _block(
        self, B: int, x: Tensor, action: Array, old_log_prob: Array, advantage: Array, old_value: Array, returns: Array
    ) -> Array:
        """Add the gradient of M of the B rows; return the sums over them of the last five fields of a Loss, (5,)."""
        room = self.body.forward(x)
        acting, judging = room.features[0], room.features[-1]  # (M, H) of actor and critic; the same tensor if shared
        log_prob, entropy = self.policy.evaluate(self.actor_head.forward(acting), action)
        log_ratio = log_prob - old_log_prob
        ratio = np.exp(log_ratio)
        objective, by_log_prob = self._surrogate(ratio, advantage)
        by_output = self.policy.gradient(by_log_prob / -B, -self.ppo.ent_coef / B)
        error, by_value = self._value_loss(self.critic_head.forward(judging)[0], old_value, returns)
        by_value *= np.float32(self.ppo.vf_coef / B)
        self.actor_head.backward(acting, by_output, room.upstream[0])
        self.critic_head.backward(judging, by_value[None], room.upstream[-1], add=judging is acting)
        self.body.backward(x)
        kl = np.expm1(log_ratio) - log_ratio
        outside = np.count_nonzero(np.abs(ratio - 1.0) > self.ppo.clip_coef)
        add = np.add.reduce  # takes half the time of the methods
        return np.array((-add(objective), add(error), add(entropy), add(kl), outside))

    def _surrogate(self, ratio: Array, advantage: Array) -> tuple[Array, Array]:
        """Return min(r A, clip(r) A), bounded below with `dual_clip`, and its slope in log r: r A or 0; (M,) each."""
        eps, dual = self.ppo.clip_coef, self.ppo.dual_clip
        kept = np.minimum(np.maximum(ratio, 1.0 - eps), 1.0 + eps)
        inside, gain, kept = kept == ratio, ratio * advantage, kept * advantage
        objective = np.minimum(gain, kept)
        share = np.where(inside, ONE, _share(kept, gain))  # inside the range both are equal and have the same slope
        if dual is not None:
            negative, floor = advantage < 0, dual * advantage
            share *= np.where(negative, _share(objective, floor), ONE)
            objective = np.where(negative, np.maximum(objective, floor), objective)
        return objective, gain * share  # infinite or NaN: NaN, as in autograd

    def _value_loss(self, value: Array, old_value: Array, returns: Array) -> tuple[Array, Array]:
        """Return the squared error, or that of the clipped value if larger, and its derivative by V; (M,) each."""
        clip = self.ppo.value_clip_coef
        if self.value_mean is not None:
            value = value + self.value_mean
        error = value - returns
        square = error * error
        if clip is None:
            return square, 2.0 * error
        moved = value - old_value
        kept_error = old_value + np.clip(moved, -clip, clip) - returns
        kept = kept_error * kept_error
        # inside the clip range both have a slope: V_old + (V - V_old) is V up to rounding, so either may be larger
        slope = np.where(np.abs(moved) <= clip, kept_error * _share(kept, square), 0.0)
        slope += error * _share(square, kept)
        slope *= 2.0
        return np.maximum(square, kept), slope


def _share(larger: Array, smaller: Array) -> Array:
    """Return autograd's slope of maximum(larger, smaller) by `larger`, or of their minimum by `smaller`.

    It is 1 where larger > smaller, 0.5 where both are equal, otherwise 0.
    """
    return np.where(larger == smaller, HALF, ~(larger < smaller))


def stackable_mlp(model: ActorCritic, obs: Obs) -> PlainMLP | str:
    """Return the layers of a model whose gradient can be computed by hand; otherwise the reason why not.

    Actor and critic must share one body or have two with the same shapes and activation, and no parameter may be used
    twice.
    """
    plain = plain_mlp(model, obs)
    if isinstance(plain, str):
        return plain
    bodies = [plain.actor] if model.shared else [plain.actor, plain.critic]
    shapes = [[layer.weight.shape for layer in body] for body in bodies]
    used = [layer for body in bodies for layer in body] + [plain.actor_head, model.critic_head]
    parameters = [id(parameter) for layer in used for parameter in layer.parameters()]
    alike = model.shared or model.actor_body.activation is model.critic_body.activation
    if not alike or shapes[0] != shapes[-1]:
        return "actor and critic of different shapes"
    return plain if len(set(parameters)) == 2 * len(used) else "parameters that are used twice"


def _identity(model: ActorCritic, plain: PlainMLP, rows: int) -> tuple[Any, ...]:
    shapes = [(id(each), each.shape) for each in model.parameters()]
    return shapes, id(model.critic_head), plain.tanh, plain.log_std_bounds, rows


def block_rows(plain: PlainMLP, rows: int) -> int:
    """Return how many of `rows` are processed in one block."""
    widest = max((layer.out_features for layer in (*plain.actor, *plain.critic)), default=1)
    return max(1, min(rows, BLOCK // widest))


class Choice:
    """`Categorical` and its derivatives: d log p_a / dz_k = [k = a] - p_k,  dH / dz_k = -p_k (log p_k + H)."""

    def evaluate(self, logits: Array, action: Array) -> tuple[Array, Array]:
        """Return log_prob and entropy (M,) of logits (K, M) and action (M,)."""
        logits -= np.maximum.reduce(logits)
        self.p = np.exp(logits)
        total = np.add.reduce(self.p)
        self.p /= total
        self.log_p = logits - np.log(total)
        self.entropy = -np.add.reduce(self.p * self.log_p)
        self.chosen = (action, np.arange(len(action)))
        return self.log_p[self.chosen], self.entropy

    def gradient(self, by_log_prob: Array, by_entropy: float) -> Array:
        """Return the derivative by the logits (K, M), given those by log_prob (M,) and by the entropy of each row."""
        by_logits = self.p * -by_log_prob
        by_logits[self.chosen] += by_log_prob
        if by_entropy:
            by_logits -= self.p * (self.log_p + self.entropy) * np.float32(by_entropy)
        return by_logits


class Gaussian:
    """`DiagonalGaussian` and its derivatives. With e = (a - mean) / std: e / std by the mean, e^2 - 1 by log std."""

    def __init__(self, log_std: nn.Parameter, bounds: tuple[float, float], flat: FlatParameters) -> None:
        self.free, self.found = (flat.part(each, log_std).numpy() for each in (flat.value, flat.grad))  # (A,)
        self.bounds = bounds

    def evaluate(self, mean: Array, action: Array) -> tuple[Array, Array]:
        """Return log_prob and entropy (M,) of mean (A, M) and action (M, A)."""
        log_std = np.minimum(np.maximum(self.free, self.bounds[0]), self.bounds[1])
        self.std = np.exp(log_std)[:, None]
        self.e = (action.T - mean) / self.std  # (A, M)
        self.inside = log_std == self.free  # outside the bounds the clamp has no slope
        actions, total = len(mean), np.add.reduce(log_std)
        self.squares = np.square(self.e)
        log_prob = np.add.reduce(self.squares) * np.float32(-0.5) - (total + np.float32(actions * HALF_LOG_2PI))
        entropy = np.empty_like(log_prob)
        entropy.fill(total + actions * (HALF_LOG_2PI + 0.5))
        return log_prob, entropy

    def gradient(self, by_log_prob: Array, by_entropy: float) -> Array:
        """Return the derivative by the means (A, M), given those by log_prob (M,) and by the entropy of each row.

        The derivative by log std is added to its gradient.
        """
        by_log_std = (self.squares - 1.0) @ by_log_prob + np.float32(by_entropy * len(by_log_prob))
        self.found += by_log_std * self.inside
        return self.e / self.std * by_log_prob
