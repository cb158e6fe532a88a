"""The gradient by hand is the one that autograd finds, whatever the model, the loss and the numbers."""

from __future__ import annotations

import pytest
import torch

from environment.cartpole import CartPole
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.engine import mlp_gradient, mlp_layers
from ppo_lab.engine.flat_adam import flat_step
from ppo_lab.engine.learning import ByHand, ByHandWay
from ppo_lab.envs.making import make_envs
from ppo_lab.models.networks.mlp import MLP
from ppo_lab.ppo.batches import minibatches
from ppo_lab.ppo.events import MinibatchStepped
from ppo_lab.ppo.learner import Autograd
from ppo_lab.ppo.optimizer import gradient_step
from ppo_lab.ppo.rollout import Rollout, collect
from ppo_lab.ppo.state import initial_state
from ppo_lab.training.trainer import Trainer
from tests.engine.learners import learner_of
from tests.scripted import Script
from tests.tolerance import rounding

CARTPOLE = {"env.id": "ppo_lab/CartPole-v1", "env.num_envs": 4}
BOX = {"env.id": "ppo_lab/Spaces-v0", "env.kwargs": {"action": "box"}, "env.num_envs": 4}
ROWS = 33  # times 4 environments, in 3 minibatches: their sizes differ by none


def made(where, **changes):
    small = {"model.hidden_sizes": [8, 16], "ppo.num_steps": ROWS, "ppo.num_minibatches": 3, "run.root": None}
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return override(Config(), small | where | changes)


def state_and_batch(config, spread=0.7):
    """A policy that has moved on from the one of the rollout, and a minibatch whose ratios are far from 1."""
    envs = make_envs(config)
    state, random = initial_state(config, envs), torch.Generator().manual_seed(7)
    rollout = Rollout.empty(ROWS, envs.num_envs, state.obs, state.model)
    collect(envs, state.model, state, rollout)
    state.model.refresh_statistics(rollout.obs, rollout.valid)
    state.model.critic_head.refresh(3.0 + 2.0 * torch.randn(50, generator=random))
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
        rollout.log_prob.add_(spread * torch.randn(rollout.log_prob.shape, generator=random))
        rollout.value.add_(0.3 * torch.randn(rollout.value.shape, generator=random))
    advantage = torch.randn(rollout.value.shape, generator=random)
    batch = next(minibatches(rollout, advantage, rollout.value + advantage, 3, random))
    return state, rollout, batch


def both(config, spread=0.7):
    """Loss and gradients by hand and by autograd, each (loss, [gradients])."""
    state, rollout, batch = state_and_batch(config, spread)
    found = []
    for route in ("auto", "reference"):
        learner = learner_of(state, rollout, config.ppo, route)
        assert isinstance(learner, ByHand if route == "auto" else Autograd)
        loss = learner.gradient(batch)
        zero = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in state.model.parameters()]
        found.append((loss, zero))
    return found


def assert_equal(ours, theirs):
    for name in ours[0]._fields:
        torch.testing.assert_close(getattr(ours[0], name), getattr(theirs[0], name).detach(), atol=1e-6, rtol=1e-5)
    largest = max(gradient.abs().max().item() for gradient in theirs[1])
    assert largest > 1e-3
    for one, other in zip(ours[1], theirs[1], strict=True):  # sums over 44 rows, which may cancel
        limit = rounding(torch.float32, ROWS + 11, other.abs().max().item()) + rounding(torch.float32, 1, largest)
        assert (one - other).abs().max() <= limit


LOSSES = {
    "plain": {},
    "entropy": {"ppo.ent_coef": 0.05},
    "value clip": {"ppo.value_clip_coef": 0.1},
    "dual clip": {"ppo.dual_clip": 1.5},
    "wide clip": {"ppo.clip_coef": 5.0},
    "values normalised": {"model.normalize_value": True, "ppo.value_clip_coef": 0.1},
    "observations normalised": {"model.normalize_obs": True},
}


