"""Network bodies: from an observation to features. Which body a config asks for is decided in `BODIES`.

inputs = make_input(observation_space, config)      # observation -> floats; one for actor and critic
body = make_body(inputs.space, config)              # floats -> (*batch, body.num_features)
features = body(inputs(obs))
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

from gymnasium import Space
from torch import nn

from ppo_lab.config import ModelConfig
from ppo_lab.envs.spaces import Shaped, kind_of, leaf_spaces
from ppo_lab.errors import ConfigError
from ppo_lab.models.networks.entities import SetEncoder
from ppo_lab.models.networks.images import impala_cnn, plain_cnn, small_cnn
from ppo_lab.models.networks.mlp import ACTIVATIONS, MLP, orthogonal, width
from ppo_lab.models.networks.observation import DictInput, LeafInput, ObsInput, visible
from ppo_lab.models.networks.trunk import Blinkers, make_trunk

Factory = Callable[[Space, ModelConfig], nn.Module]


class Body(NamedTuple):
    """How a body is made, and what reaches it in its own shape; all other observations reach it as vectors."""

    make: Factory
    keeps: tuple[Shaped, ...]


BUILT_IN = {
    "mlp": Body(make_trunk, ()),
    "cnn": Body(partial(make_trunk, encoder=plain_cnn), ("image",)),
    "cnn_small": Body(partial(make_trunk, encoder=small_cnn), ("image",)),
    "impala": Body(partial(make_trunk, encoder=impala_cnn), ("image",)),
    "entities": Body(partial(make_trunk, encoder=SetEncoder), ("set",)),
}
BODIES = dict(BUILT_IN)  # with those of `register_body`


def register_body(name: str, factory: Factory) -> None:
    """Make `model.body: <name>` mean a network of your own; again with the same name takes its place.

        class Mine(torch.nn.Module):
            def __init__(self, space, config):
                super().__init__()
                self.layer = torch.nn.Linear(space.shape[0], 32)
                self.num_features = 32

            def forward(self, inputs):
                return self.layer(inputs).relu()

        ppo_lab.register_body("mine", Mine)

    factory(space, config) gives a module with the attribute `num_features` and forward(inputs) -> (*batch,
    num_features) for any leading dimensions: (N,) while acting, (L, B) while training. `space` is what comes in: a Box
    of floats for a tensor, a Dict of them for a dictionary, without keys that this network must not see. Images and
    sets keep their shape (uint8 images are in [0, 1]), everything else is one vector. `hidden_sizes` are yours to use.
    A process that resumes or loads such a run has to register the name too.

    Raises ConfigError for the name of a built-in body.
    """
    if name in BUILT_IN:
        raise ConfigError(f"register_body: {name!r} is a built-in body; take another name")
    BODIES[name] = Body(factory, ("image", "set"))


def make_input(space: Space, config: ModelConfig) -> ObsInput:
    """Make the module that turns observations of a (flat) `space` into what the body of `config` takes.

    Raises EnvError for a space that no network can read; ConfigError for an unknown body, and for one that looks at
    images or sets where there are none.
    """
    name, body = config.body, find_body(config.body)
    leaves = leaf_spaces(space)
    if name in BUILT_IN and body.keeps and not any(kind_of(leaf) in body.keeps for leaf in leaves.values()):
        wanted = {"image": "a Box of rank 3, or of integers and rank 2", "set": "a Box of floats (entities, features)"}
        raise ConfigError(f"model.body: {name} needs {wanted[body.keeps[0]]} in the observation, got {space}; use mlp")
    make = LeafInput if list(leaves) == [""] else DictInput
    return make(space, config.normalize_obs, config.obs_clip, body.keeps)


def make_body(space: Space, config: ModelConfig, hidden: Collection[str] = ()) -> nn.Module:
    """Make the body of `config` for inputs in `space` (of an ObsInput): (*batch, *inputs) -> (*batch, num_features).

    hidden: keys of the inputs that this body does not see.
    Raises ConfigError for an unknown body, a key that is not there, images that are too small for the body, and a
    registered body without num_features.
    """
    seen = visible(space, hidden)
    module = find_body(config.body).make(seen, config)
    width(module)  # a registered body may have forgotten to say
    return Blinkers(module, tuple(leaf_spaces(seen))) if hidden else module


def find_body(name: str) -> Body:
    """Return the body of this name. Raise ConfigError, with the nearest and all known names, if there is none."""
    if name not in BODIES:
        close = difflib.get_close_matches(name, BODIES, n=1)
        nearest = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"model.body: no body {name!r}{nearest}; known: {', '.join(BODIES)}; ppo_lab.register_body adds your own"
        )
    return BODIES[name]


def count_parameters(module: nn.Module) -> int:
    """Count the numbers that are learned, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


__all__ = [
    "ACTIVATIONS",
    "BODIES",
    "MLP",
    "Body",
    "DictInput",
    "LeafInput",
    "ObsInput",
    "count_parameters",
    "find_body",
    "make_body",
    "make_input",
    "orthogonal",
    "register_body",
    "visible",
    "width",
]
