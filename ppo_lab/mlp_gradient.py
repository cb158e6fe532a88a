"""The gradient of a minibatch's loss by hand: what autograd finds, for a small MLP on a CPU.

Autograd makes a node, a tensor and some checks for each of about eighty operations, which together take longer than
what they compute on 256 rows. Here the chain rule is written out, into memory that is there already: large products in
torch, which keep to its number of threads, the rest in NumPy, whose calls cost less. Rows go through in blocks that
stay in a processor's cache.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ppo_lab.actor_critic import ActorCritic
from ppo_lab.batches import Batch
from ppo_lab.config import PPOConfig
from ppo_lab.losses import Loss
from ppo_lab.plain_mlp import PlainMLP

BLOCK = 2**17  # numbers that a layer gives for one block: 512 kB
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
Array = np.ndarray  # float32: (M,), or (K, M) with a column for each row of a block


class MLPGradient:
    """Loss and gradient of a batch; the gradient is left in the parameters. Equations: see `losses`, `distributions`.

    flat: all gradients side by side, (P,); each parameter's `grad` is a view of it.
    """

    def __init__(self, model: ActorCritic, plain: PlainMLP, ppo: PPOConfig, rows: int) -> None:
        """rows: of a minibatch, the most there are."""
        self.model, self.ppo, self.normalizer = model, ppo, plain.normalizer
        parameters = list(model.parameters())
        self.flat = torch.zeros(sum(each.numel() for each in parameters))
        sizes = [each.numel() for each in parameters]
        parts = zip(parameters, self.flat.split(sizes), strict=True)
        self.views = [(parameter, part.view_as(parameter)) for parameter, part in parts]
        self._lend()
        self.rows = block_rows(plain, rows)
        self.actor = Body(plain.actor, plain.tanh, self.rows)
        self.critic = self.actor if model.shared else Body(plain.critic, plain.tanh, self.rows)
        self.actor_head, self.critic_head = Head(plain.actor_head), Head(model.critic_head)
        self.policy = Choice() if plain.log_std is None else Gaussian(plain.log_std, plain.log_std_bounds)

    def _lend(self) -> None:
        """Make every parameter's gradient a view of `flat`, also where somebody gave it another one or none."""
        for parameter, view in self.views:
            if parameter.grad is not view:
                parameter.grad = view

    @torch.no_grad()
    @np.errstate(all="ignore")  # what is not finite is found in the norm, and named
    def __call__(self, batch: Batch) -> Loss:
        """The loss of a batch (1, B), all of whose rows are experience."""
        assert isinstance(batch.obs, Tensor)
        assert len(batch.obs) == 1
        assert batch.valid is None
        self._lend()
        obs, scaled = batch.obs[0], self.model.critic_head.normalized  # (B, F)
        if self.normalizer is not None:
            obs = torch.from_numpy(self.normalizer.in_numpy(obs.numpy()))
        columns = (batch.action, batch.log_prob, scaled(batch.value), batch.advantage, scaled(batch.returns))
        arrays = [column.numpy()[0] for column in columns]
        self.flat.zero_()
        sums = np.zeros(5)
        for first in range(0, len(obs), self.rows):
            few = slice(first, first + self.rows)
            sums += self._block(len(obs), obs[few], *(array[few] for array in arrays))
        policy, value, entropy, kl, clipped = (sums / len(obs)).tolist()
        total = policy + self.ppo.vf_coef * value - self.ppo.ent_coef * entropy
        return Loss(*torch.from_numpy(np.array([total, policy, value, entropy, kl, clipped], np.float32)).unbind())

    def _block(
        self, B: int, x: Tensor, action: Array, old_log_prob: Array, old_value: Array, advantage: Array, returns: Array
    ) -> Array:
        """Add the gradient of some rows of B; (5,) their sums of what a Loss has means of, but for the total."""
        features = self.actor.forward(x)
        log_prob, entropy = self.policy.evaluate(self.actor_head.forward(features), action)
        log_ratio = log_prob - old_log_prob
        ratio = np.exp(log_ratio)
        objective, by_log_prob = self._surrogate(ratio, advantage)
        by_output = self.policy.gradient(by_log_prob / -B, -self.ppo.ent_coef / B)
        by_features = self.actor_head.backward(features, by_output)
        if self.critic is not self.actor:
            self.actor.backward(x, by_features)
            features = self.critic.forward(x)
        error, by_value = self._value_loss(self.critic_head.forward(features)[0], old_value, returns)
        from_value = self.critic_head.backward(features, by_value[None] * np.float32(self.ppo.vf_coef / B))
        self.critic.backward(x, from_value if self.critic is not self.actor else from_value + by_features)
        kl = np.expm1(log_ratio) - log_ratio
        outside = np.count_nonzero(np.abs(ratio - 1.0) > self.ppo.clip_coef)
        add = np.add.reduce  # half the price of the methods
        return np.array((-add(objective), add(error), add(entropy), add(kl), outside))

    def _surrogate(self, ratio: Array, advantage: Array) -> tuple[Array, Array]:
        """min(r A, clip(r) A), with a floor where `dual_clip` gives one, and its slope in log r: r A, or 0."""
        eps, dual = self.ppo.clip_coef, self.ppo.dual_clip
        gain = ratio * advantage
        objective = np.minimum(gain, np.minimum(np.maximum(ratio, 1.0 - eps), 1.0 + eps) * advantage)
        if dual is not None:
            objective = np.where(advantage < 0, np.maximum(objective, dual * advantage), objective)
        return objective, gain * ~(np.abs(gain - objective) > 0.0)  # infinite or NaN: NaN, as in autograd

    def _value_loss(self, value: Array, old_value: Array, returns: Array) -> tuple[Array, Array]:
        """The squared error, of the clipped value where that is larger, and its slope in V."""
        head, clip = self.model.critic_head, self.ppo.value_clip_coef
        if head.moments is not None:
            value = value + (head.mean / head.scale).numpy()  # the loss is in units of the std
        error = value - returns
        square = error * error
        if clip is None:
            return square, 2.0 * error
        kept = old_value + np.clip(value - old_value, -clip, clip) - returns
        kept *= kept
        return np.maximum(square, kept), 2.0 * error * ~(kept > square)


