"""Tests of bodies: inputs of each, privileged keys, registered bodies, no extra operations for a single vector."""

from __future__ import annotations

import itertools

import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ppo_lab.config import ModelConfig
from ppo_lab.errors import ConfigError
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.models.networks import BODIES, MLP, count_parameters, make_body, make_input, register_body
from ppo_lab.models.networks.mlp import TanhLayers
from tests.models.networks.test_observation import ANY, box, picture, sample

SCENE = spaces.Dict({**ANY.spaces, "camera": picture(36, 40, 3)})


def build(space, **settings):
    torch.manual_seed(0)
    config = ModelConfig(**{"attention_size": 16, "hidden_sizes": (8,), **settings})
    inputs = make_input(space, config)
    return inputs, make_body(inputs.space, config, config.privileged)


def model(space, **settings):
    torch.manual_seed(0)
    settings = {"attention_size": 16, "hidden_sizes": (8,), **settings}
    return ActorCritic(ModelConfig(**settings), space, spaces.Discrete(4))


@pytest.fixture
def own_bodies():
    """Remove the names that a test registered after it."""
    before = dict(BODIES)
    yield
    BODIES.clear()
    BODIES.update(before)


@pytest.mark.parametrize("body", ["mlp", "cnn", "cnn_small", "impala", "entities"])
@pytest.mark.parametrize("hidden_sizes", [(), (8, 6)])
def test_every_body_reads_every_key(body, hidden_sizes):
    inputs, net = build(SCENE, body=body, hidden_sizes=hidden_sizes, activation="elu")
    obs = sample(SCENE, 7)
    obs["units_mask"][:] = 1
    base = inputs(obs)
    features = net(base)
    assert features.shape == (7, net.num_features)
    if hidden_sizes:
        assert net.num_features == 6
    for key, value in base.items():
        other = net({**base, key: ~value if value.dtype == torch.bool else value + 1.0})
        assert not torch.allclose(features, other, atol=1e-4), f"{key} has no influence"


@pytest.mark.parametrize("body", ["mlp", "cnn", "cnn_small", "impala", "entities"])
def test_any_leading_dimensions_equal_the_flat_call(body):
    inputs, net = build(SCENE, body=body, normalize_obs=True)
    obs = sample(SCENE, 2, 3)
    flat = net(inputs({key: value.flatten(0, 1) for key, value in obs.items()}))
    assert torch.allclose(net(inputs(obs)).flatten(0, 1), flat, atol=1e-5)
    assert torch.allclose(net(inputs({key: value[1, 1] for key, value in obs.items()})), flat[4], atol=1e-5)


def test_the_nature_network_of_an_atari_agent():
    inputs, net = build(picture(4, 84, 84), body="cnn", hidden_sizes=(512,), activation="relu")
    # Mnih et al. 2015: 77984 in the convolutions, then 3136 -> 512
    assert count_parameters(net) == 77_984 + 3136 * 512 + 512
    assert net(inputs(torch.zeros(2, 4, 84, 84, dtype=torch.uint8))).shape == (2, 512)


def test_parameters_are_counted_once_and_only_those_that_learn():
    layer = nn.Linear(3, 2)
    assert count_parameters(nn.ModuleList([layer, layer])) == 8
    assert count_parameters(nn.Sequential(layer, nn.BatchNorm1d(2))) == 12
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 6
    _, net = build(box(4), hidden_sizes=(64, 64))
    assert count_parameters(net) == 4 * 64 + 64 + 64 * 64 + 64


def test_the_features_are_those_of_the_parts_side_by_side():
    space = spaces.Dict({"a": spaces.Discrete(3), "board": box(3, 4, 2), "z": box(2)})
    inputs, net = build(space, body="cnn_small", hidden_sizes=())
    obs = sample(space, 5)
    expected = [nn.functional.one_hot(obs["a"].long(), 3).float(), net.encoders[1](obs["board"]), obs["z"]]
    assert torch.equal(net(inputs(obs)), torch.cat(expected, -1))


@pytest.mark.parametrize("body", ["mlp", "cnn", "cnn_small", "impala", "entities"])
def test_linear_layers_after_the_encoders_are_orthogonal(body):
    _, net = build(SCENE, body=body, hidden_sizes=(8, 8))
    for layer in net.mlp.layers:
        gram = layer.weight.detach() @ layer.weight.detach().T
        assert torch.allclose(gram, 2 * torch.eye(len(gram)), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "space", "wanted"),
    [
        ("cnn", box(4), "a Box of rank 3, or of integers and rank 2"),
        ("impala", spaces.Dict({"a": box(8, 8), "b": spaces.Discrete(2)}), "a Box of rank 3"),
        ("entities", picture(84, 84, 3), r"a Box of floats \(entities, features\)"),
    ],
)
def test_a_body_for_images_or_sets_needs_one(body, space, wanted):
    with pytest.raises(ConfigError, match=f"model.body: {body} needs {wanted}.*use mlp"):
        build(space, body=body)


