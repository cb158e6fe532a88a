"""Network bodies, which compute features from observations. `BODIES` lists them by their name in `model.body`.

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
from ppo_lab.models.networks.trunk import WithoutKeys, make_trunk

Factory = Callable[[Space, ModelConfig], nn.Module]


class Body(NamedTuple):
    """A kind of body: its factory, and the kinds of observations that keep their shape; all others become vectors."""

    make: Factory
    keeps: tuple[Shaped, ...]


BUILT_IN = {
    "mlp": Body(make_trunk, ()),
    "cnn": Body(partial(make_trunk, encoder=plain_cnn), ("image",)),
    "cnn_small": Body(partial(make_trunk, encoder=small_cnn), ("image",)),
    "impala": Body(partial(make_trunk, encoder=impala_cnn), ("image",)),
    "entities": Body(partial(make_trunk, encoder=SetEncoder), ("set",)),
}
BODIES = dict(BUILT_IN)  # and those added by `register_body`


def register_body(name: str, factory: Factory) -> None:
    """Register a network of your own as `model.body: <name>`. Registering the same name again replaces it.

        class Mine(torch.nn.Module):
            def __init__(self, space, config):
                super().__init__()
                self.layer = torch.nn.Linear(space.shape[0], 32)
                self.num_features = 32

            def forward(self, inputs):
                return self.layer(inputs).relu()

        ppo_lab.register_body("mine", Mine)

    factory(space, config) returns a module with the attribute `num_features` and forward(inputs) -> (*batch,
    num_features) for any leading dimensions: (N,) while acting, (L, B) while training. `space` describes the inputs: a
    Box of floats for a tensor, a Dict of such Boxes for a dictionary, without the keys that this network must not see.
    Images and sets keep their shape (uint8 images are scaled to [0, 1]); everything else is one vector. The network may
    use `hidden_sizes` or ignore it. A process that resumes or loads such a run must register the name as well.

    Raises ConfigError for the name of a built-in body.
    """
    if name in BUILT_IN:
        raise ConfigError(f"register_body: {name!r} is a built-in body; choose another name")
    BODIES[name] = Body(factory, ("image", "set"))


def make_input(space: Space, config: ModelConfig) -> ObsInput:
    """Make the module that converts observations of a (flat) `space` to the inputs of the body of `config`.

    Raises EnvError for a space that no network can read; ConfigError for an unknown body, and for a body that needs an
    image or a set if the observation has none.
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

    hidden: keys of the inputs that this body must not see.
    Raises ConfigError for an unknown body, an unknown key, images that are too small for the body, and a registered
    body without num_features.
    """
    seen = visible(space, hidden)
    module = find_body(config.body).make(seen, config)
    width(module)  # raises if a registered body has no num_features
    return WithoutKeys(module, tuple(leaf_spaces(seen))) if hidden else module


def find_body(name: str) -> Body:
    """Return the body with this name. Raise ConfigError, with the nearest and all known names, if there is none."""
    if name not in BODIES:
        close = difflib.get_close_matches(name, BODIES, n=1)
        nearest = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"model.body: no body {name!r}{nearest}; known: {', '.join(BODIES)}; ppo_lab.register_body adds your own"
        )
    return BODIES[name]


def count_parameters(module: nn.Module) -> int:
    """Count the trainable parameters, shared ones once."""
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
