"""Tests of private names that other library versions may change: without them the public way gives the same results."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import gymnasium
import pytest
import torch
from gymnasium.wrappers import TimeLimit

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.engine import flat_adam, memory_plan, mlp_layers, plain_mlp
from ppo_lab.engine.compiled_loss import _of_any_size
from ppo_lab.engine.flat_adam import adam_step, flat_step
from ppo_lab.engine.flat_parameters import NAMES, FlatParameters
from ppo_lab.envs.adapters.maker import time_limit
from ppo_lab.models import private_names
from ppo_lab.models.distributions.beta import Beta
from ppo_lab.models.private_names import adam_kernel, holds, standard_gamma
from ppo_lab.ppo.learner import Autograd
from ppo_lab.training.trainer import Trainer
from tests.engine.learners import learner_of
from tests.engine.test_mlp_gradient import BOX, assert_equal, both, made, state_and_batch

KINDS = [torch.optim.Adam, torch.optim.AdamW]


def other_arguments(*_, **__):
    raise TypeError("_fused_adam_() missing 1 required positional argument: 'found_inf'")


def another_schema(*_, **__):
    raise RuntimeError("aten::_fused_adam_() expected a value of type Tensor for argument 'lr'")


def counting_by_itself(values, gradients, means, squares, highest, steps, **settings):
    """Act as a kernel that increases the step counts itself, as a newer one might."""
    torch._foreach_add_(steps, 1)
    torch._fused_adam_(values, gradients, means, squares, highest, steps, **settings)


def doing_nothing(*_, **__):
    pass


def stepped(config, steps=3):
    """Return parameters, moments and step counts after some gradient steps with fixed gradients, as one list."""
    state, _, _ = state_and_batch(config)
    flat, random = FlatParameters(state.model.parameters()), torch.Generator().manual_seed(1)
    for group in state.optimizer.param_groups:
        group["lr"] = 0.01 if group["role"] == "actor" else 0.02  # two calls of the kernel, or one
    for _ in range(steps):
        for parameter in state.model.parameters():
            parameter.grad.copy_(torch.randn(parameter.shape, generator=random))
        flat_step(state.optimizer, flat, 0.5)
    kept = [state.optimizer.state[p][name] for p in state.model.parameters() for name in NAMES]
    return [tensor.detach().clone() for tensor in (*state.model.parameters(), *kept)]


@pytest.fixture
def changed(monkeypatch):
    """Return a function that makes ppo_lab use another kernel, or none; torch itself keeps its own."""

    def change(kernel):
        monkeypatch.setattr(private_names, "KERNELS", dict.fromkeys(KINDS, "_renamed_adam_"))
        if kernel is not None:
            monkeypatch.setattr(torch, "_renamed_adam_", kernel, raising=False)

    return change


@pytest.mark.parametrize("kernel", [None, other_arguments, another_schema, counting_by_itself, doing_nothing])
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_without_the_kernel_the_optimizer_steps_by_itself(kernel, kind, changed, caplog):
    """Check for the same weights, moments and step counts: no step is taken twice, and the kernel is tried once."""
    config = made(BOX, ppo__optimizer=kind, ppo__weight_decay=0.1 if kind == "adamw" else 0.0)
    expected = stepped(config)
    changed(kernel)
    caplog.set_level(logging.WARNING, logger="ppo_lab")
    private_names._works.cache_clear()
    found = stepped(config)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert [step.item() for step in found if step.dim() == 0] == [3.0] * (len(found) // 4)
    assert len(caplog.messages) == (kernel is not None)
    assert all("optimizer.step() is used" in message for message in caplog.messages)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_of_the_torch_that_is_pinned_are_used(kind, root):
    """Check only the pinned version: kernels of others may have changed, which makes training slower, but not wrong."""
    if f"torch=={torch.__version__.split('+')[0]}\n" not in (root / "requirements.txt").read_text():
        pytest.skip(f"torch {torch.__version__} is not the pinned one")
    assert adam_kernel(kind) is not None
    assert adam_kernel(torch.optim.SGD) is None


def test_a_step_by_the_kernel_takes_no_step_of_the_optimizer(monkeypatch):
    state, _, _ = state_and_batch(made(BOX))
    flat = FlatParameters(state.model.parameters())
    monkeypatch.setattr(state.optimizer, "step", lambda: pytest.fail("two steps"))
    assert adam_step(state.optimizer, flat)
    monkeypatch.setattr(flat_adam, "adam_kernel", lambda _: None)
    assert not adam_step(state.optimizer, flat)


def test_hooks_that_cannot_be_looked_for_may_be_there(monkeypatch):
    assert holds(SimpleNamespace(), "_forward_hooks")
    assert holds(SimpleNamespace(hooks={}, others={1: print}), "hooks", "others")
    assert not holds(SimpleNamespace(hooks={}, others=None), "hooks", "others")
    config = made(BOX)
    state, rollout, _ = state_and_batch(config)
    monkeypatch.setattr(plain_mlp, "holds", lambda owner, *names: holds(owner, *names, "_renamed_hooks"))
    assert isinstance(learner_of(state, rollout, config.ppo), Autograd)
    monkeypatch.setattr(flat_adam, "holds", lambda *_: True)
    assert not adam_step(state.optimizer, FlatParameters(state.model.parameters()))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_slopes_of_the_activations_without_aten(activation, monkeypatch):
    monkeypatch.setattr(mlp_layers, "TANH", None)
    monkeypatch.setattr(mlp_layers, "RELU", None)
    assert_equal(*both(made(BOX, model__activation=activation)))
    assert private_names.operation("no_such_operation", "grad_input") is None
    assert private_names.operation("tanh_backward", "no_such_overload") is None


def test_gamma_without_a_generator(monkeypatch):
    draw = torch._standard_gamma

    def without_a_generator(shapes, generator=None):
        if generator is not None:  # torch's own Gamma passes None since 2.14
            raise TypeError
        return draw(shapes)

    monkeypatch.setattr(torch, "_standard_gamma", without_a_generator)
    before = torch.get_rng_state()
    shapes = torch.tensor([0.5, 1.0, 4.0]).expand(20_000, 3)
    first, again = (standard_gamma(shapes, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    random = torch.Generator().manual_seed(3)
    assert not torch.equal(standard_gamma(shapes, random), standard_gamma(shapes, random))
    five = 5 * (shapes[0] / len(shapes)).sqrt()  # standard errors: mean and variance of Gamma(k, 1) are k
    assert ((first.mean(0) - shapes[0]).abs() < five).all()
    assert torch.equal(torch.get_rng_state(), before)
    assert Beta(torch.ones(4, 1), torch.ones(4, 1), 0.0).sample(random).shape == (4, 1)


def test_a_time_limit_under_another_name():
    class Renamed(TimeLimit):
        @property
        def spec(self):
            return gymnasium.spec("CartPole-v1")

    env = Renamed(gymnasium.make("CartPole-v1").unwrapped, 77)
    assert time_limit(env) == 77
    del env._max_episode_steps
    assert time_limit(env) == 500


def test_a_plan_of_what_can_be_counted(monkeypatch):
    config = override(Config(), {"env.id": "ppo_lab/CartPole-v1", "run.root": None})
    whole = Trainer(config).memory_plan
    monkeypatch.setattr(memory_plan, "Mode", None)
    plan = Trainer(config).memory_plan
    assert plan.rollout == whole.rollout
    assert plan.learner == whole.learner
    assert 0 < plan.total <= whole.total


def test_sizes_that_cannot_be_marked_as_varying(monkeypatch):
    monkeypatch.delattr(torch._dynamo, "maybe_mark_dynamic")
    column = torch.zeros(1, 5)
    assert _of_any_size(column) is column
