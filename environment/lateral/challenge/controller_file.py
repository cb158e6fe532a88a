"""Export a policy as one Python file that the challenge's simulator runs without torch and without this package.

The file is assembled from source that is used here too: all of `environment.lateral.driver`, which also computes the
environment's observations and steering; PID; and `official_controller`. Only settings and weights are added.
"""

from __future__ import annotations

import base64
import importlib.util
import inspect
import tempfile
import textwrap
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch

from ppo_lab.errors import ConfigError, RunError
from ppo_lab.evaluation.policy import Policy
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.models.distributions import BetaHead, GaussianHead, SquashedHead
from ppo_lab.models.networks import ACTIVATIONS, MLP, LeafInput
from ppo_lab.runs.files import disk, replace
from ppo_lab.runs.run import find_checkpoint, look_up_run

from ...lateral_env import CHOICES
from .. import driver
from ..controllers import PidController
from ..rules import CONTEXT, CONTROL_START, PREVIEW
from .official_controller import Controller, Network, activate, preview
from .policy_controller import DEFAULTS, ENV, policy_and_modes

FIRST_LINE = "# A controller for comma.ai's controls challenge, written by ppo_lab"  # marks exported files
TOLERANCE = 1e-6  # between the policy's action and the file's, both in float64; the action is within +-1


class Actor(NamedTuple):
    """The parts of a model that the file needs."""

    layers: tuple[int, ...]  # number of inputs, units of each hidden layer, number of outputs
    activation: str
    distribution: str
    obs_clip: float | None
    weights: np.ndarray  # float32, flat, in the order of `official_controller.WEIGHTS`


class Origin(NamedTuple):
    """A policy, its observation and action modes, and its name in messages."""

    policy: Policy
    observation: str
    action: str
    name: str


def export_controller(
    run: str | Path | Policy,
    file: str | Path,
    at: int | str = "latest",
    observation: str | None = None,
    action: str | None = None,
) -> Path:
    """Write a policy as a file for the challenge's folder `controllers/`, with `class Controller(BaseController)`.

    It needs NumPy and nothing else. Its actions equal those of `Policy.predict(obs)`; before the file is written, they
    are compared on random observations in float64, of which a float32 or half-precision model gives rounded values.

    Args:
        run: The folder of a run, its name under run.root of config.yaml, or a policy.
        file: Path to write, e.g. `ppo.py`; an existing file is replaced.
        at: The checkpoint of a run: a step, "latest" or "best".
        observation, action: How the policy was trained (None: "compact", "delta"). Not allowed with a run, which has
            them in its config.

    Returns: The file.

    Raises:
        ConfigError: The model cannot be exported: it has a core, or a body other than an MLP.
        RunError: No such run or checkpoint, one that `load_controller` rejects too, the file cannot be written, or its
            actions differ from the policy's.
    """
    origin = _of_policy(run, observation, action) if isinstance(run, Policy) else _of_run(run, at, observation, action)
    actor = read_actor(origin.policy.model, origin.observation)
    text = controller_text(actor, origin)
    with tempfile.TemporaryDirectory() as folder:  # a wrong file never appears under its final path
        trial = Path(folder) / "controller.py"
        trial.write_text(text, encoding="utf-8")
        apart = difference(import_controller(trial), origin.policy)
    if not apart < TOLERANCE:  # also NaN
        raise RunError(f"the controller of {origin.name} differs from the policy by {apart:g}: nothing was written")
    path = Path(file)
    with disk(f"write {path}"):
        replace(path, text.encode())
    return path


def _of_policy(policy: Policy, observation: str | None, action: str | None) -> Origin:
    modes = {"observation": observation or DEFAULTS["observation"], "action": action or DEFAULTS["action"]}
    for key, value in modes.items():
        if value not in CHOICES[key]:
            raise ConfigError(f"export_controller: {key}={value!r}; allowed are {', '.join(CHOICES[key])}")
    return Origin(policy, **modes, name="a policy")


def _of_run(run: str | Path, at: int | str, observation: str | None, action: str | None) -> Origin:
    if observation is not None or action is not None:
        raise ConfigError("export_controller: observation and action are for a policy; a run has them in its config")
    folder = look_up_run(run)
    policy, modes = policy_and_modes(folder, at)
    step = int(find_checkpoint(folder, at)[0].name)
    return Origin(policy, **modes, name=f"run {folder.name} after {step:,} steps")


