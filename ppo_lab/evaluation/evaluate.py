"""Play whole episodes with a policy as it is, and hand back what each of them gave."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium import Env
from torch import Generator, Tensor

from ppo_lab.adapters.given import left_open
from ppo_lab.config import Config, EnvConfig
from ppo_lab.config_file import override
from ppo_lab.distributions import check_mask
from ppo_lab.envs import Envs, make_envs
from ppo_lab.errors import ConfigError, NonFiniteError
from ppo_lab.flat_spaces import MASK_KEY
from ppo_lab.trees import Tree, apply

MAX_ENVS = 16  # environments stepped together unless the caller says otherwise


class Acting(Protocol):
    """What an evaluation asks of a policy. It may have a `device` as well; without one it acts where the envs are."""

    def initial_memory(self, num_envs: int) -> Any:
        """The memory at the start of an episode; None for a policy without one."""
        ...

    def act(
        self, obs: Tree, memory: Any, starts: Tensor, *, deterministic: bool, generator: Generator | None
    ) -> tuple[Tree, Any]:
        """Actions (N, *action) as the environments take them for obs (N, *obs), and the memory after them."""
        ...


class Evaluation(NamedTuple):
    """What each episode gave: those of environment 0 in the order played, then those of environment 1, and so on."""

    returns: np.ndarray  # (episodes,) float64: undiscounted sum of the raw rewards
    lengths: np.ndarray  # (episodes,) int64: env steps
    terminated: np.ndarray  # (episodes,) bool: the task ended; False: it was cut off, by a time limit for instance


def evaluate(
    policy: Acting,
    env: Any,
    episodes: int = 100,
    seed: int = 1,
    deterministic: bool = True,
    num_envs: int | None = None,
    env_factory: Any = None,
) -> Evaluation:
    """Play `episodes` whole episodes in environments made for this and closed afterwards. Nothing else is disturbed.

    env: an id, or settings; of a Config only the section `env` matters, and its `num_envs` never does, so that the
        number of environments one trains with does not change what one measures. Or environments, or what makes them,
        as `Trainer` takes them: those that exist already stay open, and one alone plays one episode after the other.
    seed: the environments (through `Envs.reset`) and sampled actions follow from it. Equal arguments, equal answer.
    deterministic: the most likely action instead of a drawn one.
    env_factory: makes environment number i in place of env.id, as for `make_envs`.
    num_envs: environments stepped together, never more than `episodes`; None: at most 16. Another number plays other
        episodes, because each environment has its own stream of random numbers.

    An episode ends where the environment ends it: one without a time limit may play for ever.
    Raises ConfigError for arguments out of range, EnvError if the environment cannot be made or fails, and
    NonFiniteError if a return is NaN or infinite.
    """
    _check(episodes, seed)
    if num_envs is not None and num_envs < 1:
        raise ConfigError(f"num_envs: at least 1, got {num_envs}")
    config, env_factory = _with_envs(env, min(episodes, num_envs or MAX_ENVS), env_factory, num_envs is None)
    envs = make_envs(config, torch.device(getattr(policy, "device", "cpu")), env_factory)
    try:
        return run_episodes(policy, envs, episodes, seed, deterministic)
    finally:
        envs.close()


@torch.no_grad()  # not inference_mode: tensors that envs or model keep from in here must stay usable outside
def run_episodes(
    policy: Acting, envs: Envs, episodes: int = 100, seed: int = 1, deterministic: bool = True
) -> Evaluation:
    """`evaluate` in environments that the caller made, and closes. They are reset at the beginning.

    Environment i plays a number of episodes that is fixed before the first step: episodes / N, rounded so that no
    two differ by more than one. What it plays beyond that is not counted. Taking the first episodes to end anywhere
    would be biased: with a limit on their number, those that end early are more likely to be among them, so a
    policy that falls half of the time would be measured mostly by its falls.
    """
    _check(episodes, seed)
    N = envs.num_envs
    quota = episodes // N + (np.arange(N) < episodes % N)  # (N,)
    end = np.cumsum(quota)  # (N,) environment i fills the rows from end - quota to end
    row = end - quota  # (N,) the row of the episode under way
    result = Evaluation(np.zeros(episodes), np.zeros(episodes, np.int64), np.zeros(episodes, np.bool_))
    partial_return, partial_length = np.zeros(N), np.zeros(N, np.int64)

    device = torch.device(getattr(policy, "device", envs.device))
    generator = Generator(device).manual_seed(_action_seed(seed))
    memory, obs = policy.initial_memory(N), envs.reset(seed)
    starts = torch.ones(N, dtype=torch.bool, device=device)
    while (row < end).any():
        action, memory = policy.act(
            apply(lambda rows: rows.to(device), obs), memory, starts, deterministic=deterministic, generator=generator
        )  # (N, *action)
        step = envs.step(apply(lambda rows: rows.to(envs.device), action))
        _check_legal(policy, obs, step.valid)
        done = step.terminated | step.truncated
        # with next-step autoreset the row after an ending is no experience, and the one after that starts the episode
        starts = (~step.valid if envs.next_step_autoreset else done).to(device)
        obs = step.obs

        valid = step.valid.cpu().numpy()
        partial_return[valid] += step.reward.cpu().numpy()[valid]  # a float32 reward into a float64 sum
        partial_length += valid
        ended = done.cpu().numpy() & valid
        counts = ended & (row < end)
        result.returns[row[counts]] = partial_return[counts]
        result.lengths[row[counts]] = partial_length[counts]
        result.terminated[row[counts]] = step.terminated.cpu().numpy()[counts]
        row += counts
        partial_return[ended], partial_length[ended] = 0.0, 0
    _check_finite(result.returns, end)
    return result


def _with_envs(env: Any, num_envs: int, given: Any, auto: bool) -> tuple[Config, Any]:
    """The settings of `num_envs` environments of this kind, and what else they come from. Raises ConfigError.

    auto: nobody asked for so many, so that one environment object is played alone.
    """
    if isinstance(env, str):
        env = override(Config(), {"env.id": env})
    if not isinstance(env, EnvConfig | Config):
        if given is not None:
            raise ConfigError(f"env: environments ({type(env).__name__}) and an env_factory as well; hand over one")
        if env is None:
            raise ConfigError("env: None; expected an id, settings, environments, or what makes them")
        env, given = Config(), env
    config = env if isinstance(env, Config) else Config(env=env)
    number = 1 if auto and isinstance(given, Env) else num_envs
    config = override(config, {"env.num_envs": number, "env.life_loss": False})  # whole games
    return left_open(config, given, "env")


def _action_seed(seed: int) -> int:
    """A seed of its own: with the environments' seed, actions would be drawn from the same numbers as their noise."""
    return int(np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _check(episodes: int, seed: int) -> None:
    if episodes < 1:
        raise ConfigError(f"episodes: at least 1, got {episodes}")
    if not 0 <= seed < 2**31:
        raise ConfigError(f"seed: 0 <= seed < 2**31, got {seed}")


def _check_legal(policy: Acting, obs: Tree, valid: Tensor) -> None:
    """Raises EnvError if a mask of obs (N, *obs) left nothing to choose in a row that is `valid`: no mere reset."""
    model: Any = getattr(policy, "model", None)
    if getattr(model, "masked", False) and isinstance(obs, dict):
        check_mask(obs[MASK_KEY], model.actor_head.mask_layout, valid)


def _check_finite(returns: np.ndarray, end: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(returns))
    if bad.size:
        env = int(np.searchsorted(end, bad[0], side="right"))
        raise NonFiniteError(f"environment {env} gave an episode whose return is {returns[bad[0]]}: check its rewards")