def test_an_unknown_body_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"no body 'impalla'; did you mean 'impala'\?; known: mlp, cnn, cnn_small, "):
        build(box(4), body="impalla")
    with pytest.raises(ConfigError, match=r"no body 'xyz'; known: mlp, .*entities; ppo_lab.register_body"):
        make_body(box(4), ModelConfig(body="xyz"))


PRIVILEGED = ("camera", "pose", "units")


@pytest.mark.parametrize("body", ["mlp", "cnn_small", "entities"])
def test_privileged_keys_reach_the_critic_and_not_the_actor(body):
    m = model(ANY, body=body, privileged=PRIVILEGED)
    obs = sample(ANY, 6)
    obs["units_mask"][:] = 1
    inputs = m.features(obs)
    inputs = {key: x if x.dtype == torch.bool else x.requires_grad_() for key, x in inputs.items()}
    floats = {key: x for key, x in inputs.items() if x.requires_grad}
    actor = torch.autograd.grad(m.actor_body(inputs).sum(), list(floats.values()), allow_unused=True)
    critic = torch.autograd.grad(m.critic_body(inputs).sum(), list(floats.values()), allow_unused=True)
    hidden = {*PRIVILEGED, "units_mask"}
    for key, to_actor, to_critic in zip(floats, actor, critic, strict=True):
        assert (to_actor is None) == (key in hidden), key
        assert to_critic is not None, key
        assert to_critic.any(), key
    other = sample(ANY, 6)
    changed = {**obs, **{key: other[key] for key in hidden}}
    starts = torch.zeros(6, dtype=torch.bool)
    assert torch.equal(m.step(obs, None, starts)[0].mode(), m.step(changed, None, starts)[0].mode())
    assert torch.equal(m.actor_body(m.features(obs)), m.actor_body(m.features(changed)))
    assert not torch.allclose(m.value(obs), m.value(changed))


def test_a_critic_may_see_the_only_image():
    m = model(spaces.Dict({"state": box(8, 8, 3), "v": box(2)}), body="cnn_small", privileged=("state",))
    assert m.value({"state": torch.rand(2, 8, 8, 3), "v": torch.rand(2, 2)}).shape == (2,)


def test_a_body_of_ones_own(own_bodies):
    seen = []

    class Mine(nn.Module):
        def __init__(self, space, config):
            super().__init__()
            seen.append({key: leaf.shape for key, leaf in space.spaces.items()})
            self.num_features = config.hidden_sizes[0]
            self.layer = nn.Linear(3, self.num_features)

        def forward(self, inputs):
            return self.layer(inputs["camera"].mean((-3, -2)))

    register_body("mine", Mine)
    m = model(ANY, body="mine", hidden_sizes=(5,), privileged=("units",))
    shapes = {"camera": (8, 9, 3), "count": (2,), "door": (3,), "flags": (4,), "pose": (3,), "team": (5,)}
    assert seen == [shapes, {**shapes, "units": (4, 2), "units_mask": (4,)}]
    given = []
    m.actor_body.body.register_forward_pre_hook(lambda _, args: given.append(args[0].keys()))
    obs = sample(ANY, 2)
    m.step(obs, None, torch.zeros(2, dtype=torch.bool))
    assert given == [shapes.keys()]
    assert m.value(obs).shape == (2,)
    twin = model(ANY, body="mine", hidden_sizes=(5,), privileged=("units",))
    nn.init.zeros_(twin.critic_body.layer.weight)
    twin.load_state_dict(m.state_dict())
    assert torch.equal(twin.value(obs), m.value(obs))


def test_a_plain_space_gives_ones_own_body_a_tensor(own_bodies):
    class Mine(nn.Module):
        num_features = 3

        def __init__(self, space, config):
            super().__init__()
            assert space.shape == (2, 3)

        def forward(self, inputs):
            return inputs.mean(-2)

    register_body("mine", Mine)
    inputs, net = build(box(2, 3), body="mine")
    assert net(inputs(torch.ones(4, 2, 3))).tolist() == [[1.0] * 3] * 4


