"""Check that an environment's observation space fits a network and its action space a distribution."""

from __future__ import annotations

from gymnasium import Space
from gymnasium.spaces import Box, Dict

from ppo_lab.envs.spaces import MASK_KEY, flatten_space, leaf_spaces, mask_size
from ppo_lab.errors import EnvError, one_line

OBS_DTYPES = ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "float16", "float32", "float64", "bool")
ACTION_DTYPES = ("float32", "float64")


def check_spaces(observation_space: Space, action_space: Space, name: str) -> None:
    """Raise EnvError if no network or distribution supports a space of the environment `name`.

    Also raise it if the shape of the action mask in the observation does not fit the action space.
    """
    for what, space, dtypes in (
        ("observation", observation_space, OBS_DTYPES),
        ("action", action_space, ACTION_DTYPES),
    ):
        problem = _problem(space, dtypes)
        if problem is not None:
            kinds = "Discrete, MultiDiscrete, MultiBinary, Box"
            advice = f"supported: {kinds} ({', '.join(dtypes)}), and Dict and Tuple of these"
            fit = _fitting_keys(space, dtypes)
            if what == "observation" and fit:  # an unsupported entry may be e.g. a mission in Text
                keys = ", ".join(fit)
                advice = f"select the supported keys with env.wrappers: [FilterObservation: {{filter_keys: [{keys}]}}]"
            text = one_line(space, 90)
            raise EnvError(f"{name}: {what} space {text} is not supported: {problem}; {advice}")
    mask = leaf_spaces(flatten_space(observation_space)).get(MASK_KEY)
    if mask is not None and mask.shape != (mask_size(action_space),):
        text = f"a mask of shape ({mask_size(action_space)},)" if mask_size(action_space) else "no mask"
        raise EnvError(
            f"{name}: {MASK_KEY!r} of the observation has shape {mask.shape}; {one_line(action_space, 90)} takes {text}"
        )


def _problem(space: Space, dtypes: tuple[str, ...]) -> str | None:
    """Return why a space is not supported, or None if it is."""
    try:
        leaves = leaf_spaces(flatten_space(space))
    except EnvError as error:
        return str(error)
    for key, leaf in leaves.items():
        of = f"key {key!r}: " if key else ""
        if 0 in (leaf.shape or ()):
            return f"{of}it has no entries"
        if isinstance(leaf, Box) and str(leaf.dtype) not in dtypes:
            return f"{of}dtype {leaf.dtype}"
    return None


def _fitting_keys(space: Space, dtypes: tuple[str, ...]) -> list[str]:
    """Return the keys of a Dict space whose entries are supported."""
    entries = space.spaces.items() if isinstance(space, Dict) else ()
    return [
        key
        for key, inner in entries
        if isinstance(key, str) and key and "/" not in key and _problem(inner, dtypes) is None
    ]
