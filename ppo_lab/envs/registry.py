"""Our own environments by id: strings, whose modules in the package `environment` are imported when asked for.

They are known to Gymnasium under the same ids as soon as this module is imported.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

ENTRIES: dict[str, tuple[str, dict[str, Any]]] = {  # id -> "module:class" in the package `environment`, its defaults
    "ppo_lab/CartPole-v1": ("cartpole:CartPole", {}),
    "ppo_lab/CartPoleNoVelocity-v1": ("cartpole:CartPole", {"observe_velocities": False}),
    "ppo_lab/Catch-v0": ("catch:Catch", {}),
    "ppo_lab/LateralControl-v0": ("lateral_env:VectorizedLateralControlEnv", {}),
    "ppo_lab/Leak-v0": ("leak:Leak", {}),
    "ppo_lab/Recall-v0": ("recall:Recall", {}),
    "ppo_lab/Spaces-v0": ("spaces:Spaces", {}),
    "ppo_lab/ValueOnly-v0": ("probes:ValueOnly", {}),
    "ppo_lab/ObsDependentValue-v0": ("probes:ObsDependentValue", {}),
    "ppo_lab/DiscountedReward-v0": ("probes:DiscountedReward", {}),
    "ppo_lab/ActionDependentReward-v0": ("probes:ActionDependentReward", {}),
    "ppo_lab/ObsAndActionReward-v0": ("probes:ObsAndActionReward", {}),
    "ppo_lab/TwoState-v0": ("probes:TwoState", {}),
}
REWARD_THRESHOLDS = {  # mean return over 100 episodes that counts as solved; with the defaults of each
    "ppo_lab/CartPole-v1": 475.0,
    "ppo_lab/CartPoleNoVelocity-v1": 475.0,
    "ppo_lab/Catch-v0": 0.9,
    "ppo_lab/Recall-v0": 0.95,
}
FOLDER = Path(__file__).resolve().parents[2] / "environment"  # next to ppo_lab: in a checkout and when installed
ALIAS = "ppo_lab_environment"


class Batched(Mapping[str, Callable[..., Any]]):
    """Id -> class(num_envs, device=..., ...), imported when it is looked up."""

    def __getitem__(self, env_id: str) -> Callable[..., Any]:
        place, defaults = ENTRIES[env_id]
        module, _, name = place.partition(":")
        made: Callable[..., Any] = getattr(our_module(module), name)
        return partial(made, **defaults) if defaults else made

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES)

    def __len__(self) -> int:
        return len(ENTRIES)


BATCHED = Batched()


def our_module(name: str) -> ModuleType:
    """Import `environment.<name>` from our folder, also where a user's own module is called `environment`."""
    return import_module(f"{_package()}.{name}")


@cache
def _package() -> str:
    """Return the name that our package is imported under: `environment`, or an alias where that is another module."""
    try:
        spec = importlib.util.find_spec("environment")
    except ValueError:  # somebody's module without a spec
        spec = None
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == FOLDER / "__init__.py":
        return "environment"
    spec = importlib.util.spec_from_file_location(
        ALIAS, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[ALIAS] = module
    spec.loader.exec_module(module)
    return ALIAS


for env_id in ENTRIES:
    # No max_episode_steps: the programs cut their episodes themselves, and TimeLimit would do it again.
    gymnasium.register(
        env_id,
        entry_point="ppo_lab.envs.gymnasium_view:SingleView",
        vector_entry_point="ppo_lab.envs.gymnasium_view:VectorView",
        reward_threshold=REWARD_THRESHOLDS.get(env_id),
        kwargs={"env_id": env_id},
    )