@pytest.mark.parametrize("where", [CARTPOLE, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_the_gradient_of_autograd(where, shared, activation, loss):
    config = made(where | LOSSES[loss], model__shared=shared, model__activation=activation)
    ours, theirs = both(config)
    assert 0.0 < theirs[0].clip_fraction < 1.0 or loss == "wide clip"
    assert_equal(ours, theirs)


@pytest.mark.parametrize("hidden", [[], [8], [8, 4, 8]])
def test_any_number_of_hidden_layers(hidden):
    assert_equal(*both(made(CARTPOLE, model__hidden_sizes=hidden, ppo__ent_coef=0.01)))


def test_blocks_add_up(monkeypatch):
    config = made(BOX, model__hidden_sizes=[8, 4], ppo__ent_coef=0.01)
    whole = both(config)[0]
    monkeypatch.setattr(mlp_gradient, "BLOCK", 8 * 5)  # 5 rows at a time: of 44 the last block has 4
    assert_equal(both(config)[0], whole)


@pytest.mark.parametrize("narrow", [0, 1000])
@pytest.mark.parametrize("shared", [False, True])
def test_either_product_for_the_first_weights(monkeypatch, narrow, shared):
    monkeypatch.setattr(mlp_layers, "NARROW", narrow)
    assert_equal(*both(made(BOX, model__shared=shared)))


def gradients(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_what_it_leaves_behind_is_anybody_s_to_use():
    """It computes in inference mode, whose own tensors nobody else may change or take a gradient through."""
    config = made(BOX)
    state, rollout, batch = state_and_batch(config)
    learner = learner_of(state, rollout, config.ppo)
    kept = [*learner.gradient(batch), learner.step()]
    kept += [*state.model.parameters(), *(p.grad for p in state.model.parameters())]
    kept += [each for moments in state.optimizer.state.values() for each in moments.values()]
    assert len(kept) > 20
    assert not any(each.is_inference() for each in kept)
    state.optimizer.step()
    state.model.value(batch.obs).sum().backward()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_hooks_of_the_optimizer_run_outside_of_inference_mode(optimizer):
    trainer, seen = Trainer(made(CARTPOLE, ppo__total_timesteps=4 * ROWS * 2, ppo__optimizer=optimizer)), []
    weight = trainer.state.model.actor_body.layers[0].weight
    trainer.state.optimizer.register_step_post_hook(lambda *_: seen.append(weight.detach().clone()))
    updates = iter(trainer)
    next(updates)
    assert seen
    assert not any(each.is_inference() for each in seen)
    trainer.state.model.register_forward_hook(nothing_at_all)  # from now on by autograd
    next(updates)


def test_the_next_update_goes_on_in_the_same_memory():
    config = made(BOX, model__normalize_obs=True, model__normalize_value=True)
    state, rollout, batch = state_and_batch(config)
    way = ByHandWay()
    first = way.learner(state, rollout, config.ppo)
    first.gradient(batch)
    other = override(config, {"ppo.clip_coef": 0.05, "ppo.ent_coef": 0.1, "ppo.vf_coef": 2.0}).ppo
    state.model.refresh_statistics(rollout.obs * 3.0, rollout.valid)
    state.model.critic_head.refresh(rollout.value.flatten() * 5.0)
    again = way.learner(state, rollout, other)
    assert again.found is first.found
    again.gradient(batch)
    found = gradients(state.model).clone()
    learner_of(state, rollout, other).gradient(batch)
    assert torch.equal(found, gradients(state.model))


def transposed(weight):
    return weight.detach().T.contiguous().T


def part_of_a_larger_one(weight):
    return torch.cat([weight.detach(), torch.ones(len(weight), 3)], 1)[:, : weight.shape[1]]


@pytest.mark.parametrize("lies", [transposed, part_of_a_larger_one])
@pytest.mark.parametrize("when", ["before", "between minibatches"])
def test_weights_may_lie_in_memory_in_any_way(lies, when):
    config = made(BOX)
    state, rollout, batch = state_and_batch(config)
    expected = both(config)[1]
    learner = learner_of(state, rollout, config.ppo) if when != "before" else None
    for body in (state.model.actor_body, state.model.critic_body):
        for layer in body.layers:
            layer.weight.data = lies(layer.weight)
    learner = learner or learner_of(state, rollout, config.ppo)
    loss = learner.gradient(batch)
    assert_equal((loss, [parameter.grad for parameter in state.model.parameters()]), expected)


def test_a_square_weight_may_be_turned_in_place():
    config = made(BOX, model__hidden_sizes=[8, 8])
    state, rollout, batch = state_and_batch(config)
    learner = learner_of(state, rollout, config.ppo)
    weight = state.model.actor_body.layers[1].weight
    wanted = weight.detach().T.clone()
    weight.data = weight.data.T
    learner.gradient(batch)
    assert torch.equal(weight, wanted)
    assert weight.is_contiguous()


def test_another_default_dtype_changes_nothing():
    config, found = made(BOX), []
    for dtype in (torch.float32, torch.float64):
        state, rollout, batch = state_and_batch(config)
        torch.set_default_dtype(dtype)
        try:
            learner = learner_of(state, rollout, config.ppo)
            learner.gradient(batch)
            learner.step()
        finally:
            torch.set_default_dtype(torch.float32)
        found.append(torch.cat([p.detach().flatten() for p in state.model.parameters()]))
    assert torch.equal(*found)


def nothing(trainer):
    pass


def reset(trainer):
    """Forget Adam's moments, as is often done."""
    for parameter in trainer.state.model.parameters():
        trainer.state.optimizer.state[parameter] = {}


def others(trainer):
    for moments in trainer.state.optimizer.state.values():
        moments["exp_avg"] = torch.full_like(moments["exp_avg"], 1e-3)


def critic_alone(trainer):
    """A step that somebody takes of their own."""
    for parameter in trainer.state.model.parameter_groups()[0]:
        parameter.grad = None
    trainer.state.optimizer.step()


def with_a_hook(trainer):
    trainer.state.optimizer.register_step_post_hook(nothing_at_all)


def nothing_at_all(*_):
    pass


@pytest.mark.parametrize("touch", [nothing, reset, others, critic_alone, with_a_hook])
@pytest.mark.parametrize(
    "changes", [{}, {"ppo.critic_learning_rate": 1e-2}, {"ppo.optimizer": "adamw", "ppo.weight_decay": 0.1}]
)
def test_what_somebody_does_to_the_optimizer_is_in_the_checkpoint(touch, changes, tmp_path):
    """A run goes on from its checkpoint as if never stopped, whatever was done to Adam's moments before."""
    small = {"run.root": str(tmp_path), "run.name": "whole", "ppo.total_timesteps": 4 * ROWS * 5, "run.keep_last": 9}
    trainer, path = Trainer(made(CARTPOLE | small | changes)), tmp_path / "whole"
    for update in trainer:
        if update.update == 2:
            touch(trainer)
            trainer.save()
    if touch is not with_a_hook:  # torch's own step rounds as ours does, or not
        assert (trainer.fingerprint() == fingerprint_of_untouched(changes)) == (touch is nothing)
    trainer.close()
    forked = Trainer.fork(path, at=4 * ROWS * 2)
    if touch is with_a_hook:
        touch(forked)
    list(forked)
    assert all(map(torch.equal, trainer.state.model.parameters(), forked.state.model.parameters()))
    forked.close()


def fingerprint_of_untouched(changes):
    trainer = Trainer(made(CARTPOLE | changes, ppo__total_timesteps=4 * ROWS * 5))
    list(trainer)
    return trainer.fingerprint()


def other_weight(model):
    layer = model.actor_body.layers[0]
    layer.weight = torch.nn.Parameter(layer.weight.detach() * 2.0)


def other_layer(model):
    model.critic_body.layers[1] = torch.nn.Linear(8, 16)


def other_activation(model):
    for body in (model.actor_body, model.critic_body):
        body.activation = torch.nn.functional.relu


@pytest.mark.parametrize("change", [other_weight, other_layer, other_activation])
def test_memory_of_another_model_is_not_used(change):
    config = made(BOX)
    state, rollout, batch = state_and_batch(config)
    way = ByHandWay()
    last = way.learner(state, rollout, config.ppo)
    change(state.model)
    again = way.learner(state, rollout, config.ppo)
    assert again.found is not last.found
    again.gradient(batch)
    found = gradients(state.model).clone()
    state.model.zero_grad()  # the optimizer does not know a new parameter
    learner_of(state, rollout, config.ppo, "reference").gradient(batch)
    torch.testing.assert_close(found, gradients(state.model), atol=1e-6, rtol=1e-4)


def test_observations_normalised_for_all_rows_at_once_are_the_same():
    config = made(BOX, model__normalize_obs=True)
    state, rollout, _ = state_and_batch(config)
    learner, found = learner_of(state, rollout, config.ppo), []
    assert not torch.allclose(learner.inputs, rollout.obs[:-1])
    for inputs in (learner.inputs, None):
        random = torch.Generator().manual_seed(1)
        batch = next(minibatches(rollout, rollout.value, rollout.reward, 3, random, "minibatch", inputs))
        learner.gradient(batch)
        found.append(gradients(state.model).clone())
    assert torch.equal(*found)


def test_sizes_that_vary_leave_no_memory_behind():
    config = made(CARTPOLE)
    state, rollout, batch = state_and_batch(config)
    learner = learner_of(state, rollout, config.ppo)
    autograd = learner_of(state, rollout, config.ppo, "reference")
    for size in (*range(1, 40), 3, 39):
        few = batch.map(lambda column, size=size: column[:, :size])
        learner.gradient(few)
        found = gradients(state.model).clone()
        autograd.gradient(few)
        torch.testing.assert_close(found, gradients(state.model), atol=1e-6, rtol=1e-4)
    assert len(learner.found.body._rooms) <= mlp_layers.ROOMS


@pytest.mark.parametrize("log_std", [-3.0, 3.0])
def test_log_std_outside_its_bounds_has_no_gradient(log_std):
    config = made(BOX, model__log_std_min=-2.0, model__log_std_max=2.0, ppo__ent_coef=0.1)
    state, rollout, batch = state_and_batch(config)
    with torch.no_grad():
        state.model.actor_head.log_std.fill_(log_std)
    for route in ("auto", "reference"):
        learner_of(state, rollout, config.ppo, route).gradient(batch)
        assert not state.model.actor_head.log_std.grad.any()


def test_a_ratio_of_one_and_equal_advantages_are_no_special_case():
    config = made(CARTPOLE)
    state, rollout, batch = state_and_batch(config)
    with torch.no_grad():
        now, _, _ = state.model.evaluate(batch.obs, batch.action, None, batch.starts)
    batch = batch._replace(log_prob=now, advantage=torch.ones_like(now))
    found = []
    for route in ("auto", "reference"):
        loss = learner_of(state, rollout, config.ppo, route).gradient(batch)
        found.append((loss, [parameter.grad.clone() for parameter in state.model.parameters()]))
    assert_equal(*found)


@pytest.mark.parametrize("broken", ["advantage", "log_prob", "returns", "obs"])
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_step_is_called_off_where_autograd_s_is(broken, number, activation):
    config, found = made(CARTPOLE, model__activation=activation, ppo__value_clip_coef=0.1), []
    for route in ("auto", "reference"):
        state, rollout, batch = state_and_batch(config)
        column = getattr(batch, broken).clone()
        column.view(-1)[0] = number
        before = [parameter.clone() for parameter in state.model.parameters()]
        learner = learner_of(state, rollout, config.ppo, route)
        loss = learner.gradient(batch._replace(**{broken: column}))
        norm = learner.step()
        assert norm.isfinite() or all(map(torch.equal, before, state.model.parameters()))
        found.append([norm.isfinite().item(), loss.total.isfinite().item(), loss.approx_kl.isfinite().item()])
    assert found[0] == found[1]


def test_the_norm_of_one_tensor_is_the_norm_of_all():
    config = made(BOX)
    steps = []
    for route in ("auto", "reference"):
        state, rollout, batch = state_and_batch(config)
        for group in state.optimizer.param_groups:
            group["lr"] = 0.1
        learner = learner_of(state, rollout, config.ppo, route)
        norms = []
        for limit in (0.01, 1e6):
            learner.gradient(batch)
            norms.append(
                flat_step(state.optimizer, learner.found.flat, limit)
                if route == "auto"
                else gradient_step(state.optimizer, limit)
            )
        steps.append((torch.stack(norms), torch.cat([p.detach().flatten() for p in state.model.parameters()])))
    torch.testing.assert_close(*[norms for norms, _ in steps], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(*[weights for _, weights in steps], rtol=0.0, atol=2e-4)  # Adam, lr 0.1


@pytest.mark.parametrize(
    "changes",
    [{"model.core": "gru"}, {"model.precision": "bfloat16"}, {"model.activation": "elu"},
     {"model.std": "state"}, {"model.std": "gsde"}, {"model.distribution": "beta"}],
)  # fmt: skip
def test_what_it_cannot_do_is_left_to_autograd(changes):
    config = made(BOX | changes)
    state, rollout, _ = state_and_batch(config)
    assert isinstance(learner_of(state, rollout, config.ppo), Autograd)


def hooked(model, seen):
    model.actor_body.register_forward_hook(lambda *_: seen.append(1))


def hooked_inside(model, seen):
    model.actor_body.layers[0].register_forward_hook(lambda *_: seen.append(1))


def hooked_backward(model, seen):
    model.critic_head.register_full_backward_hook(lambda *_: seen.append(1))


def watched(model, seen):
    model.critic_head.weight.register_hook(lambda _: seen.append(1))


def frozen(model, seen):
    model.actor_body.layers[0].weight.requires_grad_(False)
    seen.append(1)


def with_a_layer_of_ones_own(model, seen):
    class Mine(torch.nn.Linear):
        def forward(self, x):
            seen.append(1)
            return super().forward(x)

    model.actor_head.logits.__class__ = Mine


def with_a_critic_of_other_shapes(model, seen):
    model.critic_body = MLP(model.critic_body.layers[0].in_features, [5, 16], "tanh")
    seen.append(1)


def with_a_layer_in_common(model, seen):
    model.critic_body.layers[1] = model.actor_body.layers[1]
    seen.append(1)


def with_one_body_for_both(model, seen):
    model.critic_body = model.actor_body
    seen.append(1)


def with_a_critic_of_another_activation(model, seen):
    model.critic_body.activation = torch.sigmoid
    seen.append(1)


def with_another_layer(model, seen):
    class Norm(torch.nn.LayerNorm):
        def forward(self, x):
            seen.append(1)
            return super().forward(x)

    model.actor_body.layers.append(Norm(model.actor_body.num_features))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(
    "change",
    [hooked, hooked_inside, hooked_backward, watched, frozen, with_a_layer_of_ones_own, with_another_layer,
     with_a_critic_of_other_shapes, with_a_layer_in_common, with_one_body_for_both,
     with_a_critic_of_another_activation],
)  # fmt: skip
def test_what_somebody_put_into_the_model_is_respected(change, activation):
    if change is with_another_layer and activation == "tanh":
        pytest.skip("TanhLayers takes layers of weight and bias alone")
    config, seen = made(CARTPOLE, model__activation=activation), []
    state, rollout, batch = state_and_batch(config)
    assert isinstance(learner_of(state, rollout, config.ppo), ByHand)
    change(state.model, seen)
    learner = learner_of(state, rollout, config.ppo)
    assert isinstance(learner, Autograd)
    learner.gradient(batch)
    assert seen
    assert state.model.actor_body.layers[0].weight.grad is not None or change is frozen


def test_hooks_of_the_optimizer_are_called_at_every_step():
    trainer, seen = Trainer(made(CARTPOLE, ppo__total_timesteps=4 * ROWS)), []
    trainer.state.optimizer.register_step_post_hook(lambda *_: seen.append(1))
    (update,) = trainer
    assert len(seen) == update.metrics["update/gradient_steps"] > 1


def rebound(model):
    parameters = list(model.parameters())
    torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(parameters).detach().clone(), parameters)


def cleared(model):
    model.zero_grad()


def used_for_something_else(model):
    model.zero_grad()
    sum(parameter.square().sum() for parameter in model.parameters()).backward()


@pytest.mark.parametrize("touch", [rebound, cleared, used_for_something_else])
def test_who_looks_between_two_minibatches_disturbs_nothing(touch):
    config, weights = made(BOX, ppo__total_timesteps=4 * ROWS * 2), []
    for function in (lambda _: None, touch):
        trainer = Trainer(config)
        for event in trainer.events():
            if isinstance(event, MinibatchStepped):
                function(trainer.state.model)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.state.model.parameters()]))
    assert torch.equal(*weights) or touch is rebound  # in memory aligned otherwise, products round otherwise
    torch.testing.assert_close(*weights, atol=1e-6, rtol=1e-5)


