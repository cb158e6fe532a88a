"""What is captured asks the device for nothing: shown without a GPU, on torch's device "meta".

A tensor there has a shape and no numbers, so that whatever wants to know one raises (`.item()`, `if tensor`, an index
by a mask), and so does an operation with a tensor that lies on the CPU. What a GPU would allow and a capture not,
copies from and to the host, is refused by `OnOneDevice`.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from environment import BATCHED
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.engine.graph_minibatch import GraphMinibatch
from ppo_lab.engine.graph_rollout import GraphRollout
from ppo_lab.ppo import state
from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.ppo.state import initial_state
from ppo_lab.trees import apply, at

META = torch.device("meta")
SYNCHRONISES = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero", "item"}


class OnOneDevice(TorchDispatchMode):
    """Raises where the host would wait for the device, numbers decide about a shape, or one copies to the other."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in SYNCHRONISES or any(name.startswith(f"{each}_") for each in ("unique", "nonzero")):
            raise AssertionError(f"the host waits for the device in {func}")
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [each for each in args[1] if each is not None and each.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"numbers decide about a shape in {func}"
        devices = {each.device.type for each in _tensors((args, kwargs))}
        if "device" in kwargs and kwargs["device"] is not None:
            devices.add(torch.device(kwargs["device"]).type)
        assert devices <= {"meta"}, f"{func} is about {devices}"
        if name in ("exponential_", "_fused_adam_", "_fused_adamw_", "_fused_sgd_"):
            return args[0] if name == "exponential_" else None  # torch has none of these for meta tensors
        return func(*args, **kwargs)


class NoNumbersFromPython(TorchFunctionMode):
    """Raises where a tensor is made of Python's numbers: on a GPU that is a copy from the host."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor), f"{func} copies from the host"
        return func(*args, **(kwargs or {}))


@contextmanager
def capturing():
    with NoNumbersFromPython(), OnOneDevice():
        yield


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [t for each in value for t in _tensors(each)] if isinstance(value, (list, tuple, type({}.values()))) else []


class Generator(torch.Generator):
    """One on the CPU, whatever it was asked for."""

    def __new__(cls, device=None):
        return super().__new__(cls)


@pytest.fixture(autouse=True)
def meta(monkeypatch):
    """There is no generator and no gradient scaler for meta tensors, and fused optimizers refuse them."""
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(state, "Generator", Generator)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    monkeypatch.setattr(state, "GradScaler", lambda device, enabled: None)
    for name in ("adam", "sgd"):  # `torch.optim` hides the modules
        monkeypatch.setattr(sys.modules[f"torch.optim.{name}"], "_device_dtype_check_for_fused", lambda *_, **__: None)


def moved(each):
    """An environment with all of its tensors on META: making this one asks which columns there are."""
    own = each if isinstance(each, dict) else vars(each)
    for name, value in own.items():
        if isinstance(value, torch.Tensor):
            own[name] = value.to(META)
        elif isinstance(value, dict) or type(value).__module__.startswith("environment"):
            moved(value)
    if "device" in own:
        each.device = META
    return each


def made(env_id, kwargs, changes, N=3, T=4):
    config = override(Config(), {"model.hidden_sizes": [8], "env.num_envs": N, "ppo.num_steps": T, **changes})
    envs = moved(BATCHED[env_id](N, **kwargs)) if "Spaces" in env_id else BATCHED[env_id](N, device=META, **kwargs)
    state = initial_state(config, envs)
    rollout = Rollout.empty(T, N, state.obs, state.model, T)
    return config, envs, state, rollout


def batch_of(rollout):
    """The rollout as one minibatch: (1, T * N), or one chunk each with memory."""
    obs, zeros = at(rollout.obs, slice(0, len(rollout))), torch.zeros_like(rollout.reward)
    columns = Batch(obs, rollout.action, rollout.log_prob, rollout.value, zeros, zeros, rollout.starts)
    if rollout.memory:
        return columns._replace(memory=at(rollout.memory, 0))
    return columns.map(lambda column: column.flatten(0, 1).unsqueeze(0))


ENVS = [
    ("ppo_lab/CartPole-v1", {}),
    ("ppo_lab/CartPoleNoVelocity-v1", {}),
    ("ppo_lab/Recall-v0", {}),
    ("ppo_lab/Leak-v0", {}),
    *[("ppo_lab/Catch-v0", {"observation": each}) for each in ("vector", "pixels", "entities")],
    *[("ppo_lab/Spaces-v0", {"observation": each}) for each in ("vector", "multidiscrete", "set", "dict")],
    *[("ppo_lab/Spaces-v0", {"action": each, "masked": True}) for each in ("discrete", "multidiscrete", "multibinary")],
    ("ppo_lab/Spaces-v0", {"action": "box"}),
    ("ppo_lab/TwoState-v0", {}),
]
MODELS = {
    "mlp": {},
    "normalised": {"model.normalize_obs": True, "model.normalize_value": True, "model.shared": True},
    "gru": {"model.core": "gru", "model.core_size": 8},
    "lstm": {"model.core": "lstm", "model.core_size": 8, "model.core_layers": 2, "model.shared": True},
    "window": {"model.core": "window", "model.core_size": 8},
    "adamw": {"ppo.optimizer": "adamw", "ppo.weight_decay": 0.1, "ppo.dual_clip": 3.0, "ppo.ent_coef": 0.01},
    "sgd": {"ppo.optimizer": "sgd", "ppo.value_clip_coef": 0.2},
}
HEADS = {
    "state": {"model.std": "state"},
    "gsde": {"model.std": "gsde"},
    "squashed": {"model.distribution": "squashed"},
    "beta": {"model.distribution": "beta"},
}
BODIES = [
    ({"observation": "pixels"}, {"model.body": "cnn_small"}),
    ({"observation": "entities"}, {"model.body": "entities", "model.attention_layers": 1}),
]
CASES = [
    *[(*env, {}) for env in ENVS],
    *[("ppo_lab/CartPole-v1", {}, changes) for changes in MODELS.values()],
    *[("ppo_lab/Spaces-v0", {"action": "box"}, changes) for changes in HEADS.values()],
    *[("ppo_lab/Catch-v0", *each) for each in BODIES],
]


@pytest.mark.parametrize(("env_id", "kwargs", "changes"), CASES, ids=str)
def test_a_rollout_step_stays_on_the_device(env_id, kwargs, changes):
    _, envs, state, rollout = made(env_id, kwargs, changes)
    step = GraphRollout(envs, state.model, state, rollout)
    with capturing(), torch.no_grad():
        step._act()


@pytest.mark.parametrize(("env_id", "kwargs", "changes"), CASES, ids=str)
def test_a_minibatch_step_stays_on_the_device(env_id, kwargs, changes):
    config, _, state, rollout = made(env_id, kwargs, changes)
    step = GraphMinibatch(state.model, state.optimizer)
    batch = batch_of(rollout)
    with capturing():
        loss, norm = step(batch, config.ppo)
        step(batch, config.ppo)
    assert norm.shape == loss.total.shape == ()


def test_what_asks_the_device_is_found():
    config, _, state, rollout = made("ppo_lab/CartPole-v1", {}, {"model.core": "gru"})
    step = GraphMinibatch(state.model, state.optimizer)
    batch = batch_of(rollout)
    state.model.actor_core.unrolled = False  # it asks where episodes start
    with capturing(), pytest.raises((AssertionError, RuntimeError), match=r"waits for the device|meta"):
        step(batch, config.ppo)


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x + torch.ones(3),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x.cpu(),
        lambda x: torch.tensor([1.0, 2.0, 3.0], device=META),
    ],
)
def test_the_mode_sees_every_way_to_ask(ask):
    x = torch.zeros(3, device=META)
    with capturing(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        ask(x)


def test_the_copies_of_the_memory_are_separate():
    _, envs, state, rollout = made("ppo_lab/CartPole-v1", {}, MODELS["gru"])
    step = GraphRollout(envs, state.model, state, rollout)
    assert all(apply(lambda a, b: a is not b, step.memory, state.memory).values())
