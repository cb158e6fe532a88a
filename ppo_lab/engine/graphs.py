"""Which steps of a trainer are captured as CUDA graphs (`run.cuda_graphs`), and why others are not; see docs/gpu.md."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ppo_lab.config import Config, PPOConfig
from ppo_lab.engine.graph_minibatch import MinibatchStep
from ppo_lab.engine.graph_rollout import RolloutStep
from ppo_lab.envs.contract import Envs
from ppo_lab.errors import ConfigError
from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.losses import Loss
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.ppo.state import TrainState


@dataclass(frozen=True)
class Graphs:
    """What of a trainer's work is captured; None: nothing of it, the plain way is taken."""

    rollout: RolloutStep | None = None
    minibatch: MinibatchStep | None = None

    def step(self, batch: Batch, ppo: PPOConfig) -> tuple[Loss, Tensor] | None:
        """The gradient of a minibatch and the step down it: the loss and the gradient's norm. None: not captured."""
        return None if self.minibatch is None else self.minibatch(batch, ppo)


def make_graphs(config: Config, envs: Envs, state: TrainState, rollout: Rollout) -> Graphs:
    """The captured steps that `run.cuda_graphs` asks for. Nothing is captured before it is used.

    Raises ConfigError where it is true and something cannot be captured.
    """
    wanted = config.run.cuda_graphs
    if wanted is False or (wanted == "auto" and envs.device.type != "cuda"):
        return Graphs()
    refused = {"rollout": why_not_rollout(envs), "minibatch": why_not_minibatch(config, envs, rollout)}
    for part, reason in refused.items():
        if reason is not None and wanted is True:
            raise ConfigError(f"run.cuda_graphs: the {part} step cannot be captured: {reason}; auto captures the rest")
    return Graphs(
        None if refused["rollout"] else RolloutStep(envs, state, rollout),
        None if refused["minibatch"] else MinibatchStep(state.model, state.optimizer),
    )


def why_not_rollout(envs: Envs) -> str | None:
    """Why a step of these environments cannot be captured; None if it can."""
    if hasattr(envs, "episode_done"):
        return f"{type(envs).__name__} has episodes that end for learning alone, which a captured step does not record"
    if getattr(envs, "capturable", False):
        return None
    return f"{type(envs).__name__} is not known to step on the device alone, in memory that stays where it is"


def why_not_minibatch(config: Config, envs: Envs, rollout: Rollout) -> str | None:
    """Why a minibatch step of these settings cannot be captured; None if it can."""
    ppo = config.ppo
    if ppo.target_kl is not None:
        return "ppo.target_kl needs a look at every minibatch before its step is taken"
    if ppo.accumulate > 1:
        return "ppo.accumulate cuts a minibatch into parts that may be empty"
    if config.model.precision == "float16":
        return "model.precision float16 scales gradients by a factor that the host moves; bfloat16 needs none"
    if envs.next_step_autoreset:
        return "rows that only reset are no experience, and how many there are varies"
    if rollout.memory and len(rollout) % rollout.chunk_length:
        return "ppo.num_steps is no multiple of ppo.chunk_length, and how many rows of a short chunk count varies"
    return None