def test_rows_that_only_reset_stay_outside():
    """Next-step autoreset: what is no experience is not in a minibatch, so sizes vary; the largest is made room for."""
    config = made({}, ppo__num_minibatches=2)
    runs = []
    for route in ("auto", "reference"):
        trainer = Trainer(
            override(config, {"ppo.num_steps": 7, "ppo.total_timesteps": 4 * 7 * 3, "run.engine": route}),
            Script(["....", "T...", "..C.", ".C..", "....", "B.T.", "...."], next_step=True),
        )
        sizes = {event.batch.starts.shape[1] for event in trainer.events() if isinstance(event, MinibatchStepped)}
        runs.append(torch.cat([p.detach().flatten() for p in trainer.state.model.parameters()]))
        assert sizes
        assert max(sizes) <= 14
    torch.testing.assert_close(*runs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("minibatches", [5, 132])
def test_minibatches_of_any_size(minibatches):
    """132 rows in 5 parts of 26 and 27, or one by one."""
    runs = []
    for route in ("auto", "reference"):
        config = made(BOX, ppo__num_minibatches=minibatches, ppo__total_timesteps=132, run__engine=route)
        trainer = Trainer(config)
        list(trainer)
        runs.append(torch.cat([p.detach().flatten() for p in trainer.state.model.parameters()]))
    torch.testing.assert_close(*runs, atol=1e-6, rtol=1e-5)


def test_live_changes_are_in_force_in_the_next_update():
    runs = []
    for route in ("auto", "reference"):
        trainer = Trainer(made(CARTPOLE, ppo__total_timesteps=132 * 3, run__engine=route))
        changes = [{"clip_coef": 0.05, "ent_coef": 0.1}, {"vf_coef": 2.0, "max_grad_norm": 0.1}, {}]
        for _, change in zip(trainer, changes, strict=True):
            trainer.set(**change)
        runs.append(torch.cat([p.detach().flatten() for p in trainer.state.model.parameters()]))
    torch.testing.assert_close(*runs, atol=1e-5, rtol=1e-4)


def test_two_trainings_stay_together():
    """The same run by either route, over updates: weights agree to rounding, which early training does not blow up."""
    runs = []
    for route in ("auto", "reference"):
        config = made(CARTPOLE, ppo__total_timesteps=4 * ROWS * 3, run__engine=route, ppo__ent_coef=0.01)
        trainer = Trainer(config, CartPole(4))
        updates = list(trainer)
        runs.append((torch.cat([p.detach().flatten() for p in trainer.state.model.parameters()]), updates))
    torch.testing.assert_close(runs[0][0], runs[1][0], atol=1e-5, rtol=1e-4)
    for one, other in zip(runs[0][1], runs[1][1], strict=True):
        for key in ("loss/policy", "loss/value", "loss/entropy", "update/approx_kl", "update/grad_norm"):
            assert one.metrics[key] == pytest.approx(other.metrics[key], rel=1e-3, abs=1e-6), key
