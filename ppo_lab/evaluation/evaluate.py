"""Play whole episodes with a fixed policy and return the return and length of each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium import Env
from torch import Generator, Tensor

from ppo_lab.config import Config, EnvConfig
from ppo_lab.config.loading import override
from ppo_lab.envs.adapters.given import left_open
from ppo_lab.envs.adapters.running_statistics import warn_of_statistics
from ppo_lab.envs.contract import Envs, Step
from ppo_lab.envs.making import make_envs
from ppo_lab.envs.spaces import MASK_KEY
from ppo_lab.errors import ConfigError, LabError, NonFiniteError, one_line
from ppo_lab.models.distributions import check_mask
from ppo_lab.trees import Tree, apply

MAX_ENVS = 16  # default for the number of environments stepped together
MAX_STEPS = 10_000  # env steps of an episode if neither the environment nor the caller has a limit

Stop = Callable[[], bool]


class EvaluationStopped(LabError):  # noqa: N818 - not an error: the caller requested it
    """The exception of an evaluation that was stopped by `stop` before its end. There is no result."""


class Acting(Protocol):
    """The methods of a policy that an evaluation needs. It may also have a `device`; default: that of the envs."""

    def initial_memory(self, num_envs: int) -> Any:
        """Return the recurrent state at the start of an episode; None for a policy without memory."""
        ...

    def act(
        self, obs: Tree, memory: Any, starts: Tensor, *, deterministic: bool, generator: Generator | None
    ) -> tuple[Tree, Any]:
        """Return actions (N, *action) in the environments' range for obs (N, *obs), and the memory after them."""
        ...


class Evaluation(NamedTuple):
    """The results of the episodes: those of environment 0 in the order played, then those of environment 1, etc."""

    returns: np.ndarray  # (episodes,) float64: undiscounted sum of the raw rewards
    lengths: np.ndarray  # (episodes,) int64: env steps
    terminated: np.ndarray  # (episodes,) bool: the task ended; False: truncated, e.g. by a time limit, or cut off
    cut_off: np.ndarray  # (episodes,) bool: not over after max_steps; return and length are those up to there


