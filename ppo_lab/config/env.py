"""The section `env`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ppo_lab.config.section import Section
from ppo_lab.config.yaml_text import as_plain

Count = Annotated[int, Field(ge=1, le=1_048_576)]
How = Literal["last", "sum", "mean", "max", "min"]  # of the values of one episode
TAKEN = ("return_mean", "return_std", "length_mean", "count")  # episode/... that the lab writes itself


class EnvConfig(Section):
    """Which environment, how many of it, and where they run."""

    id: str = Field("CartPole-v1", description="a Gymnasium id, or one of ours: ppo_lab/CartPole-v1", min_length=1)
    kwargs: dict[str, Any] = Field({}, description="keyword arguments of the environment, e.g. {g: 9.81}")
    num_envs: Count | Literal["auto"] = Field(8, description="environments stepped in parallel (N)")
    workers: int = Field(
        0, description="subprocesses that step them; 0: all in this process (same results)", ge=0, le=256
    )
    vector: bool = Field(False, description="use the id's own vector environment, if it registered one")
    wrappers: tuple[str | dict[str, dict[str, Any]], ...] = Field(
        (), description="Gymnasium wrappers by name, innermost first: [Name, {Name: {key: value}}]"
    )
    frame_stack: int = Field(1, description="stack this many last observations as one", ge=1, le=1000)
    time_aware: bool = Field(False, description="add the remaining share of the time limit to the observation")
    mask_from_info: bool | Literal["auto"] = Field(
        "auto", description="take action masks from info['action_mask'] or action_masks(); auto: where they exist"
    )
    retry: int = Field(
        0,
        description="recreate a failed environment, up to this many times in a row; its episode is truncated",
        ge=0,
        le=1_000_000,
    )
    seed_episodes: bool = Field(
        True, description="seed every episode's reset; false: each environment's first (resume may not be exact then)"
    )
    new_each_episode: bool = Field(
        False, description="make a new environment object for each episode, so that no state is left over"
    )
    info_metrics: tuple[str | dict[str, How], ...] = Field(
        (), description="numbers from info as episode/<key>: [key, {key: how}], how last, sum, mean, max or min"
    )
    life_loss: bool = Field(False, description="Atari: losing a life ends the task for learning, not the game")
    allow_import: bool = Field(False, description="let an id with a module prefix (module:Name-v0) import that module")

    @field_validator("kwargs", "wrappers", mode="before")
    @classmethod
    def _numbers_are_python_s(cls, value: Any) -> Any:
        try:
            return as_plain(value)
        except RecursionError:
            raise ValueError("nested too deeply, or it holds itself") from None

    @field_validator("info_metrics", mode="before")
    @classmethod
    def _one_alone_is_a_list_too(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value

    @field_validator("info_metrics")
    @classmethod
    def _names_are_free(cls, entries: tuple[str | dict[str, How], ...]) -> tuple[str | dict[str, How], ...]:
        keys = [key for entry in entries for key in ([entry] if isinstance(entry, str) else entry)]
        for key in keys:
            if not key or key != key.strip("/ ") or keys.count(key) > 1 or key in TAKEN:
                why = "is given twice" if keys.count(key) > 1 else "is no key"
                raise ValueError(
                    f"{key!r} {f'would be episode/{key}, which there is already' if key in TAKEN else why}"
                )
        return entries

    @property
    def info_keys(self) -> tuple[tuple[str, How], ...]:
        """The keys of `info_metrics`, each with how its values become the number of an episode."""
        pairs: list[tuple[str, How]] = []
        for entry in self.info_metrics:
            pairs += [(entry, "last")] if isinstance(entry, str) else entry.items()
        return tuple(pairs)


AUTO_NUM_ENVS = 8  # what most published settings use; one by one, more of them only make the rollout longer
AUTO_NUM_ENVS_BATCHED = 64  # of our own: a step of 64 costs about what a step of 8 does
OURS = "ppo_lab/"  # how the ids of our own batched programs begin


def auto_num_envs(settings: EnvConfig) -> int:
    """Return env.num_envs, where "auto" is 64 for our own batched programs and 8 for others.

    With `workers` it is the next multiple of them, so that each has the same load. It depends on the settings and
    not on the machine: another number of environments would be another run.
    """
    if settings.num_envs != "auto":
        return settings.num_envs
    if settings.id.startswith(OURS):
        return AUTO_NUM_ENVS_BATCHED
    each = max(1, settings.workers)
    return -(-AUTO_NUM_ENVS // each) * each
