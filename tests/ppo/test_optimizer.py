"""The optimizer: which parameters have weight decay, low precision, and no step with a non-finite gradient."""

from __future__ import annotations

import copy

import pytest
import torch

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.engine.flat_adam import flat_step
from ppo_lab.engine.flat_parameters import FlatParameters
from ppo_lab.ppo.events import MinibatchStepped
from ppo_lab.ppo.optimizer import gradient_step
from ppo_lab.training.trainer import Trainer
from tests.tolerance import rounding

BASE = {
    "env": {"id": "Pendulum-v1", "num_envs": 2},
    "model": {"hidden_sizes": [8], "core_size": 8},
    "ppo": {"total_timesteps": 128, "num_steps": 16, "update_epochs": 2, "num_minibatches": 2},
    "run": {"root": None},
}


def made(**changes):
    return Trainer(override(Config(), {**BASE, **{key.replace("__", "."): value for key, value in changes.items()}}))


@pytest.mark.parametrize("std", ["free", "state", "gsde"])
def test_weight_decay_spares_biases_and_log_std(std):
    trainer = made(ppo__optimizer="adamw", ppo__weight_decay=0.1, model__std=std, model__core="gru")
    decays = {id(p): group["weight_decay"] for group in trainer.state.optimizer.param_groups for p in group["params"]}
    names = dict(trainer.state.model.named_parameters())
    assert decays.keys() == {id(parameter) for parameter in names.values()}
    for name, parameter in names.items():
        spared = parameter.dim() < 2 or "log_std" in name
        assert decays[id(parameter)] == (0.0 if spared else 0.1), name


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_decay_pulls_weights_to_zero_and_leaves_the_spared_alone(optimizer):
    trainer = made(ppo__optimizer=optimizer, ppo__weight_decay=0.5, ppo__learning_rate=0.1)
    state = trainer.state
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    for group in state.optimizer.param_groups:
        group["lr"] = 0.1
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    for name, parameter in state.model.named_parameters():
        kept = 1.0 if parameter.dim() < 2 or "log_std" in name else 1.0 - 0.1 * 0.5
        assert torch.allclose(parameter, before[name] * kept), name


def test_one_step_of_sgd_is_the_textbook_step():
    trainer = made(ppo__optimizer="sgd", ppo__learning_rate=0.01, ppo__max_grad_norm=1e9)
    before = None
    for event in trainer.events():
        if isinstance(event, MinibatchStepped):
            break
        before = {name: p.detach().clone() for name, p in trainer.state.model.named_parameters()}
    for name, parameter in trainer.state.model.named_parameters():
        assert torch.allclose(parameter, before[name] - 0.01 * parameter.grad, atol=1e-7), name


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 1e-3), ("float16", 1e-3)])
@pytest.mark.parametrize("core", ["none", "gru"])
def test_low_precision_is_the_same_on_both_sides(precision, tolerance, core):
    """Rollout and update under the same autocast: ratios of 1, distributions and losses in float32."""
    trainer = made(model__precision=precision, model__core=core)
    for event in trainer.events():
        if isinstance(event, MinibatchStepped):
            assert event.loss.approx_kl.dtype == event.loss.total.dtype == torch.float32
            assert event.loss.approx_kl.abs() < tolerance
            break
    losses = []
    for update in trainer:
        losses.append(update.metrics.get("loss/value"))  # missing while the float16 scale is reduced
        assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in trainer.state.model.parameters())
    assert losses[-1] > 0


