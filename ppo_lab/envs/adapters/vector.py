"""Adapt Gymnasium's vector environments of any autoreset mode."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from ppo_lab.envs.adapters.episode_numbers import EpisodeNumbers, InfoMetrics
from ppo_lab.envs.adapters.info import InfoKeys, InfoReader
from ppo_lab.envs.adapters.loop import describe_action, episode_seed
from ppo_lab.envs.adapters.rows import (
    ArrayTree,
    Format,
    Rows,
    cast_problem,
    equal_keys,
    find_non_finite,
    find_outside,
    limits_of,
    obs_format,
    row_of,
    write_row,
)  # fmt: skip
from ppo_lab.envs.adapters.running_statistics import find_statistics
from ppo_lab.envs.adapters.steps import action_format, as_numpy, as_step, as_tensors, on_device, to
from ppo_lab.envs.adapters.vector_checks import check_objects, lost_keys, lost_workers, tell_ignored_mask
from ppo_lab.envs.checks import check_spaces
from ppo_lab.envs.contract import Action, Obs, Step
from ppo_lab.envs.spaces import flatten_space, flatten_value, map_leaves, parts, unflatten_value
from ppo_lab.errors import EnvError, NonFiniteError, describe_error, one_line


class VectorEnvs(InfoMetrics):
    """Any gymnasium.vector.VectorEnv, by the autoreset mode that it declares.

    NEXT_STEP: the row after an ending is the reset; it has `valid` False, reward 0 and both flags False.
    SAME_STEP: the final observations come from infos["final_obs"]. DISABLED: this class resets what has ended.

    A vector environment seeds itself: the run seed is used in its first reset only, and all episodes follow from it.
    In SAME_STEP Gymnasium 1.4 passes on final observations without a copy, so an environment that reuses its buffer has
    overwritten them: for SyncVectorEnv and AsyncVectorEnv this is detected and raises EnvError.
    """

    def __init__(
        self, envs: gymnasium.vector.VectorEnv, device: torch.device | str = "cpu", info_keys: InfoKeys = ()
    ) -> None:
        """Take ownership of the vector environment: `close` closes it. Raises EnvError for an unknown autoreset mode.

        info_keys: as `EnvConfig.info_keys`, for `metrics`.
        """
        self._name = one_line(envs.spec.id if envs.spec is not None else type(envs.unwrapped).__name__, 80)
        declared = envs.metadata.get("autoreset_mode")
        try:
            self._mode = AutoresetMode(declared)
        except ValueError:
            got = "nothing" if declared is None else repr(declared)
            raise EnvError(
                f'{self._name}: its metadata["autoreset_mode"] must be one of '
                f"gymnasium.vector.AutoresetMode.NEXT_STEP, SAME_STEP, DISABLED; got {got}"
            ) from None
        check_objects(envs)
        self.num_envs = envs.num_envs
        check_spaces(envs.single_observation_space, envs.single_action_space, self._name)
        self.observation_space = flatten_space(envs.single_observation_space)
        self.action_space = flatten_space(envs.single_action_space)
        self.max_episode_steps = envs.spec.max_episode_steps if envs.spec is not None else None
        self.running_statistics = find_statistics(envs)
        self.device = torch.device(device)
        self.next_step_autoreset = self._mode is AutoresetMode.NEXT_STEP
        self._envs = envs
        self._infos, self.numbers = InfoReader([key for key, _ in info_keys]), EpisodeNumbers(info_keys, self.num_envs)
        self.numbers.there = self._infos.there
        self._action_format = action_format(self.num_envs, self.action_space)
        self._obs_format = obs_format(self.num_envs, self.observation_space)
        self._limits = limits_of(self.observation_space, map_leaves(lambda one: np.zeros(*one), self._obs_format))
        self._ended = np.zeros(self.num_envs, np.bool_)  # in the previous step
        self._length = np.zeros(self.num_envs, np.int64)  # steps of the current episode
        self._keeps = [False] * self.num_envs  # True: known not to overwrite its final observations
        self._ready = False
        self._failed = False  # True: a reset or step of the vector environment raised
        self._closed = False

    def reset(self, seed: int) -> Obs:
        """Start all N episodes from one run seed; return the first observations (N, *obs)."""
        obs = self._reset(seed=episode_seed(seed, 0, 0))
        self._ended[:], self._length[:] = False, 0
        self.numbers.begin()
        self._ready = True
        return to(as_tensors(obs), self.device)

    def step(self, action: Action) -> Step:
        """Act once in each environment: action is (N,) for Discrete, (N, *shape) for others, a dictionary for Dict.

        Raises EnvError or NonFiniteError that name the environment and its step; after that only `reset` is possible.
        """
        if not self._ready:
            raise EnvError("call reset() before the first step, and again after a failed or interrupted one")
        array = as_numpy(action, self._action_format)
        nested = unflatten_value(self._envs.single_action_space, array)
        self._ready = False
        try:
            obs, reward, terminated, truncated, infos = self._envs.step(nested)
        except Exception as error:
            self._failed = True
            raise EnvError(
                f"{self._name}: step of {self.num_envs} environments failed: {describe_error(error)}"
            ) from error
        flags = (self.num_envs,), np.dtype(np.bool_)
        rows = Rows(
            self._observation(obs),
            self._observation(obs),
            self._array("reward", reward, (self.num_envs,), np.dtype(np.float32)),
            self._array("terminated", terminated, *flags),
            self._array("truncated", truncated, *flags),
        )
        step = self._as_step(rows, infos, array)
        self._read_infos(infos, step)
        step = on_device(step, self.device)
        self._ready = True
        return step

    def close(self) -> None:
        """Close the vector environment. Twice is harmless."""
        self._ready = False
        if not self._closed:
            self._closed = True
            self._envs.close()

    def _as_step(self, rows: Rows, infos: dict[str, Any], action: ArrayTree) -> Step:
        """Convert rows to a Step and apply the autoreset mode."""
        ended = rows.terminated | rows.truncated
        valid = np.ones(self.num_envs, np.bool_)
        if self.next_step_autoreset:
            valid = ~self._ended
            rows = rows._replace(reward=np.where(valid, rows.reward, np.float32(0)))
            if (ended & self._ended).any():
                i = int(np.argmax(ended & self._ended))
                raise EnvError(f"{self._name}: declares NEXT_STEP, but environment {i} ended in the row of its reset")
        elif ended.any() and self._mode is AutoresetMode.SAME_STEP:
            rows = rows._replace(final_obs=self._final_obs(rows.obs, infos, ended))
        elif ended.any():
            final_obs = map_leaves(np.copy, rows.obs)  # before the reset writes over it
            obs = self._reset(options={"reset_mask": ended.copy()})
            rows = rows._replace(obs=obs, final_obs=final_obs)
        self._length += valid
        self._check_values(rows, action)
        if self._mode is AutoresetMode.SAME_STEP and ended.any():
            self._check_begun(rows.obs)
        self._ended = ended
        self._length[ended] = 0
        return as_step(rows, valid)

    def _read_infos(self, infos: dict[str, Any], step: Step) -> None:
        """Read the requested keys of this step's infos."""
        if not self._infos.keys:
            return
        done = step.terminated | step.truncated
        try:
            numbers = self._infos.read_batch(infos, done.numpy())
        except EnvError as error:
            raise EnvError(f"{self._name}: {error}") from None
        self.numbers.take(numbers, done, step.valid.numpy())

    def _final_obs(self, obs: ArrayTree, infos: dict[str, Any], ended: np.ndarray) -> ArrayTree:
        """Return obs (N, *obs) in SAME_STEP with the rows that ended replaced by their final observations."""
        given = infos.get("final_obs")
        mask = infos.get("_final_obs")
        sources = getattr(self._envs.unwrapped, "_env_obs", None)  # SyncVectorEnv: the last results of its environments
        final_obs = map_leaves(np.copy, obs)
        for i in map(int, np.flatnonzero(ended)):
            if given is None or given[i] is None or (mask is not None and not mask[i]):
                raise EnvError(f'{self._name}: environment {i} ended, but infos["final_obs"] has no entry for it')
            write_row(final_obs, i, self._observation(given[i], "final_obs", batched=False))
            if self._lost(i, given[i], sources, equal_keys(row_of(final_obs, i), row_of(obs, i))):
                raise EnvError(
                    f"{self._name}: environment {i} reuses its observation buffer, so its final observation is lost in "
                    "autoreset mode SAME_STEP; use DISABLED, or let it return copies"
                )
        return final_obs

    def _lost(self, i: int, final: Any, sources: Any, as_after_reset: set[str]) -> bool:
        """Return whether the reset overwrote a final observation. as_after_reset: keys equal to those after it."""
        if sources is not None:
            return self._shared(final, sources[i])
        if not as_after_reset:
            self._keeps[i] = True
        if self._keeps[i]:
            return False
        self._keeps[i] = not as_after_reset & lost_keys(self._envs, i)
        return not self._keeps[i]

    def _shared(self, one: Any, other: Any) -> bool:
        """Return whether two observations of one environment share memory."""
        flat = [parts(flatten_value(self._envs.single_observation_space, obs)) for obs in (one, other)]
        return any(
            isinstance(leaf, np.ndarray) and np.shares_memory(leaf, flat[1][key]) for key, leaf in flat[0].items()
        )

    def _reset(self, **how: Any) -> ArrayTree:
        if self._failed and (lost := lost_workers(self._envs)):
            raise EnvError(
                f"{self._name}: the worker of environment {', '.join(map(str, lost))} died of an earlier error "
                "and is not restarted: make a new vector environment and continue with Trainer.resume(run, envs=...)"
            )
        try:
            obs, infos = self._envs.reset(**how)
        except Exception as error:
            self._failed = True
            raise EnvError(f"{self._name}: reset failed: {describe_error(error)}") from error
        tell_ignored_mask(self._envs, infos, self._name)
        tree = self._observation(obs)
        self._check_begun(tree)
        return tree

    def _observation(self, obs: Any, what: str = "observation", batched: bool = True) -> ArrayTree:
        """Convert a batch of observations (N, ...), or a single one, to flat arrays in the dtypes of `obs_format`."""
        flat = flatten_value(self._envs.single_observation_space, obs)

        def convert(one: Format, value: Any) -> np.ndarray:
            shape, dtype = one
            return self._array(what, value, shape if batched else shape[1:], dtype)

        return map_leaves(convert, self._obs_format, flat)

    def _array(self, what: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Convert a third party's array (NumPy, torch, jax) to a writable one of this shape and dtype."""
        array = value.numpy(force=True) if isinstance(value, Tensor) else np.asarray(value)
        if array.shape != shape:
            raise EnvError(f"{self._name}: expected {what} of shape {shape}, got {array.shape}")
        if (problem := cast_problem(array, dtype)) is not None:
            raise EnvError(f"{self._name}: expected {what} of dtype {dtype}, got one {problem}")
        with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is reported as such
            return np.require(array, dtype, ["C", "W"])

    def _check_begun(self, obs: ArrayTree) -> None:
        """Raise NonFiniteError or EnvError if observations (N, *obs) after a reset are not finite or out of bounds."""
        if not all(np.isfinite(array).all() for array in parts(obs).values()):
            i, problem = find_non_finite(np.zeros(self.num_envs, np.float32), obs)
            raise NonFiniteError(f"environment {i} returned {problem} from its reset")
        if (outside := find_outside(obs, self._limits)) is not None:
            raise EnvError(f"environment {outside[0]} returned {outside[1]} from its reset")

    def _check_values(self, rows: Rows, action: ArrayTree) -> None:
        """Raise NonFiniteError or EnvError if a reward or observation of this step is not finite or out of bounds."""
        floats = [array for array in parts(rows.final_obs).values() if array.dtype.kind == "f"]
        if not (np.isfinite(rows.reward).all() and all(np.isfinite(array).all() for array in floats)):
            i, problem = find_non_finite(rows.reward, rows.final_obs)
            raise NonFiniteError(f"environment {i} returned {problem} {self._at(i, action)}")
        if (outside := find_outside(rows.final_obs, self._limits)) is not None:
            i, problem = outside
            raise EnvError(f"environment {i} returned {problem} {self._at(i, action)}")

    def _at(self, i: int, action: ArrayTree) -> str:
        return f"at its step {self._length[i]} (action {describe_action(row_of(action, i))})"
