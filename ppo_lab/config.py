"""Every setting once: type, default, range and meaning.

From this one place come the validation, `config.yaml`, the ranges of the sliders and the reference page; reading and
writing them as text is in `config_file`.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ScheduleName = Literal["constant", "linear", "cosine", "milestones"]
SCHEDULED = ("learning_rate", "clip_coef", "ent_coef")  # settings of ppo with a schedule
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _live(default: Any, description: str, low: float, high: float, scale: str = "linear", **bounds: Any) -> Any:
    """A setting that may change while training runs; low, high and scale are for its slider."""
    extra: dict[str, Any] = {"live": True, "slider": {"low": low, "high": high, "scale": scale}}
    return Field(default, description=description, json_schema_extra=extra, **bounds)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: Any) -> Any:
        # pydantic would take `true` for 1; in a config that is a slip of the pen
        annotation = cls.model_fields[info.field_name].annotation
        kinds = {annotation, *get_args(annotation)}
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            raise ValueError("expected a number, not true/false")
        return value


class EnvConfig(_Section):
    """Which environment, how many of it, and where they run."""

    id: str = Field("CartPole-v1", description="a Gymnasium id, or one of ours: ppo_lab/CartPole-v1", min_length=1)
    kwargs: dict[str, Any] = Field({}, description="keyword arguments of the environment, e.g. {g: 9.81}")
    num_envs: int = Field(8, description="environments stepped in parallel (N)", ge=1, le=1_048_576)
    workers: int = Field(
        0, description="subprocesses that step them; 0: all in this process (same results)", ge=0, le=256
    )
    vector: bool = Field(False, description="use the id's own vector environment, if it registered one")
    allow_import: bool = Field(False, description="let an id with a module prefix (module:Name-v0) import that module")


class ModelConfig(_Section):
    """The networks: a body that makes features, a head for the action distribution, a head for the value."""

    body: Literal["mlp"] = Field("mlp", description="network body")
    hidden_sizes: tuple[int, ...] = Field((64, 64), description="units of each hidden layer")
    activation: Literal["tanh", "relu", "elu", "gelu", "leaky_relu", "silu"] = Field(
        "tanh", description="non-linearity"
    )
    shared: bool = Field(False, description="one body for actor and critic instead of one each")
    normalize_obs: bool = Field(False, description="subtract the running mean of observations, divide by their std")
    obs_clip: float = Field(10.0, description="clip normalised observations to +- this", gt=0.0, le=1e6)
    log_std_init: float = Field(
        0.0, description="log std of the Gaussian policy at the start (Box actions)", ge=-5.0, le=2.0
    )

    @field_validator("hidden_sizes")
    @classmethod
    def _at_least_one_unit(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 for size in sizes):
            raise ValueError("every hidden layer needs at least one unit")
        return sizes


class PPOConfig(_Section):
    """The algorithm. `X_schedule` moves X from its value to `X_end` over total_timesteps."""

    total_timesteps: int = Field(
        100_000, description="env steps in all; the run ends with the rollout that reaches them", ge=1
    )
    num_steps: int = Field(128, description="steps of a rollout in each environment (T)", ge=1, le=1_000_000)
    update_epochs: int = _live(4, "passes over a rollout", 1, 30, ge=1, le=1000)
    num_minibatches: int = Field(
        4, description="minibatches a pass; sizes differ by at most one row", ge=1, le=1_000_000
    )
    gamma: float = _live(0.99, "discount per env step", 0.9, 0.999, ge=0.0, le=1.0)
    gae_lambda: float = _live(0.95, "how far GAE trusts measured rewards over the critic", 0.0, 1.0, ge=0.0, le=1.0)

    learning_rate: float = _live(3e-4, "Adam step size of actor (and critic)", 1e-5, 1e-2, "log", ge=0.0, le=1.0)
    learning_rate_schedule: ScheduleName = Field("constant", description="how learning_rate moves")
    learning_rate_end: float = Field(
        0.0, description="learning_rate at total_timesteps (linear, cosine)", ge=0.0, le=1.0
    )
    learning_rate_milestones: dict[float, float] = Field({}, description="fraction of training: value from there on")
    learning_rate_warmup: float = Field(
        0.0, description="fraction of training in which it climbs from 0", ge=0.0, lt=1.0
    )
    critic_learning_rate: float | None = Field(
        None, description="null: as learning_rate; moves with its schedule", ge=0.0, le=1.0
    )

    clip_coef: float = _live(0.2, "how far the ratio may leave 1 before its gradient stops", 0.02, 0.6, gt=0.0, le=10.0)
    clip_coef_schedule: ScheduleName = Field("constant", description="how clip_coef moves")
    clip_coef_end: float = Field(0.0, description="clip_coef at total_timesteps (linear, cosine)", ge=0.0, le=10.0)
    clip_coef_milestones: dict[float, float] = Field({}, description="fraction of training: value from there on")
    value_clip_coef: float | None = Field(None, description="clip the value's change to +- this; null: off", gt=0.0)

    ent_coef: float = _live(0.0, "weight of the entropy bonus", 0.0, 0.05, ge=0.0, le=10.0)
    ent_coef_schedule: ScheduleName = Field("constant", description="how ent_coef moves")
    ent_coef_end: float = Field(0.0, description="ent_coef at total_timesteps (linear, cosine)", ge=0.0, le=10.0)
    ent_coef_milestones: dict[float, float] = Field({}, description="fraction of training: value from there on")

    vf_coef: float = _live(0.5, "weight of the value loss, mean((V - returns)^2)", 0.0, 2.0, ge=0.0, le=100.0)
    max_grad_norm: float = _live(0.5, "global gradient norm is clipped to this", 0.1, 10.0, "log", gt=0.0)
    target_kl: float | None = Field(
        None, description="stop the update when approx_kl > 1.5 x this; null: never", gt=0.0
    )
    normalize_advantage: Literal["minibatch", "rollout", "never"] = Field("minibatch", description="over which rows")
    normalize_reward: bool = Field(False, description="divide rewards by the running std of the discounted return")
    reward_clip: float = Field(10.0, description="clip normalised rewards to +- this", gt=0.0)
    adam_eps: float = Field(1e-5, description="epsilon of Adam", gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _schedules_are_complete(self) -> PPOConfig:
        for name in SCHEDULED:
            milestones = getattr(self, f"{name}_milestones")
            if (getattr(self, f"{name}_schedule") == "milestones") != bool(milestones):
                raise ValueError(f"{name}_schedule: milestones and {name}_milestones: {{...}} go together")
            if any(not 0.0 < at < 1.0 for at in milestones):
                raise ValueError(
                    f"{name}_milestones: fractions of training lie between 0 and 1, got {sorted(milestones)}"
                )
            if any(not 0.0 <= value <= 10.0 for value in milestones.values()):
                raise ValueError(f"{name}_milestones: values lie in 0..10, got {list(milestones.values())}")
        if self.normalize_reward and self.gamma == 1.0:
            raise ValueError("normalize_reward needs gamma < 1: the undiscounted return of an endless task has no std")
        return self


class RunConfig(_Section):
    """One run: its name, seed, machine and records."""

    name: str | None = Field(None, description="folder under root; null: <preset or env>-<number>")
    root: str | None = Field("runs", description="folder of all runs, relative to config.yaml; null: write nothing")
    seed: int = Field(1, description="everything random in the run follows from it", ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda if there is one, else cpu")
    threads: int | None = Field(
        1, description="torch CPU threads (small networks are fastest with 1); null: torch's", ge=1, le=1024
    )
    tensorboard: bool = Field(True, description="write TensorBoard event files beside metrics.jsonl")
    checkpoint_every: int = Field(
        50_000, description="env steps between checkpoints; 0: only when the run ends or is stopped", ge=0
    )
    keep_last: int = Field(3, description="checkpoints kept for being the newest", ge=1, le=10_000)
    keep_every: int = Field(0, description="keep also the first checkpoint in every so many env steps; 0: none", ge=0)
    best_by: Literal["return", "evaluation"] = Field("return", description="what the best checkpoint is best in")
    eval_every: int = Field(0, description="env steps between evaluations of the policy while it trains; 0: none", ge=0)
    eval_episodes: int = Field(10, description="episodes of each of them", ge=1, le=100_000)

    @field_validator("name")
    @classmethod
    def _name_stays_inside_root(cls, name: str | None) -> str | None:
        if name is not None and not RUN_NAME.fullmatch(name):
            raise ValueError(
                "a run name has 1 to 64 letters, digits, '.', '_' or '-' and starts with a letter or digit"
            )
        return name

    @model_validator(mode="after")
    def _best_can_be_known(self) -> RunConfig:
        if self.best_by == "evaluation" and not self.eval_every:
            raise ValueError("best_by: evaluation needs eval_every > 0")
        return self


class Config(_Section):
    """All settings of a run. `preset` remembers which preset it came from, for its name."""

    env: EnvConfig = EnvConfig()
    model: ModelConfig = ModelConfig()
    ppo: PPOConfig = PPOConfig()
    run: RunConfig = RunConfig()
    preset: str | None = Field(None, description="the preset these settings came from")


SECTIONS: dict[str, type[_Section]] = {"env": EnvConfig, "model": ModelConfig, "ppo": PPOConfig, "run": RunConfig}
LIVE = tuple(
    name
    for name, field in PPOConfig.model_fields.items()
    if (field.json_schema_extra or {}).get("live")  # type: ignore[union-attr]  # extra is a dict here
)