def block_rows(plain: PlainMLP, rows: int) -> int:
    """How many of `rows` go through at once."""
    widest = max((layer.out_features for layer in (*plain.actor, *plain.critic)), default=1)
    return max(1, min(rows, BLOCK // widest))


class Body:
    """Hidden layers: x (M, F) -> features (M, H), and back. What comes in between stays until the next `forward`."""

    def __init__(self, layers: list[nn.Linear], tanh: bool, rows: int) -> None:
        self.layers, self.tanh = [_numbers(layer) for layer in layers], tanh
        self.outputs = [torch.empty(rows, layer.out_features) for layer in layers]
        self.gradients = [torch.empty_like(output) for output in self.outputs]

    def forward(self, x: Tensor) -> Tensor:
        """x (M, F) -> (M, H)."""
        for (weight, bias, *_), room in zip(self.layers, self.outputs, strict=True):
            x = torch.addmm(bias, x, weight.t(), out=room[: len(x)])
            numbers = x.numpy()
            np.tanh(numbers, out=numbers) if self.tanh else np.maximum(numbers, 0.0, out=numbers)
        return x

    def backward(self, x: Tensor, upstream: Tensor) -> None:
        """Add to the gradients, given the one of the features (M, H).

        With z = x W' + b and y = tanh(z): dz = dy (1 - y^2), dW = dz' x, db = sum of dz, dx = dz W.
        """
        for i in reversed(range(len(self.layers))):
            (weight, _, weight_grad, bias_grad), y, room = self.layers[i], self.outputs[i][: len(x)], self.gradients[i]
            if self.tanh:
                by_z = torch.ops.aten.tanh_backward.grad_input(upstream, y, grad_input=room[: len(x)])
            else:
                by_z = torch.ops.aten.threshold_backward.grad_input(upstream, y, 0.0, grad_input=room[: len(x)])
            weight_grad.addmm_(by_z.t(), self.outputs[i - 1][: len(x)] if i else x)
            bias_grad.add_(by_z.sum(0))
            if i:
                upstream = torch.mm(by_z, weight, out=self.gradients[i - 1][: len(x)])


class Head:
    """A linear layer with its output on the side: (M, H) -> (K, M), so that sums over few outputs are quick."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.bias, self.weight_grad, self.bias_grad = _numbers(layer)

    def forward(self, features: Tensor) -> Array:
        """(M, H) -> (K, M)."""
        output: Array = torch.addmm(self.bias.unsqueeze(-1), self.weight, features.t()).numpy()
        return output

    def backward(self, features: Tensor, by_output: Array) -> Tensor:
        """Add to the gradients, given the one of the output (K, M); the one of the features (M, H)."""
        by = torch.from_numpy(by_output)
        self.weight_grad.addmm_(by, features)
        self.bias_grad.add_(by.sum(1))
        return by.t() @ self.weight


def _numbers(layer: nn.Linear) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight, bias and where their gradients go."""
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    return layer.weight, layer.bias, layer.weight.grad, layer.bias.grad


class Choice:
    """`Categorical` and its slopes: d log p_a / dz_k = [k = a] - p_k,  dH / dz_k = -p_k (log p_k + H)."""

    def evaluate(self, logits: Array, action: Array) -> tuple[Array, Array]:
        """logits (K, M), action (M,) -> log_prob and entropy (M,)."""
        logits -= np.maximum.reduce(logits)
        self.p = np.exp(logits)
        total = np.add.reduce(self.p)
        self.p /= total
        self.log_p = logits - np.log(total)
        self.entropy = -np.add.reduce(self.p * self.log_p)
        self.chosen = (action, np.arange(len(action)))
        return self.log_p[self.chosen], self.entropy

    def gradient(self, by_log_prob: Array, by_entropy: float) -> Array:
        """Of the logits (K, M), given those of log_prob (M,) and of each row's entropy."""
        by_logits = self.p * -by_log_prob
        by_logits[self.chosen] += by_log_prob
        if by_entropy:
            by_logits -= self.p * (self.log_p + self.entropy) * np.float32(by_entropy)
        return by_logits


class Gaussian:
    """`DiagonalGaussian` and its slopes; with e = (a - mean) / std: e / std in the mean, e^2 - 1 in log std."""

    def __init__(self, log_std: nn.Parameter, bounds: tuple[float, float]) -> None:
        assert log_std.grad is not None
        self.parameter, self.found = log_std, log_std.grad.numpy()  # (A,)
        self.bounds = bounds

    def evaluate(self, mean: Array, action: Array) -> tuple[Array, Array]:
        """mean (A, M), action (M, A) -> log_prob and entropy (M,)."""
        free = self.parameter.numpy(force=True)
        log_std = np.minimum(np.maximum(free, self.bounds[0]), self.bounds[1])
        self.std = np.exp(log_std)[:, None]
        self.e = (action.T - mean) / self.std  # (A, M)
        self.inside = log_std == free  # elsewhere the clamp has no slope
        actions, total = len(mean), np.add.reduce(log_std)
        self.squares = np.square(self.e)
        log_prob = np.add.reduce(self.squares) * np.float32(-0.5) - (total + np.float32(actions * HALF_LOG_2PI))
        entropy = np.empty_like(log_prob)
        entropy.fill(total + actions * (HALF_LOG_2PI + 0.5))
        return log_prob, entropy

    def gradient(self, by_log_prob: Array, by_entropy: float) -> Array:
        """Of the means (A, M), given those of log_prob (M,) and of each row's entropy; log std's is added to it."""
        by_log_std = (self.squares - 1.0) @ by_log_prob + np.float32(by_entropy * len(by_log_prob))
        self.found += by_log_std * self.inside
        return self.e / self.std * by_log_prob
