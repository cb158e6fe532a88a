"""The training state: one object with everything that training changes, its seeds, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.amp import GradScaler

from ppo_lab.config import Config
from ppo_lab.envs.contract import Envs, Obs
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.models.actor_critic import ActorCritic, Memory
from ppo_lab.ppo.episodes import EpisodeStatistics
from ppo_lab.ppo.optimizer import load_moments, make_optimizer
from ppo_lab.ppo.rewards import RewardScaler
from ppo_lab.ppo.schedules import LiveChange
from ppo_lab.runs.piece import Piece
from ppo_lab.trees import apply

REMEMBERED = "$remembered"  # attributes of environment objects: saved, but not compared, since they may hold the time


@dataclass
class TrainState:
    """Everything that training changes. The trainer keeps no other state from one update to the next."""

    model: ActorCritic
    optimizer: torch.optim.Optimizer
    scaler: GradScaler  # scales gradients in float16; disabled otherwise
    obs: Obs  # (N, *obs) the current observations
    memory: Memory  # the recurrent state; None for a model without memory
    starts: Tensor  # (N,) bool: obs is the first of an episode
    action_rng: Generator
    shuffle_rng: Generator
    episodes: EpisodeStatistics
    reward_scaler: RewardScaler
    configured_timesteps: int  # total env steps as configured, before the run was extended
    global_step: int = 0  # env steps so far, over all environments; rows that only reset do not count
    update: int = 0  # updates so far
    live: dict[str, LiveChange] = field(default_factory=dict)  # settings changed during training, and when
    adapted: dict[str, tuple[float, float]] = field(default_factory=dict)  # adaptive settings: (initial, current) value

    @property
    def total_timesteps(self) -> int:
        """The total number of env steps: as configured, or the new total if the run was extended."""
        live = self.live.get("total_timesteps")
        return int(live.value) if live is not None else self.configured_timesteps

    def state_dict(self) -> dict[str, Any]:
        """Return the full state as nested dictionaries of tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "obs": self.obs,
            "memory": self.memory,
            "starts": self.starts,
            "action_rng": self.action_rng.get_state(),
            "shuffle_rng": self.shuffle_rng.get_state(),
            "episodes": self.episodes.state_dict(),
            "reward_scaler": self.reward_scaler.state_dict(),
            "global_step": self.global_step,
            "update": self.update,
            "live": {name: list(change) for name, change in self.live.items()},
            "adapted": {name: list(pair) for name, pair in self.adapted.items()},
        }

    def load_learner(self, saved: Mapping[str, Any]) -> None:
        """Load weights, moments, statistics and counters from a `state_dict`, but nothing of the environments.

        Raises RunError if the weights do not fit this model.
        """
        try:
            self.model.load_state_dict(saved["model"])
            load_moments(self.optimizer, self.model, saved["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise RunError(f"the weights of the checkpoint do not fit this model: {reason}") from None
        self.reward_scaler.load_moments(saved["reward_scaler"])
        self.global_step, self.update = saved["global_step"], saved["update"]
        self.live = {name: LiveChange(*change) for name, change in saved["live"].items()}
        self.adapted = {name: (start, value) for name, (start, value) in saved["adapted"].items()}
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])

    def load_experience(self, saved: Mapping[str, Any]) -> None:
        """Load what belongs to the environments from a `state_dict`: observations, memory, unfinished episodes."""
        device = self.starts.device  # checkpoints are loaded to the CPU
        self.obs, self.starts = apply(lambda rows: rows.to(device), saved["obs"]), saved["starts"].to(device)
        self.memory = None if saved["memory"] is None else apply(lambda rows: rows.to(device), saved["memory"])
        self.episodes.load_under_way(saved["episodes"], device)
        self.reward_scaler.discounted_return = saved["reward_scaler"]["discounted_return"].to(device)

    def begin_episodes(self, envs: Envs, run_seed: int) -> None:
        """Reset all environments, with a seed derived from run_seed and global_step.

        The episodes therefore differ from those at the start of a run with this seed.
        """
        self.obs = apply(torch.clone, envs.reset((seeds(run_seed).environments + self.global_step) % 2**31))
        self.starts = torch.ones_like(self.starts)
        self.memory = self.model.initial_memory(envs.num_envs)

    def reseed(self, run_seed: int) -> None:
        """Seed the random number generators of actions and minibatch order from run_seed."""
        fresh = seeds(run_seed)
        self.action_rng.manual_seed(fresh.actions)
        self.shuffle_rng.manual_seed(fresh.order)

    def load_random_numbers(self, saved: Mapping[str, Any]) -> None:
        """Load the state of the random number generators. Call this last: nothing may draw from them in between."""
        self.action_rng.set_state(saved["action_rng"].cpu())
        self.shuffle_rng.set_state(saved["shuffle_rng"].cpu())


class Seeds(NamedTuple):
    """A seed for each use of random numbers, so that drawing more numbers for one does not change another."""

    weights: int
    actions: int
    order: int  # the order of rows in minibatches
    environments: int


def seeds(run_seed: int) -> Seeds:
    """Derive all seeds of a run from its run.seed."""
    drawn = np.random.SeedSequence(run_seed).generate_state(4, np.uint64) >> np.uint64(1)  # 63 bits each
    weights, actions, order, environments = map(int, drawn)
    return Seeds(weights, actions, order, environments % 2**31)


def initial_state(config: Config, envs: Envs) -> TrainState:
    """Create the state before the first update. Everything random in it is determined by config.run.seed alone.

    Weights, actions and minibatch order each have their own random number generator (see `Seeds`).
    """
    seed = seeds(config.run.seed)
    with torch.random.fork_rng(devices=[]), one_thread():  # do not change the caller's global generator
        torch.manual_seed(seed.weights)
        model = ActorCritic(config.model, envs.observation_space, envs.action_space)  # on the CPU: same on any device
    model.to(envs.device)
    obs = envs.reset(seed.environments)
    return TrainState(
        model=model,
        optimizer=make_optimizer(model, config.ppo),
        scaler=GradScaler(envs.device.type, enabled=config.model.precision == "float16"),
        obs=apply(torch.clone, obs),
        memory=model.initial_memory(envs.num_envs),
        starts=torch.ones(envs.num_envs, dtype=torch.bool, device=envs.device),
        action_rng=Generator(envs.device).manual_seed(seed.actions),
        shuffle_rng=Generator(envs.device).manual_seed(seed.order),
        episodes=EpisodeStatistics(envs.num_envs, envs.device),
        reward_scaler=RewardScaler(envs.num_envs, envs.device),
        configured_timesteps=config.ppo.total_timesteps,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread in this context, because rounding in an orthogonal matrix depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(name: str) -> torch.device:
    """Return the torch device of a name: "auto" is cuda if available, else cpu. Raise ConfigError without a GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device: cuda was asked for, but torch finds no CUDA device; use auto or cpu")
    return torch.device(name)


def fingerprint(state: Any) -> str:
    """Return the SHA-256 of nested dictionaries, lists, tensors and plain values. Equal content gives equal hashes."""
    digest = hashlib.sha256()
    _feed(digest, state)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Piece):
        digest.update(value.sha256.encode())
    elif isinstance(value, Mapping):
        digest.update(b"{")
        for key in sorted(value, key=str):
            if key == REMEMBERED:
                continue
            digest.update(json.dumps(str(key)).encode())
            _feed(digest, value[key])
        digest.update(b"}")
    elif isinstance(value, (list, tuple)):
        digest.update(b"[")
        for item in value:
            _feed(digest, item)
        digest.update(b"]")
    elif isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    else:
        digest.update(json.dumps(value).encode())