def evaluate(
    policy: Acting,
    env: Any,
    episodes: int = 100,
    seed: int = 1,
    deterministic: bool = True,
    num_envs: int | None = None,
    env_factory: Any = None,
    *,
    max_steps: int | None = None,
    stop: Stop | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Play `episodes` whole episodes in environments that are created for this and closed afterwards.

    Training and its random numbers are not affected.

    env: an id or settings. Of a Config only the section `env` is used, without its `num_envs`, so that the result does
        not depend on the number of training environments. Or existing environments, or a function that makes them, as
        for `Trainer`. Existing ones stay open; a single one plays one episode after another.
    seed: determines the environments (by `Envs.reset`) and the sampled actions. Equal arguments give equal results.
    deterministic: take the most likely action instead of a sampled one.
    env_factory: makes environment number i in place of env.id, as for `make_envs`.
    num_envs: environments stepped together, never more than `episodes`; None: at most 16. A different number plays
        different episodes, because each environment has its own random number generator.
    max_steps: env steps after which an episode is cut off; None: the time limit of the environment, else 10,000.
    stop: called before every env step. If it returns True, EvaluationStopped is raised.
    quiet: do not warn of running statistics in the environments, for callers that have warned already.

    Raises ConfigError for invalid arguments, EnvError if the environment cannot be made or fails, EvaluationStopped,
    and NonFiniteError if a return is NaN or infinite.
    """
    _check(policy, episodes, seed, max_steps, stop)
    if num_envs is not None:
        _check_whole("num_envs", num_envs)
    config, env_factory = _with_envs(env, min(episodes, num_envs or MAX_ENVS), env_factory, num_envs is None)
    envs = make_envs(config, torch.device(getattr(policy, "device", "cpu")), env_factory, before_each=_asking(stop))
    try:
        if not quiet:
            warn_of_statistics(envs.running_statistics)
        return run_episodes(policy, envs, episodes, seed, deterministic, max_steps=max_steps, stop=stop)
    finally:
        envs.close()


@torch.no_grad()  # not inference_mode: envs or model may keep tensors that are used outside afterwards
def run_episodes(
    policy: Acting,
    envs: Envs,
    episodes: int = 100,
    seed: int = 1,
    deterministic: bool = True,
    *,
    max_steps: int | None = None,
    stop: Stop | None = None,
) -> Evaluation:
    """Evaluate as `evaluate` does, in environments that the caller makes and closes. They are reset at the start.

    The number of episodes of each environment is fixed before the first step: episodes / N, rounded so that no two
    numbers differ by more than one. Further episodes are not counted. To count the first episodes that end in any
    environment would be biased towards short ones: a policy that falls in half of its episodes would be measured mostly
    by its falls.

    A single environment of the batch cannot be reset. If its episode is cut off, it is idle until all others have
    finished or are cut off, too. If episodes remain then, all environments are reset together, with another seed.

    Raises the same errors as `evaluate`.
    """
    _check(policy, episodes, seed, max_steps, stop)
    tally = _Tally(episodes, envs.num_envs, _limit(envs, max_steps))
    device = torch.device(getattr(policy, "device", envs.device))
    generator = Generator(device).manual_seed(_derived_seed(seed, 1))
    for resets in count():
        memory, obs = policy.initial_memory(envs.num_envs), envs.reset(_round_seed(seed, resets))
        starts = torch.ones(envs.num_envs, dtype=torch.bool, device=device)
        tally.begin()
        while tally.playing.any():
            if stop is not None and stop():
                raise EvaluationStopped(f"evaluation was stopped: {tally.played} of {episodes} episodes were played")
            seen = apply(lambda rows: rows.to(device), obs)
            try:
                action, memory = policy.act(seen, memory, starts, deterministic=deterministic, generator=generator)
            except (RuntimeError, TypeError, AttributeError, KeyError):
                _explain(policy, seen)
                raise
            step = envs.step(apply(lambda rows: rows.to(envs.device), action))
            _check_legal(policy, obs, step.valid)
            done = step.terminated | step.truncated
            # with next-step autoreset the row after an episode only resets, and the next episode starts one row later
            starts = (~step.valid if envs.next_step_autoreset else done).to(device)
            obs = step.obs
            tally.count(step, done.cpu().numpy())
        if tally.played == episodes:
            break
    _check_finite(tally.result.returns, tally.end)
    return tally.result


class _Tally:
    """The bookkeeping of an evaluation: which episodes count, their results, and which environments still play."""

    def __init__(self, episodes: int, num_envs: int, limit: int) -> None:
        N = num_envs
        quota = episodes // N + (np.arange(N) < episodes % N)  # (N,)
        self.end = np.cumsum(quota)  # (N,) environment i fills the rows from end - quota to end
        self.row = self.end - quota  # (N,) the row of the current episode
        self.idle = np.zeros(N, np.bool_)  # (N,) cut off; further steps are ignored until the next reset
        self.result = Evaluation(np.zeros(episodes), np.zeros(episodes, np.int64), *np.zeros((2, episodes), np.bool_))
        self._limit = limit
        self._return, self._length, self._rows = np.zeros(N), np.zeros(N, np.int64), np.zeros(N, np.int64)

    def begin(self) -> None:
        """Start new episodes in all environments, after they were reset."""
        self.idle[:] = False
        self._return[:], self._length[:], self._rows[:] = 0.0, 0, 0

    @property
    def playing(self) -> np.ndarray:
        """(N,) bool: the environment has episodes left to play and is not cut off."""
        return (self.row < self.end) & ~self.idle

    @property
    def played(self) -> int:
        """The number of episodes counted so far."""
        return len(self.result.returns) - int((self.end - self.row).sum())

    def count(self, step: Step, done: np.ndarray) -> None:
        """Add one step of all environments; done (N,) bool."""
        valid = step.valid.cpu().numpy() & ~self.idle
        self._return[valid] += step.reward.cpu().numpy()[valid]  # the sum is float64, the reward float32
        self._length += valid
        self._rows += 1  # invalid rows, too, so that an environment with only invalid ones is cut off as well
        ended = done & valid
        long = (self._length >= self._limit) | (self._rows > 2 * self._limit)
        cut = self.playing & long & ~ended
        counts = (ended & (self.row < self.end)) | cut
        self.result.returns[self.row[counts]] = self._return[counts]
        self.result.lengths[self.row[counts]] = self._length[counts]
        self.result.terminated[self.row[counts]] = (step.terminated.cpu().numpy() & ended)[counts]
        self.result.cut_off[self.row[counts]] = cut[counts]
        self.row += counts
        self.idle |= cut
        over = ended | cut
        self._return[over], self._length[over], self._rows[over] = 0.0, 0, 0


def _limit(envs: Envs, max_steps: int | None) -> int:
    """Return the number of env steps after which an episode is cut off.

    If the environment has a time limit, this one is at least twice as large, and applies only if that limit fails.
    """
    if max_steps is not None:
        return max_steps
    own = envs.max_episode_steps or envs.longest_episode
    return MAX_STEPS if own is None else max(MAX_STEPS, 2 * own)


def _with_envs(env: Any, num_envs: int, given: Any, auto: bool) -> tuple[Config, Any]:
    """Return the settings of `num_envs` environments of this kind, and the environments or factory given, if any.

    auto: num_envs is the default, so that a single environment object is played alone.
    Raises ConfigError for an invalid `env`, or both environments and an env_factory.
    """
    if isinstance(env, str):
        env = override(Config(), {"env.id": env})
    if not isinstance(env, EnvConfig | Config):
        if given is not None:
            raise ConfigError(f"env: environments ({type(env).__name__}) and an env_factory as well; pass only one")
        if env is None:
            raise ConfigError("env: None; expected an id, settings, environments, or what makes them")
        env, given = Config(), env
    config = env if isinstance(env, Config) else Config(env=env)
    number = 1 if auto and isinstance(given, Env) else num_envs
    alone = {"env.num_envs": number, "env.life_loss": False, "env.info_metrics": ()}  # whole games, only returns
    return left_open(override(config, alone), given, "env")


def _derived_seed(seed: int, *purpose: int) -> int:
    """Derive a seed for a purpose: with `seed` itself, actions would use the random numbers of the environments."""
    return int(np.random.SeedSequence(seed, spawn_key=purpose).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _round_seed(seed: int, resets: int) -> int:
    """Return the environments' seed for reset number `resets`: `seed` for the first (0), else a derived one."""
    return _derived_seed(seed, 2, resets) % 2**31 if resets else seed


def _check(policy: Any, episodes: Any, seed: Any, max_steps: Any, stop: Any) -> None:
    """Raise ConfigError for an invalid argument; the message has its value."""
    if isinstance(policy, type) or not all(callable(getattr(policy, name, None)) for name in ("act", "initial_memory")):
        what = "None" if policy is None else repr(policy) if isinstance(policy, str) else f"a {type(policy).__name__}"
        what = f"the class {policy.__name__}" if isinstance(policy, type) else one_line(what, 80)
        raise ConfigError(
            f"policy: expected a Policy, such as trainer.policy() or load_policy('runs/name'), got {what}"
        )
    _check_whole("episodes", episodes)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**31:
        raise ConfigError(f"seed: a whole number, 0 <= seed < 2**31, got {one_line(repr(seed), 80)}")
    if max_steps is not None:
        _check_whole("max_steps", max_steps)
    if stop is not None and not callable(stop):
        raise ConfigError(f"stop: a function that returns whether to stop, got {one_line(repr(stop), 80)}")


def _check_whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name}: a whole number, at least 1, got {one_line(repr(value), 80)}")
    if value < 1:
        raise ConfigError(f"{name}: at least 1, got {value}")