def test_float16_scales_gradients_and_skips_what_overflows(tmp_path):
    trainer = made(model__precision="float16", run__root=str(tmp_path), run__name="half")
    assert trainer.state.scaler.is_enabled()
    trainer.state.scaler.load_state_dict({**trainer.state.scaler.state_dict(), "scale": 2.0**120})  # will overflow
    update = next(iter(trainer))
    assert update.metrics["update/skipped_steps"] > 0
    assert trainer.state.scaler.get_scale() < 2.0**120
    assert all(torch.isfinite(p).all() for p in trainer.state.model.parameters())
    trainer.save()
    trainer.close()
    resumed = Trainer.resume(tmp_path / "half")
    assert resumed.state.scaler.get_scale() == trainer.state.scaler.get_scale() < 2.0**120
    assert resumed.fingerprint() == trainer.fingerprint()
    resumed.close()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_step_on_a_gradient_that_is_not_finite_is_called_off(optimizer):
    """Moments and step counts are restored, too: the next step is the same as without the interruption."""
    ours, twin = made(ppo__optimizer=optimizer), made(ppo__optimizer=optimizer)
    for trainer, factors in ((ours, (1.0, torch.nan, torch.inf, 1.0)), (twin, (1.0, 1.0))):
        for group in trainer.state.optimizer.param_groups:
            group["lr"] = 0.1
        for factor in factors:
            for parameter in trainer.state.model.parameters():
                parameter.grad = torch.full_like(parameter, 0.01 * factor)
            norm = gradient_step(trainer.state.optimizer, 0.5)
            assert norm.isfinite() == (factor == 1.0)
    assert ours.fingerprint() == twin.fingerprint()


def stepped(trainer, optimizer, turn, flat=None):
    """Take two steps with random gradients, by torch or on `flat`."""
    random = torch.Generator().manual_seed(turn)
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    for _ in range(2):
        for parameter in trainer.state.model.parameters():
            gradient = torch.randn(parameter.shape, generator=random)
            if flat is None:
                parameter.grad = gradient
            else:
                parameter.grad.copy_(gradient)
        if flat is None:
            optimizer.step()
        else:
            gradient_step(optimizer, 1e9) if flat is None else flat_step(optimizer, flat, 1e9)


@pytest.mark.parametrize("critic", [1.0, 2.0])  # times the actor's learning rate
@pytest.mark.parametrize(
    "changes", [{}, {"ppo__optimizer": "adamw", "ppo__weight_decay": 0.1}, {"ppo__optimizer": "sgd"}]
)
def test_one_call_for_all_parameters_is_the_step_of_torch(changes, critic):
    """Moments and step counts are equal, too: from the first step, after a checkpoint, and with a new head."""
    ours, twin = (made(model__hidden_sizes=[16, 16], **changes) for _ in range(2))
    flat = FlatParameters(ours.state.model.parameters())
    for trainer in (ours, twin):
        for group in trainer.state.optimizer.param_groups:
            group["lr"] = 0.01 * (critic if group["role"] == "critic" else 1.0)
    for turn in range(4):
        for trainer, how in ((ours, flat), (twin, None)):
            optimizer = trainer.state.optimizer
            stepped(trainer, optimizer, turn, how)
            if turn == 1:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            if turn == 2:
                optimizer.state.pop(list(trainer.state.model.parameters())[-1], None)
    for one, other in zip(ours.state.model.parameters(), twin.state.model.parameters(), strict=True):
        mine, theirs = ours.state.optimizer.state[one], twin.state.optimizer.state[other]
        assert mine.keys() == theirs.keys()
        for name, kept in [("parameter", other), *theirs.items()]:
            found = one if name == "parameter" else mine[name]
            # eight steps of a dozen operations; torch handles the end of a tensor without vector instructions
            torch.testing.assert_close(found, kept, rtol=rounding(torch.float32, 8 * 12), atol=1e-8)
            assert name != "step" or torch.equal(found, kept)


def test_hooks_of_the_optimizer_are_called():
    trainer, seen = made(), []
    flat = FlatParameters(trainer.state.model.parameters())
    trainer.state.optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    stepped(trainer, trainer.state.optimizer, 1, flat)
    assert seen == ["before"] * 2


@pytest.mark.parametrize("limit", [0.01, 1.0, 1e9])
def test_side_by_side_gradients_are_clipped_like_others(limit):
    ours, twin = made(), made()
    flat = FlatParameters(ours.state.model.parameters())
    for trainer, how in ((ours, flat), (twin, None)):
        random = torch.Generator().manual_seed(1)
        for parameter in trainer.state.model.parameters():
            gradient = torch.randn(parameter.shape, generator=random)
            parameter.grad = gradient if how is None else parameter.grad.copy_(gradient)
        trainer.norm = (
            gradient_step(trainer.state.optimizer, limit)
            if how is None
            else flat_step(trainer.state.optimizer, how, limit)
        )
    torch.testing.assert_close(ours.norm, twin.norm)
    for one, other in zip(ours.state.model.parameters(), twin.state.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=0.0)
