"""Every setting once: type, default, range and meaning.

From this one place come the validation, `config.yaml`, the ranges of the sliders and the reference page; reading and
writing them as text is in `config_file`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ScheduleName = Literal["constant", "linear", "cosine", "milestones"]
LearningRateSchedule = Literal["constant", "linear", "cosine", "milestones", "adaptive"]
Count = Annotated[int, Field(ge=1, le=1_048_576)]
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
        kinds |= {get_args(kind)[0] for kind in kinds if get_origin(kind) is Annotated}
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            raise ValueError("expected a number, not true/false")
        return value


class EnvConfig(_Section):
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


class ModelConfig(_Section):
    """The networks: a body that makes features, a head for the action distribution, a head for the value."""

    body: str = Field("mlp", description="mlp, cnn, cnn_small, impala, entities, or a name from register_body")
    hidden_sizes: tuple[int, ...] = Field((64, 64), description="units of each hidden layer after the body")
    activation: Literal["tanh", "relu", "elu", "gelu", "leaky_relu", "silu"] = Field(
        "tanh", description="non-linearity"
    )
    shared: bool = Field(False, description="one body for actor and critic instead of one each")
    channels: Literal["auto", "first", "last"] = Field("auto", description="which axis of an image holds its channels")
    attention_layers: int = Field(2, description="layers of attention (entities)", ge=1, le=100)
    attention_heads: int = Field(4, description="heads of attention (entities, window)", ge=1, le=1024)
    attention_size: int = Field(64, description="features of an entity; a multiple of attention_heads", ge=1, le=65_536)
    core: Literal["none", "gru", "lstm", "window"] = Field(
        "none", description="memory on top of the body; window: attention over the last steps"
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
    log_std_max: float = Field(2.0, description="log std never climbs above", ge=-20.0, le=2.0)
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

    @model_validator(mode="after")
    def _fits_together(self) -> ModelConfig:
        if self.attention_size % self.attention_heads:
            raise ValueError("attention_size is a multiple of attention_heads")
        if self.core == "window" and self.core_size % self.attention_heads:
            raise ValueError("core_size is a multiple of attention_heads where core is window")
        if not self.log_std_min <= self.log_std_init <= self.log_std_max:
            raise ValueError("log_std_min <= log_std_init <= log_std_max")
        return self


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
    chunk_length: int = Field(
        32,
        description="steps that gradients go back through a core's memory (L); no effect without one",
        ge=1,
        le=1_000_000,
    )
    accumulate: int = Field(
        1, description="parts a minibatch is computed in, one after the other, to save memory", ge=1, le=1_000_000
    )
    gamma: float = _live(0.99, "discount per env step", 0.9, 0.999, ge=0.0, le=1.0)
    gae_lambda: float = _live(0.95, "how far GAE trusts measured rewards over the critic", 0.0, 1.0, ge=0.0, le=1.0)

    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="what takes the gradient steps")
    weight_decay: float = Field(
        0.0, description="of weight matrices, each step (adamw, sgd); biases and log std are spared", ge=0.0, le=1.0
    )
    learning_rate: float = _live(3e-4, "step size of actor (and critic)", 1e-5, 1e-2, "log", ge=0.0, le=1.0)
    learning_rate_schedule: LearningRateSchedule = Field(
        "constant", description="how learning_rate moves; adaptive: after the KL divergence of each update"
    )
    desired_kl: float = Field(0.01, description="KL divergence of an update that adaptive steers for", gt=0.0, le=10.0)
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
    dual_clip: float | None = Field(
        None, description="bound of the loss where the advantage is negative, x advantage; null: off", gt=1.0
    )
    value_clip_coef: float | None = Field(None, description="clip the value's change to +- this; null: off", gt=0.0)

    ent_coef: float = _live(0.0, "weight of the entropy bonus", 0.0, 0.05, ge=0.0, le=10.0)
    ent_coef_schedule: ScheduleName = Field("constant", description="how ent_coef moves")
    ent_coef_end: float = Field(0.0, description="ent_coef at total_timesteps (linear, cosine)", ge=0.0, le=10.0)
    ent_coef_milestones: dict[float, float] = Field({}, description="fraction of training: value from there on")

    target_entropy: float | None = Field(
        None, description="ent_coef is moved so that the entropy (nats) stays near this; null: it is not"
    )

    vf_coef: float = _live(0.5, "weight of the value loss, mean((V - returns)^2)", 0.0, 2.0, ge=0.0, le=100.0)
    max_grad_norm: float = _live(0.5, "global gradient norm is clipped to this", 0.1, 10.0, "log", gt=0.0)
    target_kl: float | None = Field(
        None, description="stop the update when approx_kl > 1.5 x this; null: never", gt=0.0
    )
    normalize_advantage: Literal["minibatch", "rollout", "never"] = Field("minibatch", description="over which rows")
    recompute_advantage: bool = Field(False, description="values and advantages anew before each pass over a rollout")
    reward_scale: float = Field(1.0, description="rewards times this, for learning", gt=0.0, le=1e6)
    reward_bound: float | None = Field(
        None, description="scaled rewards clipped to +- this, for learning; null: off", gt=0.0
    )
    normalize_reward: bool = Field(False, description="divide rewards by the running std of the discounted return")
    reward_clip: float = Field(10.0, description="clip normalised rewards to +- this", gt=0.0)
    adam_eps: float = Field(1e-5, description="epsilon of Adam and AdamW", gt=0.0, le=1.0)

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
        if self.target_entropy is not None and self.ent_coef_schedule != "constant":
            raise ValueError("target_entropy moves ent_coef: it goes with ent_coef_schedule: constant")
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError("weight_decay is for optimizer adamw or sgd")
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