def _explain(policy: Any, obs: Tree) -> None:
    """Raise ConfigError if a network failed because obs (N, *obs) does not have the shapes it was trained with.

    Called only after an error, because some networks accept other shapes, such as another number of entities.
    """
    model = getattr(policy, "model", None)
    if (features := getattr(model, "features", None)) is None:  # a policy that is not ours
        return
    try:
        features.batch_shape(obs, getattr(model, "privileged", ()))
    except ConfigError as error:
        raise ConfigError(f"policy: it was trained with other observations: {error}") from None


def _asking(stop: Stop | None) -> Callable[[], None]:
    """Return a function to call before each environment is made, which can take long. It raises EvaluationStopped."""

    def ask() -> None:
        if stop is not None and stop():
            raise EvaluationStopped("evaluation was stopped while its environments were being created")

    return ask


def _check_legal(policy: Acting, obs: Tree, valid: Tensor) -> None:
    """Raise EnvError if a mask of obs (N, *obs) leaves no legal action in a row where `valid` (N,)."""
    model: Any = getattr(policy, "model", None)
    if getattr(model, "masked", False) and isinstance(obs, dict):
        check_mask(obs[MASK_KEY], model.actor_head.mask_layout, valid)


def _check_finite(returns: np.ndarray, end: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(returns))
    if bad.size:
        env = int(np.searchsorted(end, bad[0], side="right"))
        raise NonFiniteError(f"environment {env} gave an episode whose return is {returns[bad[0]]}: check its rewards")
