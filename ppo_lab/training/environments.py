"""The environments of a run: made or passed, and whether a run in them can be resumed exactly."""

from __future__ import annotations

import logging
from typing import NamedTuple

from ppo_lab.config import Config
from ppo_lab.envs.adapters.given import factory_of, resolve_given
from ppo_lab.envs.adapters.running_statistics import warn_of_statistics
from ppo_lab.envs.contract import EnvFactory, Envs
from ppo_lab.envs.making import make_envs, rewound_by_seeds
from ppo_lab.envs.making import why_inexact as why_inexact_alone
from ppo_lab.errors import ConfigError
from ppo_lab.ppo.state import pick_device

LOG = logging.getLogger("ppo_lab")
Given = Envs | EnvFactory | None  # None: what config.env asks for


class Environments(NamedTuple):
    """The environments of a run, and how they were passed."""

    envs: Envs
    given: Given  # what was passed, as `resolve_given` says
    factory: EnvFactory | None  # makes more of them; None: config.env does, or nothing


def prepare_environments(config: Config, given: Given) -> tuple[Config, Environments]:
    """Make the environments of `given` or config.env. Return the settings, updated for `given`, and the environments.

    Raises ConfigError for run.eval_every or env.info_metrics with environments that were passed as objects.
    """
    device = pick_device(config.run.device)
    config, given = resolve_given(config, given, device)
    factory = factory_of(given)
    if isinstance(given, Envs):
        if config.run.eval_every:
            raise ConfigError("run.eval_every: environments passed as objects cannot be recreated; pass a function")
        if config.env.info_metrics:
            raise ConfigError("env.info_metrics: environments passed as objects report numbers by their own metrics()")
        envs = given
    else:
        envs = make_envs(config, device, factory, aloud=True)
    warn_of_statistics(envs.running_statistics)
    return config, Environments(envs, given, factory)


def why_inexact(config: Config, environments: Environments) -> str | None:
    """Return why a resumed run would not continue bit for bit in these environments, and warn; None if it would.

    Environments made from config.env or by a function are tested on separate instances.
    """
    made_here = not isinstance(environments.given, Envs)
    if made_here and (moving := rewound_by_seeds(config, environments.factory)) is not None:
        LOG.warning(
            "a seed rewinds this environment (%s), and every episode begins with one: all of them play the beginning. "
            "With env.seed_episodes false only each environment's first does; exact resume may be lost then", moving
        )  # fmt: skip
    if config.run.root is None:
        return None  # nobody will resume it
    envs = environments.envs
    if made_here:
        reason = why_inexact_alone(config, environments.factory)
    else:
        reason = None if envs.state_dict() is not None else f"{type(envs).__name__} cannot save its state"
    if reason is not None:
        LOG.warning("exact_resume is false: %s", reason)
    return reason
