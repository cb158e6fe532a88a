"""Every setting once: type, default, range and meaning; a file for each section of config.yaml.

From this one place come the validation, `config.yaml`, the ranges of the sliders and the reference page; reading and
writing them as text is in `config_file`.
"""

from __future__ import annotations

from pydantic import Field

from ppo_lab.config.env import EnvConfig
from ppo_lab.config.model import ModelConfig
from ppo_lab.config.ppo import SCHEDULED, PPOConfig
from ppo_lab.config.run import RUN_NAME, RunConfig
from ppo_lab.config.section import Section

__all__ = [
    "LIVE", "RUN_NAME", "SCHEDULED", "SECTIONS", "Config", "EnvConfig", "ModelConfig", "PPOConfig", "RunConfig",
]  # fmt: skip


class Config(Section):
    """All settings of a run. `preset` remembers which preset it came from, for its name."""

    env: EnvConfig = EnvConfig()
    model: ModelConfig = ModelConfig()
    ppo: PPOConfig = PPOConfig()
    run: RunConfig = RunConfig()
    preset: str | None = Field(None, description="the preset these settings came from")


SECTIONS: dict[str, type[Section]] = {"env": EnvConfig, "model": ModelConfig, "ppo": PPOConfig, "run": RunConfig}
LIVE = tuple(
    name
    for name, field in PPOConfig.model_fields.items()
    if (field.json_schema_extra or {}).get("live")  # type: ignore[union-attr]  # extra is a dict here
)
