"""The section `env`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ppo_lab.config.section import Section
from ppo_lab.yaml_text import as_plain

Count = Annotated[int, Field(ge=1, le=1_048_576)]


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
    frame_stack: int = Field(1, description="the last so many observations as one", ge=1, le=1000)
    time_aware: bool = Field(False, description="add the share of the time limit that is left to the observation")
    mask_from_info: bool = Field(False, description="take legal actions from info['action_mask']")
    life_loss: bool = Field(False, description="Atari: losing a life ends the task for learning, not the game")
    allow_import: bool = Field(False, description="let an id with a module prefix (module:Name-v0) import that module")

    @field_validator("kwargs", "wrappers", mode="before")
    @classmethod
    def _numbers_are_python_s(cls, value: Any) -> Any:
        try:
            return as_plain(value)
        except RecursionError:
            raise ValueError("nested too deeply, or it holds itself") from None
