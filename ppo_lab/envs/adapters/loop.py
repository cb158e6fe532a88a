"""Step single Gymnasium environments one after the other and write their results into NumPy rows.

This is the only place where third-party environment code runs step by step, so it copies, checks, and names the
environment that is wrong. `SingleEnvs` runs this loop in its own process, `WorkerEnvs` in subprocesses: the same loop,
hence the same results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import gymnasium
import numpy as np

from ppo_lab.envs.adapters.env_memory import LOADING, EnvMemory
from ppo_lab.envs.adapters.info import InfoReader
from ppo_lab.envs.adapters.info_masks import may_come_late, tell_late_mask
from ppo_lab.envs.adapters.retries import Retries
from ppo_lab.envs.adapters.rows import ArrayTree, ObsRows, Rows, equal, find_non_finite, find_outside, row_of, write_row
from ppo_lab.envs.spaces import leaf_paths, map_leaves, nest, parts
from ppo_lab.errors import EnvError, NonFiniteError, describe_error, one_line


class Recipe(NamedTuple):
    """How to restore N environments, and the observations expected afterwards."""

    run_seed: int
    episode: np.ndarray  # (N,) int64 number of the current episode
    actions: list[ArrayTree]  # N times (steps of that episode, *action)
    obs: ArrayTree  # (N, *obs)
    rewards: list[np.ndarray] | None = None  # N times (steps,) float32; None: not recorded
    remembered: list[dict[str, Any]] | None = None  # N results of `EnvMemory.save`; None: not recorded


def episode_seed(run_seed: int, env_index: int, episode_number: int) -> int:
    """Compute the seed of one episode, in 0 .. 2**31 - 1, from these three numbers alone.

    So neither the number of workers nor the order in which episodes end changes what an environment does.
    """
    sequence = np.random.SeedSequence(run_seed, spawn_key=(env_index, episode_number))
    return int(sequence.generate_state(1)[0] >> 1)  # 31 bits: simulators written in C take an int32


def describe_action(action: Any) -> str:
    """Format an action for an error message."""
    return one_line(np.array2string(np.asarray(action), precision=4, threshold=8, separator=", "), 80)


def check_distinct(envs: Sequence[gymnasium.Env], first: int = 0) -> None:
    """Raise EnvError if two environments are the same object, or wrap the same one."""
    known: dict[int, int] = {}
    for i, env in enumerate(envs, first):
        before = known.setdefault(id(env.unwrapped), i)
        if before != i:
            name = type(env.unwrapped).__name__
            raise EnvError(
                f"environments {before} and {i} are the same {name} object, so their episodes would mix: "
                f"make a new one for each, such as envs=lambda: {name}()"
            )


class EnvLoop:
    """Environments `first`, `first + 1`, ... of a run, each writing into its row of `rows`.

    When an episode ends, the next one starts in the same step, after the final observation was copied, so `obs` is
    already the new episode (same-step autoreset). Every episode is reset with its own `episode_seed`.

    make, retry: an environment that raises is recreated by make(its number), up to `retry` times in a row without a
    finished episode. Its failed step counts as the last of a truncated episode: reward 0, final observation equal to
    the one before.
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env],
        rows: Rows,
        first: int = 0,
        make: Callable[[int], gymnasium.Env] | None = None,
        retry: int = 0,
        info_keys: Sequence[str] = (),
    ) -> None:
        """Set up the loop. Raises EnvError if two of the environments are the same object."""
        check_distinct(envs, first)
        self._envs = list(envs)
        self.retries = Retries(len(envs), first, make, retry)
        self._steps = [env.step for env in envs]
        self._rows = rows
        self._first = first
        self.infos = InfoReader(info_keys)
        self._obs = ObsRows(envs[0].observation_space, rows)
        self._action_paths = leaf_paths(envs[0].action_space)
        self._plain_action = "" in self._action_paths
        self._reward_zeros = np.zeros_like(rows.reward)
        self._run_seed = 0
        self._now = 0  # steps since reset(); minus the start of an episode: its step number
        self._episode = [0] * len(envs)
        self._start = [0] * len(envs)
        self._seed = [0] * len(envs)
        self._memory: list[EnvMemory | None] = [None] * len(envs)
        self._look = False  # check the first step for a mask that the reset did not have
        self._ready = False

    def reset(self, run_seed: int) -> None:
        """Start the first episode of every environment; write the observations to `rows.obs`."""
        self._run_seed = run_seed
        self._now = 0
        self.retries.failures = [0] * len(self._envs)
        for i in range(len(self._envs)):
            self._begin(i, 0)
        self._ready = True

    def step(self, action: ArrayTree) -> None:
        """Act once in each environment and write the results to `rows`.

        action: (n,) int64 for Discrete, (n, *shape) for others, a flat dictionary of these for Dict and Tuple. An
        environment may keep its row or write into it, so the caller passes a copy.
        Raises EnvError or NonFiniteError with the environment, its step and its action; then only `reset` is possible.
        """
        if not self._ready:
            raise EnvError("call reset() before the first step, and again after a failed or interrupted one")
        self._ready = False
        self._now += 1
        kind = self._obs
        plain, shape, as_declared, harmless = kind.plain, kind.shape, kind.as_declared, kind.harmless
        _, final_obs, reward, terminated, truncated, numbers = self._rows
        acts = action if self._plain_action else self._nested(action)
        ended = []
        info: Any = None
        for i, (step, act) in enumerate(zip(self._steps, acts, strict=True)):
            try:
                answer = step(act)
            except Exception as error:
                self._renew(i, error, self._at(i, act))
                write_row(final_obs, i, row_of(self._rows.obs, i))
                reward[i], terminated[i], truncated[i], numbers[i] = 0.0, False, True, np.nan
                ended.append(i)
                continue
            try:
                seen, gain, over, cut, info = answer
                if not plain:
                    write_row(final_obs, i, as_declared(seen))
                else:
                    if getattr(seen, "dtype", type(seen)) not in harmless or getattr(seen, "shape", ()) != shape:
                        seen = as_declared(seen)  # checks the values, may raise
                    final_obs[i] = seen  # copied at once: many environments reuse their buffer
                reward[i] = float(gain)
                terminated[i] = over
                truncated[i] = cut
            except Exception as error:
                self._refuse(i, act, answer, error)
            if self.infos.keys:
                self._read_info(i, act, info)
            if over or cut:
                ended.append(i)
                self.retries.failures[i] = 0
        if self._look:
            self._look = False
            tell_late_mask(self._envs[-1], info)
        self._check_values(acts)
        self._go_on(ended)
        self._ready = True

    def _go_on(self, ended: Sequence[int]) -> None:
        """Copy final_obs to obs, then begin the next episode where one ended."""
        if self._obs.plain:
            np.copyto(self._rows.obs, self._rows.final_obs)
        else:
            map_leaves(np.copyto, self._rows.obs, self._rows.final_obs)
        for i in ended:
            self._begin(i, self._episode[i] + 1)

    def restart(self) -> None:
        """Abandon the current episodes and begin the next ones."""
        for i in range(len(self._envs)):
            self._begin(i, self._episode[i] + 1)

    def remember(self) -> list[dict[str, Any]]:
        """Save the state of each environment object that outlives its episode, for `restore`."""
        remembered: list[dict[str, Any]] = []
        for i, memory in enumerate(self._memory):
            try:
                remembered.append({} if memory is None else memory.save())
            except Exception as error:  # raised by a third party's `state_dict`: still save the others
                name = f"environment {self._first + i}"
                remembered.append({"error": f"the state of {name} could not be saved: {describe_error(error)}"})
        return remembered

    def restore(self, recipe: Recipe) -> None:
        """Restore the environments: replay each episode's seed and actions, then restore what outlives episodes.

        Raises EnvError for one whose observation or reward differs afterwards: it is not deterministic, or state that
        outlives its episodes cannot be restored.
        """
        self._ready = False
        self._run_seed, self._now = recipe.run_seed, 0
        for i in range(len(self._envs)):
            self._restore_one(i, recipe)
        self._ready = True

    def _restore_one(self, i: int, recipe: Recipe) -> None:
        n = self._first + i
        actions = self._nested(map_leaves(np.copy, recipe.actions[n]))  # environments may write into them
        self._begin(i, int(recipe.episode[n]))
        self._start[i] = -len(actions)
        rewards = None if recipe.rewards is None else recipe.rewards[n]
        try:
            problem = self._replay(i, actions, rewards)
        except Exception as error:
            raise EnvError(f"environment {n} failed in the replay of its episode: {describe_error(error)}") from error
        back = f"environment {n} cannot be restored"
        saved = None if recipe.remembered is None else recipe.remembered[n]
        put_back = self._put_back(i, saved, back)
        shown = equal(row_of(self._rows.obs, i), row_of(recipe.obs, n))
        if LOADING & set(put_back):  # its own method restored it, whatever the replay showed
            write_row(self._rows.obs, i, row_of(recipe.obs, n))
        elif not shown:
            what = f"after the same seed and {len(actions)} actions its observation differs"
            raise EnvError(f"{back}: {problem or what}")
        elif problem is not None and not put_back:
            raise EnvError(f"{back}: {problem}")

    def _replay(self, i: int, actions: Sequence[Any], rewards: np.ndarray | None) -> str | None:
        """Replay an episode's actions. Returns the first difference in rewards, or where the episode ends too early."""
        problem = None
        for t, action in enumerate(actions):
            seen, gain, over, cut, _ = self._steps[i](action)
            write_row(self._rows.obs, i, self._obs.as_declared(seen))
            if rewards is not None and np.float32(gain) != rewards[t] and problem is None:
                problem = (
                    f"after the same seed and actions the reward of step {t + 1} is {float(gain):g}, not {rewards[t]:g}"
                )
            if over or cut:
                return problem or f"after the same seed and actions it ends at step {t + 1}, where it did not before"
        return problem

    def _put_back(self, i: int, saved: dict[str, Any] | None, back: str) -> list[str]:
        """Restore what environment i remembers besides its episode. Returns the paths that had to be restored."""
        memory = self._memory[i]
        if not saved or memory is None:
            return []
        try:
            if "error" in saved:
                raise EnvError(saved["error"])
            return memory.load(saved)
        except Exception as error:
            reason = str(error) if isinstance(error, EnvError) else describe_error(error)
            raise EnvError(f"{back}: {reason}") from error

    def close(self) -> None:
        """Close every environment, even if closing one of them raises."""
        with contextlib.ExitStack() as stack:
            for env in self._envs:
                stack.callback(env.close)
        self._ready = False

    def _begin(self, i: int, episode: int) -> None:
        """Reset environment i with the seed of this episode and write the observation into its row."""
        self._episode[i] = episode
        self._start[i] = self._now
        self._seed[i] = episode_seed(self._run_seed, self._first + i, episode)
        where = f"(reset with episode seed {self._seed[i]})"
        while True:
            try:
                answer = self._envs[i].reset(seed=self._seed[i])
                break
            except Exception as error:
                self._renew(i, error, where)
        row = map_leaves(lambda array: array[i : i + 1], self._rows.obs)  # (1, *obs)
        try:
            seen, info = answer
            write_row(row, 0, self._obs.as_declared(seen))
        except Exception as error:
            message = f"environment {self._first + i} returned no (observation, info): {describe_error(error)} {where}"
            raise EnvError(message) from error
        if self._memory[i] is None:  # a new object
            self._memory[i] = EnvMemory(self._envs[i])
            self._look = self._first == 0 and may_come_late(self._envs[i], info)
        if not all(np.isfinite(array).all() for array in parts(row).values()):
            _, problem = find_non_finite(np.zeros(1, np.float32), row)
            raise NonFiniteError(f"environment {self._first + i} returned {problem} {where}")
        if (outside := find_outside(row, self._obs.limits)) is not None:
            raise EnvError(f"environment {self._first + i} returned {outside[1]} {where}")

    def _read_info(self, i: int, act: Any, info: Any) -> None:
        """Write the requested numbers of environment i's info into its row."""
        try:
            self.infos.read(info, self._rows.info[i])
        except EnvError as error:
            raise EnvError(f"environment {self._first + i}: {error} {self._at(i, act)}") from None

    def _renew(self, i: int, error: Exception, where: str) -> None:
        """Recreate environment i after it raised. Raises EnvError if no retry is allowed, or none is left."""
        self._envs[i] = self.retries.renewed(i, self._envs[i], error, where)
        self._steps[i], self._memory[i] = self._envs[i].step, None

    def _nested(self, action: ArrayTree) -> list[Any]:
        """Split a batch of actions into single ones, nested as in the environment's own space."""
        if self._plain_action:
            return list(action)
        count = len(next(iter(action.values())))
        return [nest(self._action_paths, row_of(action, i)) for i in range(count)]

    def _refuse(self, i: int, act: Any, answer: Any, error: Exception) -> NoReturn:
        """Raise the error for an answer that is not a step, or whose numbers do not fit into float32."""
        if isinstance(error, RuntimeWarning):  # NumPy's overflow warning, where the user turned warnings into errors
            raise NonFiniteError(
                f"environment {self._first + i} returned a number beyond float32 {self._at(i, act)}"
            ) from error
        problem = describe_error(error)
        if not isinstance(answer, tuple) or len(answer) != 5:
            size = f" of {len(answer)}" if isinstance(answer, tuple) else ""
            problem = f"expected (obs, reward, terminated, truncated, info), got a {type(answer).__name__}{size}"
        raise EnvError(f"environment {self._first + i} returned no valid step: {problem} {self._at(i, act)}") from error

    def _check_values(self, acts: Sequence[Any]) -> None:
        """Raise NonFiniteError or EnvError if a reward or observation of this step is not finite or out of bounds."""
        reward, final_obs = self._rows.reward, self._rows.final_obs
        with np.errstate(invalid="ignore"):
            finite = reward.dot(self._reward_zeros) == 0 and self._obs.all_finite()
        if not finite:
            i, problem = find_non_finite(reward, final_obs)
            raise NonFiniteError(f"environment {self._first + i} returned {problem} {self._at(i, acts[i])}")
        if (outside := self._obs.out_of_range()) is not None:
            i, problem = outside
            raise EnvError(f"environment {self._first + i} returned {problem} {self._at(i, acts[i])}")

    def _at(self, i: int, act: Any) -> str:
        """Describe the current step of environment i: 'at its step 17 (action 1, episode seed 42)'."""
        return f"at its step {self._now - self._start[i]} (action {describe_action(act)}, episode seed {self._seed[i]})"
