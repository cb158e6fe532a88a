"""Every setting once: type, default, range and meaning; a file for each section of config.yaml.

From this one place come the validation, `config.yaml`, the ranges of the sliders and the reference page; reading and
writing them as text is in `config_file`.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from ppo_lab.config.env import EnvConfig
from ppo_lab.config.model import ModelConfig
from ppo_lab.config.ppo import SCHEDULED, PPOConfig
from ppo_lab.config.run import RUN_NAME, RunConfig
from ppo_lab.config.section import Section
from ppo_lab.config.yaml_text import why_not_yaml

__all__ = [
    "FREE", "LIVE", "RUN_NAME", "SCHEDULED", "SECTIONS", "Config", "EnvConfig", "ModelConfig", "PPOConfig", "RunConfig",
    "free_setting",
]  # fmt: skip


class Config(Section):
    """All settings of a run. `preset` remembers which preset it came from, for its name."""

    env: EnvConfig = EnvConfig()
    model: ModelConfig = ModelConfig()
    ppo: PPOConfig = PPOConfig()
    run: RunConfig = RunConfig()
    preset: str | None = Field(None, description="the preset these settings came from")

    @model_validator(mode="after")
    def _can_be_written(self) -> Config:
        """Check that the settings come back from the run's config.yaml as they are."""
        for key in FREE if self.run.root is not None else ():
            problem = why_not_yaml(free_setting(self, key), key)
            if problem is not None:
                raise ValueError(
                    f"{problem} cannot be written into a run's config.yaml (null, true, numbers, text, lists, tuples "
                    "and dictionaries can); hand over what makes the environment instead, Trainer(config, envs=make), "
                    "or set run.root to null"
                )
        return self


FREE = ("env.kwargs", "env.wrappers")  # settings that hold anything: here a tuple is another thing than a list


def free_setting(config: Config, key: str) -> Any:
    """Return the value of a setting in FREE; the default of all wrappers counts as not set."""
    value = getattr(config.env, key.removeprefix("env."))
    return list(value) if isinstance(value, tuple) else value


SECTIONS: dict[str, type[Section]] = {"env": EnvConfig, "model": ModelConfig, "ppo": PPOConfig, "run": RunConfig}
LIVE = tuple(
    name
    for name, field in PPOConfig.model_fields.items()
    if (field.json_schema_extra or {}).get("live")  # type: ignore[union-attr]  # extra is a dict here
)
