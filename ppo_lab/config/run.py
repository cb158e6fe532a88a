"""The section `run`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ppo_lab.config.section import Section

Count = Annotated[int, Field(ge=1, le=1024)]
Steps = Annotated[int, Field(ge=1)]
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class RunConfig(Section):
    """One run: its name, seed, machine and records."""

    name: str | None = Field(None, description="folder under root; null: <preset or env>-<number>")
    root: str | None = Field("runs", description="folder of all runs, relative to config.yaml; null: write nothing")
    seed: int = Field(1, description="everything random in the run follows from it", ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda if there is one, else cpu")
    threads: Count | Literal["auto"] | None = Field(
        1,
        description="torch CPU threads (small networks are fastest with 1); auto: measured at start; null: torch's",
    )
    engine: Literal["auto", "reference"] = Field(
        "auto",
        description="auto: fast implementations where the model allows them; reference: plain torch and autograd",
    )
    compile: bool = Field(
        False, description="torch.compile for the minibatch's loss and gradient; takes 10 s to minutes at the start"
    )
    cuda_graphs: bool | Literal["auto"] = Field(
        False,
        description="steps as CUDA graphs; auto: on a GPU, where possible; true: all, or an error says why not",
    )
    deterministic: bool = Field(
        False,
        description="GPU: only algorithms that repeat bit for bit, in the whole process; slower",
    )
    tensorboard: bool = Field(True, description="write TensorBoard event files beside metrics.jsonl")
    checkpoint_every: int = Field(
        50_000, description="env steps between checkpoints; 0: only when the run ends or is stopped", ge=0
    )
    keep_last: int = Field(3, description="number of newest checkpoints to keep", ge=1, le=10_000)
    keep_every: int = Field(
        0, description="also keep the first checkpoint in every interval of this many env steps; 0: none", ge=0
    )
    best_by: Literal["return", "evaluation"] = Field("return", description="what the best checkpoint is chosen by")
    eval_every: int = Field(0, description="env steps between evaluations of the policy while it trains; 0: none", ge=0)
    eval_episodes: int = Field(10, description="episodes per evaluation", ge=1, le=100_000)
    eval_max_steps: Steps | None = Field(
        None,
        description="env steps after which an evaluation episode is cut off; null: the environment's own time limit, "
        "else 10_000",
    )

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