def test_registering_again_takes_the_place_and_built_in_names_are_kept(own_bodies):
    register_body("mine", lambda space, config: MLP(space.shape[0], (3,), "tanh"))
    assert build(box(2), body="mine")[1].num_features == 3
    register_body("mine", lambda space, config: MLP(space.shape[0], (4,), "tanh"))
    assert build(box(2), body="mine")[1].num_features == 4
    with pytest.raises(ConfigError, match="'cnn' is a built-in body"):
        register_body("cnn", lambda space, config: nn.Identity())
    register_body("forgetful", lambda space, config: nn.Linear(2, 3))
    with pytest.raises(ConfigError, match="Linear has no num_features"):
        build(box(2), body="forgetful")


@pytest.mark.parametrize("body", ["mlp", "cnn", "cnn_small", "impala", "entities"])
def test_half_precision_is_near_and_statistics_stay_float32(body):
    inputs, net = build(SCENE, body=body, normalize_obs=True, hidden_sizes=(16,))
    obs = sample(SCENE, 6)
    inputs.refresh(obs)
    exact = net(inputs(obs))
    with torch.autocast("cpu", torch.bfloat16):
        read = inputs(obs)
        half = net(read)
        half.float().sum().backward()
        assert torch.equal(net(read), half)  # the same in a second call, with warm caches
    assert all(x.dtype in (torch.float32, torch.bool) for x in read.values())
    assert torch.allclose(half.float(), exact, atol=0.1)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("body", ["mlp", "cnn", "cnn_small", "impala", "entities"])
def test_training_and_evaluation_mode_are_the_same_network(body):
    inputs, net = build(SCENE, body=body)
    obs = inputs(sample(SCENE, 4))
    assert torch.equal(net.train()(obs), net.eval()(obs))


class Operations(TorchDispatchMode):
    """The names of the operations that torch runs in this context."""

    def __enter__(self):
        self.names = []
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function._overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("normalize", "first"), [(False, []), (True, ["sub", "mul", "clamp_"])])
def test_a_lone_vector_costs_its_linear_layers_and_nothing_else(normalize, first):
    inputs, net = build(box(4), hidden_sizes=(64, 64), normalize_obs=normalize)
    assert type(net) is MLP
    obs = torch.randn(8, 4)
    with torch.no_grad(), Operations() as operations:
        net(inputs(obs))
    products = [name for name in operations.names if name not in ("reshape", "view", "detach", "tanh")]
    assert products == [*first, *["t", "addmm"] * 2]
    if not normalize:
        assert inputs(obs) is obs


def test_initial_weights_of_a_lone_vector_are_those_of_the_mlp_alone():
    torch.manual_seed(0)
    alone = MLP(4, (8,), "tanh")
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), build(box(4))[1].parameters(), strict=True))


@pytest.mark.parametrize("sizes", [(5,), (5, 3), (6, 6, 2)])
@pytest.mark.parametrize("wants_input", [False, True])
def test_tanh_layers_have_the_gradient_of_what_they_compute(sizes, wants_input):
    torch.manual_seed(1)
    widths = [4, *sizes]
    parameters = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for i, o in itertools.pairwise(widths)
        for shape in ((o, i), (o,))
    ]
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=wants_input)
    assert torch.autograd.gradcheck(TanhLayers.apply, (x, *parameters))


@pytest.mark.parametrize("batch", [(), (6,), (2, 6), (0,)])
def test_an_mlp_in_numpy_is_the_mlp_of_torch(batch, monkeypatch):
    torch.manual_seed(1)
    net, x = MLP(4, (16, 8), "tanh"), torch.randn(*batch, 4, requires_grad=True)
    weight = torch.randn(*batch, 8)
    found = []
    for quick in (True, False):
        if not quick:
            monkeypatch.setattr(MLP, "_in_numpy", lambda *_: False)
        features = net(x)
        assert ("TanhLayers" in str((features.grad_fn, features.grad_fn.next_functions))) == quick
        found.append([features, *torch.autograd.grad((features * weight).sum(), [x, *net.parameters()])])
    assert all(torch.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(*found, strict=True))


def test_what_numpy_cannot_do_is_left_to_torch():
    x = torch.randn(3, 4)
    assert MLP(4, (8,), "tanh")._in_numpy(x)
    assert not MLP(4, (8,), "elu")._in_numpy(x)
    assert not MLP(4, (), "tanh")._in_numpy(x)
    assert not MLP(4, (8,), "tanh")._in_numpy(x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not MLP(4, (8,), "tanh")._in_numpy(x)
