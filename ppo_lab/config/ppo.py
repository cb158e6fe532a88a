"""The section `ppo`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ppo_lab.config.section import Section, live

ScheduleName = Literal["constant", "linear", "cosine", "milestones"]
LearningRateSchedule = Literal["constant", "linear", "cosine", "milestones", "adaptive"]
SCHEDULED = ("learning_rate", "clip_coef", "ent_coef")  # settings of ppo with a schedule


class PPOConfig(Section):
    """The algorithm. `X_schedule` changes X from its value to `X_end` over total_timesteps."""

    total_timesteps: int = Field(
        100_000, description="env steps in all; the run ends with the rollout that reaches them", ge=1
    )
    num_steps: int = Field(128, description="steps of a rollout in each environment (T)", ge=1, le=1_000_000)
    update_epochs: int = live(4, "passes over a rollout", 1, 30, ge=1, le=1000)
    num_minibatches: int = Field(
        4, description="minibatches per pass; sizes differ by at most one row", ge=1, le=1_000_000
    )
    chunk_length: int = Field(
        32,
        description="steps that gradients go back through a core's memory (L); no effect without one",
        ge=1,
        le=1_000_000,
    )
    accumulate: int = Field(
        1, description="parts of a minibatch, computed one after the other to save memory", ge=1, le=1_000_000
    )
    gamma: float = live(0.99, "discount per env step", 0.9, 0.999, ge=0.0, le=1.0)
    gae_lambda: float = live(0.95, "how far GAE trusts measured rewards over the critic", 0.0, 1.0, ge=0.0, le=1.0)

    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="the optimizer of the gradient steps")
    weight_decay: float = Field(
        0.0, description="decay of weight matrices in each step (adamw, sgd); not of biases and log std", ge=0.0, le=1.0
    )
    learning_rate: float = live(3e-4, "step size of actor (and critic)", 1e-5, 1e-2, "log", ge=0.0, le=1.0)
    learning_rate_schedule: LearningRateSchedule = Field(
        "constant", description="how learning_rate changes; adaptive: by the KL divergence of each update"
    )
    desired_kl: float = Field(0.01, description="target of adaptive: KL divergence of an update", gt=0.0, le=10.0)
    learning_rate_end: float = Field(
        0.0, description="learning_rate at total_timesteps (linear, cosine)", ge=0.0, le=1.0
    )
    learning_rate_milestones: dict[float, float] = Field({}, description="fraction of training: value from there on")
    learning_rate_warmup: float = Field(
        0.0, description="fraction of training in which it rises from 0", ge=0.0, lt=1.0
    )
    critic_learning_rate: float | None = Field(
        None, description="null: as learning_rate; follows its schedule", ge=0.0, le=1.0
    )

    clip_coef: float = live(0.2, "clip range of the ratio around 1", 0.02, 0.6, gt=0.0, le=10.0)
    clip_coef_schedule: ScheduleName = Field("constant", description="how clip_coef changes")
    clip_coef_end: float = Field(0.0, description="clip_coef at total_timesteps (linear, cosine)", ge=0.0, le=10.0)
    clip_coef_milestones: dict[float, float] = Field({}, description="fraction of training: value from there on")
    dual_clip: float | None = Field(
        None, description="bound of the loss where the advantage is negative, x advantage; null: off", gt=1.0
    )
    value_clip_coef: float | None = Field(None, description="clip the value's change to +- this; null: off", gt=0.0)

    ent_coef: float = live(0.0, "weight of the entropy bonus", 0.0, 0.05, ge=0.0, le=10.0)
    ent_coef_schedule: ScheduleName = Field("constant", description="how ent_coef changes")
    ent_coef_end: float = Field(0.0, description="ent_coef at total_timesteps (linear, cosine)", ge=0.0, le=10.0)
    ent_coef_milestones: dict[float, float] = Field({}, description="fraction of training: value from there on")

    target_entropy: float | None = Field(
        None, description="adapt ent_coef so that the entropy (nats) stays near this; null: off"
    )

    vf_coef: float = live(0.5, "weight of the value loss, mean((V - returns)^2)", 0.0, 2.0, ge=0.0, le=100.0)
    max_grad_norm: float = live(0.5, "global gradient norm is clipped to this", 0.1, 10.0, "log", gt=0.0)
    target_kl: float | None = Field(
        None, description="stop the update when approx_kl > 1.5 x this; null: never", gt=0.0
    )
    normalize_advantage: Literal["minibatch", "rollout", "never"] = Field(
        "minibatch", description="normalise advantages over which rows"
    )
    recompute_advantage: bool = Field(
        False, description="recompute values and advantages before each pass over a rollout"
    )
    reward_scale: float = Field(1.0, description="multiply rewards by this, for learning", gt=0.0, le=1e6)
    reward_bound: float | None = Field(
        None, description="clip scaled rewards to +- this, for learning; null: off", gt=0.0
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