def read_actor(model: ActorCritic, observation: str) -> Actor:
    """Read layers and weights of the actor. Raises ConfigError for a model that cannot be exported."""
    features, body, head = model.features, model.actor_body, model.actor_head
    size = driver.SIZES[observation]
    if not isinstance(features, LeafInput) or features.obs_shape != (size,):
        shape = getattr(features, "obs_shape", "of a dictionary")
        raise ConfigError(f"export_controller: observation {observation!r} has shape ({size},), the policy's {shape}")
    if model.actor_core is not None:
        raise ConfigError("model.core: a policy with a memory cannot be exported as a controller; train with none")
    if not isinstance(body, MLP):
        raise ConfigError(f"model.body: {type(body).__name__} cannot be exported as a controller; train with mlp")
    names: dict[type, str] = {GaussianHead: "gaussian", SquashedHead: "squashed", BetaHead: "beta"}
    if not isinstance(head, GaussianHead | SquashedHead | BetaHead) or _range(head) != ([-1.0], [1.0]):
        raise ConfigError(f"export_controller: the policy's actions are not those of {ENV}: one number in [-1, 1]")
    last = head.concentration if isinstance(head, BetaHead) else getattr(head, "normal", head).mean
    linear = [*body.layers, last]
    tensors = [tensor for layer in linear for tensor in (layer.weight, layer.bias)]
    normalizer = features.normalizer
    if normalizer is not None:
        tensors = [normalizer.center, normalizer.scale, *tensors]
    return Actor(
        layers=(size, *(layer.out_features for layer in linear)),
        activation={function: name for name, function in ACTIVATIONS.items()}[body.activation],
        distribution=names[type(head)],
        obs_clip=None if normalizer is None else normalizer.clip,
        weights=np.concatenate([tensor.detach().cpu().float().numpy().ravel() for tensor in tensors]),
    )


def _range(head: GaussianHead | SquashedHead | BetaHead) -> tuple[list[float], list[float]]:
    return head.box.low.tolist(), head.box.high.tolist()


def controller_text(actor: Actor, origin: Origin) -> str:
    """Return the text of the whole file."""
    weights = "\n".join(textwrap.wrap(base64.b64encode(actor.weights.astype("<f4").tobytes()).decode(), 116))
    settings = (
        f"CONTEXT, CONTROL_START, PREVIEW = {CONTEXT}, {CONTROL_START}, {PREVIEW}\n"
        f"OBSERVATION, ACTION = {origin.observation!r}, {origin.action!r}\n"
        f"LAYERS = {actor.layers!r}\n"
        f"ACTIVATION, DISTRIBUTION = {actor.activation!r}, {actor.distribution!r}\n"
        f"OBS_CLIP = {actor.obs_clip!r}\n"
    )
    parts = (PidController, activate, Network, preview, Controller)
    return "\n\n".join(
        [
            f"{FIRST_LINE} from {origin.name}.\n# Put it into the folder controllers/; it needs only NumPy.\n"
            + inspect.getsource(driver),
            IMPORTS + "\n" + settings,
            *(inspect.getsource(part) for part in parts),
            f'WEIGHTS = """\n{weights}\n"""\n',
        ]
    )


IMPORTS = """\
import base64
import math

import numpy as np

try:
    from . import BaseController
except ImportError:  # imported outside the challenge
    BaseController = object
"""


def import_controller(file: str | Path) -> ModuleType:
    """Import an exported file as a module, under a private name and without the challenge. Raises RunError."""
    spec = importlib.util.spec_from_file_location("_exported_controller", file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise RunError(f"no controller at {file}; expected a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def difference(module: ModuleType, policy: Policy) -> float:
    """Return the largest difference between the actions of an exported file and the policy on random observations."""
    exact = Policy(policy.model)
    exact.model.double().cpu()
    exact.model.autocast_dtype = None
    rng = np.random.default_rng(0)
    shape = (256, int(module.LAYERS[0]))
    obs = np.concatenate([rng.uniform(-5, 5, shape), rng.normal(size=shape).clip(-5, 5)]).astype(np.float32)
    starts = torch.ones(len(obs), dtype=torch.bool)
    action, _ = exact.act(torch.from_numpy(obs).double(), exact.initial_memory(len(obs)), starts)
    assert isinstance(action, torch.Tensor)
    return float(np.abs(module.Network()(obs) - action[:, 0].numpy()).max())
