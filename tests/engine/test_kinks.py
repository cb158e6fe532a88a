"""Where the loss bends: ties, bounds and zeros have the slope that autograd gives them, in every way of computing it.

Every number here is exact in float32, so that it lies on the kink and not beside it, whatever the processor.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.engine.acting import NumpyActing
from ppo_lab.engine.compiled_loss import CompiledLoss, check_compiler
from ppo_lab.engine.flat_adam import flat_step
from ppo_lab.engine.flat_parameters import FlatParameters
from ppo_lab.engine.graph_minibatch import GraphMinibatch
from ppo_lab.engine.mlp_gradient import Choice, MLPGradient
from ppo_lab.engine.numpy_rollout import NumpyPolicy, numpy_policy
from ppo_lab.errors import ConfigError
from ppo_lab.ppo.learner import minibatch_loss
from ppo_lab.ppo.losses import clipped_surrogate, value_loss
from ppo_lab.ppo.optimizer import gradient_step
from ppo_lab.ppo.rollout import Rollout, collect_stepwise, take_steps
from ppo_lab.ppo.state import initial_state
from tests.engine.learners import learner_of
from tests.engine.test_mlp_gradient import BOX, CARTPOLE, assert_equal, made, state_and_batch
from tests.engine.test_numpy_rollout import cartpole, two_rollouts
from tests.scripted import Script
from tests.tolerance import rounding

ONE = np.float32(1.0)


def by_hand(name, ppo, *columns):
    """A part of the loss by hand, row by row: what it is, and its slope."""
    settings = {"clip_coef": 0.2, "dual_clip": None, "value_clip_coef": None} | ppo
    return getattr(MLPGradient, name)(SimpleNamespace(ppo=SimpleNamespace(**settings), value_mean=None), *columns)


def slope_of(loss, at, *columns, **settings):
    """The slope of a mean over rows in each of them, by autograd."""
    leaf = torch.tensor(at, requires_grad=True)
    loss(leaf, *map(torch.tensor, columns), **settings).backward()
    return leaf.grad.numpy() * np.float32(len(at))


# --- the value --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "old", "returns", "slope"),
    [  # clip 0.25; what the maximum gives each square, times 2 (V - R) and 2 (V_kept - R)
        (0.5, 0.5, 1.0, -1.0),  # V is V_old: both squares are one, half each
        (0.625, 0.5, 1.0, -0.75),  # inside: the same
        (0.75, 0.5, 1.0, -0.5),  # exactly at the bound: the clamp still has its slope
        (0.25, 0.5, 1.0, -1.5),
        (1.0, 0.5, 1.0, 0.0),  # V is R, and the clipped one further away
        (1.0, 0.5, 0.5, 1.0),  # outside, V further away: 2 (V - R)
        (1.0, 0.5, 2.0, 0.0),  # outside, V_kept further away: nothing
        (1.0, 0.5, 0.875, 0.125),  # outside, both as far from R: half of 2 (V - R)
        (0.0, 0.5, 0.125, -0.125),
        (0.5, 0.5, 0.5, 0.0),  # nothing is off
    ],
)
def test_slopes_of_the_clipped_value_loss_on_paper(value, old, returns, slope):
    rows = [np.array([number], np.float32) for number in (value, old, returns)]
    assert by_hand("_value_loss", {"value_clip_coef": 0.25}, *rows)[1] == slope
    assert slope_of(value_loss, *rows, value_clip_coef=0.25) == slope


def value_cases(clip):
    """Eighths around V_old: V within, at and beyond the clip, R on every side, ties of both squares among them."""
    moves = [0.0, clip / 2, clip, clip + 0.125, 2 * clip, -clip / 2, -clip, -clip - 0.125, -2 * clip]
    rows = itertools.product((0.0, 1.0, -0.5), moves, np.arange(-32, 31) / 16)
    old, move, distance = np.array(list(rows), np.float32).T
    return old + move, old, old + distance


@pytest.mark.parametrize("clip", [0.125, 0.25, 1.0])
def test_the_value_loss_on_its_kinks(clip):
    value, old, returns = value_cases(clip)
    loss, slope = by_hand("_value_loss", {"value_clip_coef": clip}, value, old, returns)
    kept = old + np.clip(value - old, -clip, clip)
    ties = np.abs(value - returns) == np.abs(kept - returns)
    assert (ties & (np.abs(value - old) > clip) & (value != returns)).sum() > 5
    autograd = slope_of(value_loss, value, old, returns, value_clip_coef=clip)  # over n, and times n again
    np.testing.assert_allclose(slope, autograd, rtol=rounding(np.float32, 3), atol=0.0)
    np.testing.assert_array_equal(loss, np.maximum((value - returns) ** 2, (kept - returns) ** 2))


@pytest.mark.parametrize("size", [0.01, 0.1, 1.0, 10.0, 1000.0])
def test_inside_the_clip_no_rounding_costs_a_row_its_gradient(size):
    """V_old + (V - V_old) is V only to rounding, so that either square may be the larger one."""
    random, clip, n = np.random.default_rng(0), 0.2, 50_000
    old = (size * random.standard_normal(n)).astype(np.float32)
    value = (old + random.uniform(-1.2 * clip, 1.2 * clip, n)).astype(np.float32)
    returns = (old + random.standard_normal(n)).astype(np.float32)
    _, slope = by_hand("_value_loss", {"value_clip_coef": clip}, value, old, returns)
    autograd = slope_of(value_loss, value, old, returns, value_clip_coef=clip)
    inside = np.abs(value - old) <= np.float32(clip)
    assert 0.5 < inside.mean() < 1.0
    # V_kept is a sum of three numbers as large as V_old
    np.testing.assert_allclose(slope, autograd, rtol=rounding(np.float32, 4), atol=0.0)
    np.testing.assert_allclose(
        slope[inside],
        2 * (value - returns)[inside],
        rtol=0.0,
        atol=rounding(np.float32, 4, np.abs([old, returns]).max()),
    )


# --- the policy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "dual", "slope"),
    [  # clip 0.25: d objective / d log r
        (1.0, 2.0, None, 2.0),
        (1.25, 2.0, None, 2.5),  # exactly at the bound: the clamp still has its slope
        (0.75, -2.0, None, -1.5),
        (0.75, 2.0, None, 1.5),
        (1.25, -2.0, None, -2.5),
        (1.5, 2.0, None, 0.0),
        (0.5, -2.0, None, 0.0),
        (1.5, -2.0, None, -3.0),
        (1.5, 0.0, None, 0.0),
        (2.0, -1.0, 2.0, -1.0),  # r A is exactly the floor: half
        (2.5, -1.0, 2.0, 0.0),  # below it
        (1.5, -1.0, 2.0, -1.5),
        (2.0, 1.0, 2.0, 0.0),  # A > 0 has no floor
        (1.0, -1.0, 1.0, -0.5),
    ],
)
def test_slopes_of_the_surrogate_on_paper(ratio, advantage, dual, slope):
    r, a = (np.array([number], np.float32) for number in (ratio, advantage))
    assert by_hand("_surrogate", {"clip_coef": 0.25, "dual_clip": dual}, r, a)[1] == slope
    assert -ratio * slope_of(clipped_surrogate, r, a, clip_coef=0.25, dual_clip=dual) == slope


def surrogate_cases(clip, dual):
    """Ratios at the bounds, a number beside them and far away; advantages of both signs, 0, and where products tie."""
    bounds = [1.0 - clip, 1.0 + clip, 1.0, dual or 3.0, 0.5, 2.0]
    near = [np.nextafter(np.float32(bound), np.float32(way)) for bound in bounds for way in (0.0, 9.0)]
    advantages = [0.0, -0.0, 1.0, -1.0, 1.7, -1.7, 3.0, -3.0, 1e-44, -1e-44]  # of 1e-44 all products are equal
    ratio, advantage = np.array(list(itertools.product([*bounds, *near], advantages)), np.float32).T
    return ratio, advantage


@pytest.mark.parametrize("clip", [0.25, 0.2, 0.3, 0.1])
@pytest.mark.parametrize("dual", [None, 2.0, 1.3])
def test_the_surrogate_on_its_kinks(clip, dual):
    ratio, advantage = surrogate_cases(clip, dual)
    objective, slope = by_hand("_surrogate", {"clip_coef": clip, "dual_clip": dual}, ratio, advantage)
    autograd = -slope_of(clipped_surrogate, ratio, advantage, clip_coef=clip, dual_clip=dual) * ratio
    # a mean is over rows, and its slope times their number: three products where there was one
    np.testing.assert_allclose(slope, autograd, rtol=rounding(np.float32, 3), atol=1e-43)
    assert -objective.mean() == pytest.approx(
        clipped_surrogate(torch.tensor(ratio), torch.tensor(advantage), clip, dual).item(), rel=1e-5
    )
    halves = np.abs(slope) == np.abs(ratio * advantage) / 2
    assert (halves & (np.abs(advantage) > 1e-40)).any() or (dual is None and clip == 0.25)


@pytest.mark.parametrize("clip", [0.1, 0.2, 0.25, 0.3, 0.45, 1 / 3, 0.7])
def test_a_clip_range_in_a_tensor_has_the_same_bounds(clip):
    """In captured and compiled programs it is a tensor: 1 - eps is rounded once there too."""
    ratio, advantage = surrogate_cases(clip, None)
    found = []
    for coefficient in (clip, torch.tensor(clip, dtype=torch.float64)):
        leaf = torch.tensor(ratio, requires_grad=True)
        loss = clipped_surrogate(leaf, torch.tensor(advantage), coefficient)
        loss.backward()
        found.append((loss.detach(), leaf.grad))
    for number, tensor in zip(*found, strict=True):
        assert torch.equal(number, tensor)


# --- the whole gradient -----------------------------------------------------------------------------------------------


def exact_log_ratio(low, high):
    """A log ratio d between the two for which NumPy and torch have the same e^d."""
    for step in np.arange(np.ceil(low * 1024), high * 1024):
        d = np.float32(step / 1024)
        if np.exp(d) == torch.tensor(d).exp().numpy():
            return d
    raise AssertionError("no such number")


BOUNDS = {"upper": exact_log_ratio(0.15, 0.25), "lower": exact_log_ratio(-0.25, -0.15)}
FLOOR = exact_log_ratio(0.6, 0.7)


def settings(bound, **changes):
    """Clip bounds that a ratio reaches exactly: 1 - eps and 1 + eps are float32 numbers."""
    at = float(np.exp(BOUNDS[bound]))
    kinks = {"ppo.clip_coef": abs(at - 1.0), "ppo.dual_clip": float(np.exp(FLOOR)), "ppo.value_clip_coef": 0.25}
    return made(CARTPOLE | kinks, model__hidden_sizes=[4], model__activation="relu", **changes)


def exact(config):
    """A policy and a batch whose every row lies on a kink: of the value, of the ratio, of ReLU, or of several."""
    state, rollout, batch = state_and_batch(config)
    model, scaled = state.model, state.model.critic_head.moments is not None
    value, old, returns = value_cases(0.25)
    ratios = [*BOUNDS.values(), FLOOR, np.float32(0.0), np.float32(-1.0), np.float32(1.0)]
    log_ratio, advantage = np.array(list(itertools.product(ratios, [0.0, 1.0, -1.0, 1.5, -2.0])), np.float32).T
    rows = np.arange(len(value))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for body in (model.actor_body, model.critic_body):
            body.layers[0].weight[:3, :2] = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
        model.critic_head.weight.copy_(torch.tensor([[0.125, -0.125, 1.0, 0.0]]))  # V is an eighth of the first number
        # of what is always 0, before and after ReLU: the policy stays uniform
        model.actor_head.logits.weight.copy_(torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, -1.0, 0.0]]))
        if scaled:
            model.critic_head.mean.fill_(3.0)
            model.critic_head.scale.fill_(2.0)
    obs = torch.zeros(1, len(rows), 4)
    obs[0, :, 0] = torch.tensor(value) * 8
    move, unit = (3.0, 2.0) if scaled else (0.0, 1.0)
    column = {name: torch.tensor(numbers)[None] for name, numbers in (("value", old), ("returns", returns))}
    action = torch.tensor(rows % 2)[None]
    with torch.no_grad():
        log_prob, _, found = model.evaluate(obs, action, None, torch.zeros(1, len(rows), dtype=torch.bool))
    assert torch.equal(found[0], move + unit * torch.tensor(value))
    ours, _ = Choice().evaluate(np.zeros((2, len(rows)), np.float32), action[0].numpy())
    if not np.array_equal(ours, log_prob[0]):
        pytest.skip("log 2 is another number in NumPy than in torch")
    return (
        state,
        rollout,
        batch._replace(
            obs=obs, action=action, starts=torch.zeros(1, len(rows), dtype=torch.bool), inputs=None,
            log_prob=log_prob - torch.tensor(log_ratio[rows % len(log_ratio)]),
            advantage=torch.tensor(advantage[rows % len(log_ratio)])[None],
            **{name: move + unit * numbers for name, numbers in column.items()},
        ),
    )  # fmt: skip


def gradients(model):
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_by_hand_on_the_kinks(bound, shared, scaled):
    config = settings(bound, model__shared=shared, model__normalize_value=scaled, ppo__ent_coef=0.01)
    state, rollout, batch = exact(config)
    with torch.no_grad():
        log_prob, _, _ = state.model.evaluate(batch.obs, batch.action, None, batch.starts)
    ratio, eps = (log_prob - batch.log_prob).exp(), config.ppo.clip_coef
    assert (ratio == (1.0 + eps if bound == "upper" else 1.0 - eps)).float().mean() > 0.1
    assert (ratio == config.ppo.dual_clip).float().mean() > 0.1
    found = []
    for route in ("auto", "reference"):
        loss = learner_of(state, rollout, config.ppo, route).gradient(batch)
        found.append((loss, gradients(state.model)))
    assert_equal(*found)
    dead = state.model.actor_body.layers[0].weight.grad[2]
    assert not dead.any(), "ReLU has no slope at 0"


@pytest.mark.parametrize("bound", [-2.0, 2.0])
@pytest.mark.parametrize("beside", [0.0, 1.0, -1.0])
def test_log_std_at_its_bound_has_its_gradient(bound, beside):
    config = made(BOX, model__log_std_min=-2.0, model__log_std_max=2.0, ppo__ent_coef=0.1)
    state, rollout, batch = state_and_batch(config)
    log_std = state.model.actor_head.log_std
    at = np.float32(bound) if not beside else np.nextafter(np.float32(bound), np.float32(bound + beside))
    with torch.no_grad():
        log_std.fill_(float(at))
    found = []
    for route in ("auto", "reference"):
        loss = learner_of(state, rollout, config.ppo, route).gradient(batch)
        found.append((loss, gradients(state.model)))
        assert log_std.grad.any() == (abs(at) <= 2.0)
    assert_equal(*found)


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_captured_step_on_the_kinks(bound):
    """Coefficients in tensors, on the device: the same loss and gradient, bit for bit."""
    config = settings(bound, ppo__ent_coef=0.01)
    found = []
    for captured in (False, True):
        state, _, batch = exact(config)
        for group in state.optimizer.param_groups:
            group["lr"] = 0.0  # the captured one tries itself out
        if captured:
            loss, _ = GraphMinibatch(state.model, state.optimizer)(batch, config.ppo)
        else:
            loss = minibatch_loss(state.model, batch, config.ppo)
            loss.total.backward()
            gradient_step(state.optimizer, config.ppo.max_grad_norm)
        found.append([*(number.detach() for number in loss), *gradients(state.model)])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("clip", [0.1, 0.2, 0.25, 0.3, 0.45, 1 / 3, 0.7])
def test_the_clip_range_of_a_compiled_loss_has_the_same_bounds(clip, monkeypatch):
    loss = CompiledLoss(any_size=False)
    monkeypatch.setattr(loss, "_compiled", lambda model, batch, settings: settings)
    _, _, batch = state_and_batch(made(CARTPOLE))
    coefficient = loss(None, batch, made(CARTPOLE, ppo__clip_coef=clip).ppo).clip_coef
    for bound, number in ((1.0 - coefficient, 1.0 - clip), (1.0 + coefficient, 1.0 + clip)):
        assert bound.float() == np.float32(number)


@pytest.mark.slow
@pytest.mark.parametrize("bound", BOUNDS)
def test_the_compiled_loss_on_the_kinks(bound):
    try:
        check_compiler()
    except ConfigError as missing:
        pytest.skip(str(missing))
    config = settings(bound, ppo__ent_coef=0.01)
    state, _, batch = exact(config)
    found = []
    for loss_of in (minibatch_loss, CompiledLoss(any_size=False)):
        state.model.zero_grad()
        loss = loss_of(state.model, batch, config.ppo)
        loss.total.backward()
        found.append((loss._replace(total=loss.total.detach()), gradients(state.model)))
    assert_equal(*found)


# --- acting, and the step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("T", [1, 5])
def test_equal_logits_and_equal_draws_take_the_first_action(N, T, monkeypatch):
    """A tie of the race is the same action in NumPy and in torch; N = 1 and T = 1 are no special case."""
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self, generator=None: self.fill_(1.0))
    config, found = made(CARTPOLE), []
    for quick in (True, False):
        envs = Script(["." * N, "T" * N, "C" * N], next_step=False)
        state = initial_state(config, envs)
        with torch.no_grad():
            for parameter in state.model.actor_head.parameters():
                parameter.zero_()
        assert isinstance(numpy_policy(state.model, state.obs), NumpyPolicy)
        rollout = Rollout.empty(T, N, state.obs, state.model)
        steps = NumpyActing().take_steps if quick else take_steps
        for _ in collect_stepwise(envs, state.model, state, rollout, steps):
            pass
        assert not rollout.action.any()
        found.append(rollout)
    for name in ("obs", "final_obs", "action", "reward", "terminated", "done", "valid", "starts"):
        assert torch.equal(*(getattr(each, name) for each in found)), name
    torch.testing.assert_close(found[0].log_prob, found[1].log_prob, rtol=rounding(torch.float32, 4), atol=0.0)


def test_one_environment_and_one_step():
    config = override(Config(), {"model.hidden_sizes": [8, 16]})
    _, quick = two_rollouts(config, cartpole(), 1)
    _, slow = two_rollouts(config, cartpole(), 1, take_steps)
    assert torch.equal(quick.action, slow.action)
    assert torch.equal(quick.starts, slow.starts)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
@pytest.mark.parametrize("case", ["zeros", "a rate of 0", "at the norm", "zeros that had moments", "rates that differ"])
def test_one_call_for_all_parameters_on_its_kinks(kind, case):
    """Nothing to do, a norm of exactly what is allowed, groups that differ: by one call as by the optimizer."""
    found = []
    for flat in (True, False):
        config = made(BOX, ppo__optimizer=kind, ppo__weight_decay=0.1 if kind == "adamw" else 0.0)
        state, _, _ = state_and_batch(config)
        parameters = list(state.model.parameters())
        side_by_side = FlatParameters(parameters) if flat else None
        for group in state.optimizer.param_groups:
            rate = 0.02 if case == "rates that differ" and group["role"] == "actor" else 0.01
            group["lr"] = 0.0 if case == "a rate of 0" else rate
        for step in range(3):
            for number, parameter in enumerate(parameters):
                gradient = torch.zeros_like(parameter)
                if case == "at the norm" and number in (0, 1):
                    gradient.view(-1)[0] = (3.0, 4.0)[number]  # the norm is exactly 5
                elif case in ("a rate of 0", "rates that differ") or (case == "zeros that had moments" and step == 0):
                    gradient.fill_(0.25)
                if flat:
                    parameter.grad.copy_(gradient)
                else:
                    parameter.grad = gradient
            if side_by_side is not None:
                norm = flat_step(state.optimizer, side_by_side, 5.0)
            else:
                norm = gradient_step(state.optimizer, 5.0)
        kept = [p.detach() for p in parameters] + [p.grad for p in parameters]
        kept += [state.optimizer.state[p][name] for p in parameters for name in ("exp_avg", "exp_avg_sq", "step")]
        found.append((norm, kept))
    # a norm is a sum of squares over all parameters, a step a dozen operations
    torch.testing.assert_close(found[0][0], found[1][0], rtol=rounding(torch.float32, 64), atol=0.0)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=rounding(torch.float32, 64), atol=1e-9)
