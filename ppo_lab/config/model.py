"""The section `model`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ppo_lab.config.section import Section


class ModelConfig(Section):
    """The networks: a body that makes features, a head for the action distribution, a head for the value."""

    body: str = Field("mlp", description="mlp, cnn, cnn_small, impala, entities, or a name from register_body")
    hidden_sizes: tuple[int, ...] = Field((64, 64), description="units of each hidden layer after the body")
    activation: Literal["tanh", "relu", "elu", "gelu", "leaky_relu", "silu"] = Field(
        "tanh", description="non-linearity"
    )
    shared: bool = Field(False, description="one body for actor and critic instead of one each")
    channels: Literal["auto", "first", "last"] = Field("auto", description="which axis of an image holds its channels")
    convolutions: tuple[tuple[int, int, int], ...] = Field(
        ((32, 8, 4), (64, 4, 2), (64, 3, 1)), description="channels, kernel, stride of each layer (cnn)"
    )
    attention_layers: int = Field(2, description="layers of attention (entities)", ge=1, le=100)
    attention_heads: int = Field(4, description="heads of attention (entities, window)", ge=1, le=1024)
    attention_size: int = Field(64, description="features of an entity; a multiple of attention_heads", ge=1, le=65_536)
    core: Literal["none", "gru", "lstm", "window"] = Field(
        "none", description="recurrent core on top of the body; window: attention over the last steps"
    )
    core_size: int = Field(128, description="units of the core", ge=1, le=65_536)
    core_layers: int = Field(1, description="layers of the core", ge=1, le=100)
    window: int = Field(16, description="steps that a core of kind window sees", ge=1, le=10_000)
    privileged: tuple[str, ...] = Field((), description="keys of the observation that only the critic sees")
    normalize_obs: bool = Field(False, description="subtract the running mean of observations, divide by their std")
    obs_clip: float = Field(10.0, description="clip normalised observations to +- this", gt=0.0, le=1e6)
    distribution: Literal["gaussian", "squashed", "beta"] = Field(
        "gaussian", description="Box actions: normal, normal through tanh, or Beta"
    )
    bound: Literal["rescale", "clip"] = Field(
        "rescale", description="gaussian: [-1, 1] is stretched over the Box, or the Box's own numbers; both clipped"
    )
    std: Literal["free", "state", "gsde"] = Field(
        "free", description="std of Box actions: a parameter, a function of the state, or gSDE"
    )
    log_std_init: float = Field(
        0.0, description="log std of the Gaussian policy at the start (Box actions)", ge=-5.0, le=2.0
    )
    log_std_min: float = Field(-20.0, description="log std never falls below", ge=-20.0, le=2.0)
    log_std_max: float = Field(2.0, description="log std never rises above", ge=-20.0, le=2.0)
    sde_interval: int = Field(64, description="gsde: env steps between draws of the noise matrix", ge=1, le=1_000_000)
    normalize_value: bool = Field(
        False, description="the critic learns returns minus their mean, over their std (PopArt)"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="arithmetic of the bodies; distributions and losses stay float32"
    )

    @field_validator("hidden_sizes")
    @classmethod
    def _at_least_one_unit(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 for size in sizes):
            raise ValueError("every hidden layer needs at least one unit")
        return sizes

    @field_validator("convolutions")
    @classmethod
    def _at_least_one_of_each(cls, layers: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, int, int], ...]:
        if not layers or any(number < 1 for layer in layers for number in layer):
            raise ValueError("at least one layer, and channels, kernel and stride of at least 1")
        return layers

    @model_validator(mode="after")
    def _fits_together(self) -> ModelConfig:
        if self.attention_size % self.attention_heads:
            raise ValueError("attention_size is a multiple of attention_heads")
        if self.core == "window" and self.core_size % self.attention_heads:
            raise ValueError("core_size is a multiple of attention_heads where core is window")
        if not self.log_std_min <= self.log_std_init <= self.log_std_max:
            raise ValueError("log_std_min <= log_std_init <= log_std_max")
        return self
