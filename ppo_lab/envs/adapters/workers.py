"""Step single Gymnasium environments in subprocesses: each worker runs `EnvLoop` on its slice of shared memory.

Pipes carry commands and errors only. Workers are fresh interpreters (start method spawn: a notebook's kernel has
threads, which a fork would break), so they must be able to import the environment.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

import numpy as np
import torch

from ppo_lab.envs.adapters.episode_numbers import EpisodeNumbers
from ppo_lab.envs.adapters.info import InfoKeys
from ppo_lab.envs.adapters.maker import Maker, time_limit
from ppo_lab.envs.adapters.replay import ActionLog, Replayed, recipe_from
from ppo_lab.envs.adapters.rows import Rows, row_formats
from ppo_lab.envs.adapters.running_statistics import find_statistics
from ppo_lab.envs.adapters.steps import action_format, as_numpy, as_step, on_device, to
from ppo_lab.envs.adapters.worker_process import NOT_IMPORTABLE, Failure, News, SharedArray, work
from ppo_lab.envs.checks import check_spaces
from ppo_lab.envs.contract import Action, Obs, Step
from ppo_lab.envs.spaces import flatten_space, map_leaves
from ppo_lab.errors import EnvError, NonFiniteError, describe_error

PATIENCE = 5.0  # seconds that close() waits for a worker before killing it
OPEN: weakref.WeakSet[WorkerEnvs] = weakref.WeakSet()


@atexit.register  # registered after multiprocessing, so it runs first: that would hang, since workers ignore SIGTERM
def _close_all() -> None:
    for envs in list(OPEN):
        envs.close()


@dataclass(frozen=True)
class Worker:
    """One subprocess and the environments that it steps."""

    index: int
    first: int
    count: int
    process: Any  # multiprocessing.context.SpawnProcess
    pipe: connection.Connection

    def __str__(self) -> str:
        last = self.first + self.count - 1
        which = f"environment {last}" if self.count == 1 else f"environments {self.first} to {last}"
        return f"worker {self.index} ({which})"


class WorkerEnvs(Replayed):
    """N single Gymnasium environments in subprocesses, with the same results as `SingleEnvs`, bit for bit.

    Workers ignore SIGINT and SIGTERM, which are often sent to a whole process group, and end when this process does.
    After a worker died or a step was interrupted, `reset` starts fresh workers.
    """

    def __init__(
        self,
        make: Maker,
        num_envs: int,
        workers: int,
        device: torch.device | str = "cpu",
        retry: int = 0,
        info_keys: InfoKeys = (),
    ) -> None:
        """Start min(workers, num_envs) processes. Raises EnvError if they cannot make the environment."""
        probe = make(0)  # the size of the shared memory depends on the spaces and must be known before workers start
        observation_space, action_space = probe.observation_space, probe.action_space
        self.max_episode_steps, self.running_statistics = time_limit(probe), find_statistics(probe)
        probe.close()
        check_spaces(observation_space, action_space, make.name)
        self.num_envs = num_envs
        self.observation_space = flatten_space(observation_space)
        self.action_space = flatten_space(action_space)
        self.device = torch.device(device)
        self._make, self._retry = make, retry
        try:
            ForkingPickler.dumps(make)  # the pickler that a pipe uses
        except Exception as error:  # a lambda or a class defined in a function cannot be imported by name
            raise EnvError(f"{make.name}: {describe_error(error)}; {NOT_IMPORTABLE}") from error
        self._action_format = action_format(num_envs, self.action_space)
        formats = row_formats(num_envs, self.observation_space, len(info_keys))
        self._shared_action = map_leaves(lambda one: SharedArray(*one), self._action_format)
        self._shared_rows = [map_leaves(lambda one: SharedArray(*one), part) for part in formats]
        self._action = map_leaves(SharedArray.view, self._shared_action)
        self._rows = rows = Rows(*(map_leaves(SharedArray.view, part) for part in self._shared_rows))
        self.numbers, self._info = EpisodeNumbers(info_keys, num_envs), rows.info
        self._step = as_step(rows, np.ones(num_envs, np.bool_))
        share, rest = divmod(num_envs, min(workers, num_envs))
        self._counts = [share + (w < rest) for w in range(min(workers, num_envs))]
        self._log = ActionLog(num_envs, self._action_format)
        self._workers: list[Worker] = []
        OPEN.add(self)
        self._asked: Any = None  # actions of a `step_async` without its `step_wait` yet
        self._in_step = False  # True: some worker may not have been asked, or not have answered yet
        self._ready = False
        self._closed = False
        self._start()

    def reset(self, seed: int) -> Obs:
        """Start all N episodes from one run seed; return the first observations (N, *obs)."""
        self._begin(("reset", seed))
        self._log.reset(seed)
        self.numbers.begin()
        return to(self._step.obs, self.device)

    def state_dict(self) -> dict[str, Any] | None:
        """Return seeds, episode numbers, the actions to replay the current episodes, and what outlives episodes."""
        state = self.episodes_under_way()
        if not state or not self._ready:
            return state or None
        return {**state, "$remembered": [one for share in self._exchange(("remember", 0)) for one in share]}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Replay the current episodes. Raises EnvError if a replay does not end in the saved observation."""
        self._begin(("restore", recipe_from(saved)))
        self._log.load(saved)
        self.numbers.load(saved)

    def step(self, action: Action) -> Step:
        """Act once in each environment: action is (N,) for Discrete, (N, *shape) for others, a dictionary for Dict.

        Raises EnvError or NonFiniteError that name the environment and its step (or the worker that died), with the
        worker's traceback as a note; after that only `reset` is possible.
        """
        self.step_async(action)
        return self.step_wait()

    def step_async(self, action: Action) -> None:
        """Begin a step and return while the workers act. Raises as `step`; `step_wait` must follow."""
        if not self._ready:
            raise EnvError("call reset() before the first step, and again after a failed or interrupted one")
        array = as_numpy(action, self._action_format)
        map_leaves(np.copyto, self._action, array)
        self._ready = False
        self._send(("step", 0))
        self._asked = array

    def step_wait(self) -> Step:
        """Wait for the step that `step_async` began and return it. Do not read the previous Step before that."""
        if self._asked is None:
            raise EnvError("step_wait() without step_async(): there is no step to wait for")
        array, self._asked = self._asked, None
        self._receive()
        self._ready = True
        rows = self._rows
        self._log.record(array, rows.reward, rows.terminated | rows.truncated)
        if self.numbers.wanted:
            self.numbers.take(self._info, self._step.terminated | self._step.truncated)
        return on_device(self._step, self.device)

    def close(self) -> None:
        """End the workers; kill those that do not end in time. Twice is harmless."""
        self._closed = True
        self._ready, self._asked = False, None
        self._stop()

    def _begin(self, message: tuple[str, Any]) -> None:
        """Send a reset or restore to all workers, after starting fresh ones if needed."""
        if self._closed:
            raise EnvError("these environments are closed")
        self._ready, self._asked = False, None
        if self._in_step or not self._workers:
            self._stop()  # an interrupt can leave a partial answer in a pipe
            self._start()
        self._exchange(message)
        self._ready = True

    def _start(self) -> None:
        """Start all workers and wait until each has made its environments."""
        self._started = False
        context = multiprocessing.get_context("spawn")
        keys = [key for key, _ in self.numbers.wanted]
        try:
            for index, count in enumerate(self._counts):
                first = sum(self._counts[:index])
                mine, theirs = context.Pipe()
                process = context.Process(
                    target=work,
                    args=(theirs, self._shared_action, self._shared_rows, first, count, self._retry, keys),
                    daemon=True,
                )
                process.start()
                theirs.close()  # else the pipe would stay open after the worker ended
                self._workers.append(Worker(index, first, count, process, mine))
            self._exchange(self._make)
            self._started = True
        except BaseException:
            self._stop()
            raise

    def _exchange(self, message: Any) -> list[Any]:
        """Send a message to all workers, then wait for every answer. Raises the error of the first that failed."""
        self._send(message)
        return self._receive()

    def _send(self, message: Any) -> None:
        """Send a message to all workers."""
        self._in_step = True
        for worker in self._workers:
            try:
                worker.pipe.send(message)
            except OSError:
                self._raise_dead(worker)

    def _receive(self) -> list[Any]:
        """Wait for every worker's answer. Raises the error of the first that failed."""
        answers: list[Any] = [None] * len(self._workers)
        waiting = list(self._workers)
        while waiting:
            ready = set(connection.wait([source for w in waiting for source in (w.pipe, w.process.sentinel)]))
            for worker in [w for w in waiting if w.pipe in ready or w.process.sentinel in ready]:
                waiting.remove(worker)
                answers[worker.index] = self._answer(worker)
        for news in (answer for answer in answers if isinstance(answer, News)):
            self.numbers.there.update(news.keys)
            if news.renewed:
                self._take_renewals(news.renewed)
        self._in_step = False
        for failure in (answer for answer in answers if isinstance(answer, Failure)):
            text = failure.text if self._started else f"{self._make.name} in a worker: {failure.text}"
            error = (NonFiniteError if failure.kind == "NonFiniteError" else EnvError)(text)
            error.add_note(failure.trace)
            raise error
        return answers

    def _answer(self, worker: Worker) -> Any:
        """Return a worker's answer. Raises EnvError if it ended instead."""
        with contextlib.suppress(EOFError, OSError):
            if worker.pipe.poll():
                return worker.pipe.recv()
        return self._raise_dead(worker)

    def _raise_dead(self, worker: Worker) -> NoReturn:
        """Stop all workers, then raise EnvError that names the one that ended and how."""
        worker.process.join(PATIENCE)
        code = worker.process.exitcode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how += f", {signal.strsignal(-code)}" + (": is there enough memory?" if code == -9 else "")
        if not self._started:  # a worker imports the script that started it, which must not train again
            how += "; a script that trains with workers needs `if __name__ == '__main__':` around its code"
        self._stop()
        raise EnvError(f"{worker} died ({how})")

    def _stop(self) -> None:
        """End all workers and wait for them: ask first, then kill."""
        workers, self._workers = self._workers, []
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.pipe.send(("close", 0))
        deadline = time.monotonic() + PATIENCE
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()  # it ignores SIGTERM
                worker.process.join(PATIENCE)
            worker.pipe.close()
            worker.process.close()
        self._in_step = False
