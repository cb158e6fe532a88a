"""What runs in a worker of `WorkerEnvs`: a fresh Python process that steps its slice of the environments.

It stands on NumPy and Gymnasium and not on torch, which would take seconds and 200 MB in every worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import signal
import sys
import traceback
from multiprocessing import connection
from typing import Any, NamedTuple

import numpy as np

from ppo_lab.envs.adapters.loop import EnvLoop, describe_error
from ppo_lab.envs.adapters.rows import Rows
from ppo_lab.envs.spaces import map_leaves
from ppo_lab.errors import LabError

NOT_IMPORTABLE = "a worker imports the environment anew: define it in a module file, or set env.workers to 0"


class Failure(NamedTuple):
    """What a worker answers where something raised: as text, since not every exception survives a pipe."""

    kind: str
    text: str
    trace: str


class News(NamedTuple):
    """What a worker answers in place of None: environments made anew, and why; keys of infos that are new."""

    renewed: list[str]
    keys: tuple[str, ...]


class SharedArray:
    """A NumPy array in memory that subprocesses see too. It has no name, so nothing is left behind by a crash."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        context = multiprocessing.get_context("spawn")
        self._memory = context.RawArray(ctypes.c_byte, math.prod(shape) * dtype.itemsize)

    def view(self) -> np.ndarray:
        """The array, over the shared memory."""
        return np.ndarray(self._shape, self._dtype, memoryview(self._memory))


def work(
    pipe: connection.Connection,
    action: Any,
    shared_rows: list[Any],
    first: int,
    count: int,
    retry: int,
    info_keys: list[str],
) -> None:
    """A worker's life: make environments, then reset or step them at each message, until the pipe ends.

    action, and each of shared_rows: a SharedArray, or a flat dictionary of them.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # both often reach the whole process group; the trainer decides
        signal.signal(number, signal.SIG_IGN)
    mine = slice(first, first + count)
    rows = Rows(*(map_leaves(lambda shared: shared.view()[mine], part) for part in shared_rows))
    actions = map_leaves(lambda shared: shared.view()[mine], action)
    with contextlib.ExitStack() as stack, contextlib.suppress(EOFError, OSError):  # the pipe ends with the trainer
        try:
            make = pipe.recv()
            envs = [stack.enter_context(contextlib.closing(make(first + i))) for i in range(count)]
            loop = EnvLoop(envs, rows, first, make, retry, info_keys)
            stack.pop_all()
            stack.callback(loop.close)  # which knows those that were made anew
        except EOFError:
            return
        except Exception as error:
            text = str(error) if isinstance(error, LabError) else describe_error(error)
            pipe.send(Failure("EnvError", f"{text}; {NOT_IMPORTABLE}", traceback.format_exc()))
            return
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)  # the cores are for the workers
        pipe.send(None)
        while True:
            command, content = pipe.recv()
            if command == "close":
                return
            pipe.send(_obey(loop, command, content, actions))


def _obey(loop: EnvLoop, command: str, content: Any, actions: Any) -> Any:
    """Reset, restore, remember or step. The error as text, what is remembered, what is new, or None."""
    try:
        if command == "remember":
            return loop.remember()
        if command == "reset":
            loop.reset(content)
        elif command == "restore":
            loop.restore(content)
        else:
            loop.step(
                map_leaves(np.copy, actions)
            )  # the next step's actions are written over these, and environments keep theirs
    except Exception as error:
        text = str(error) if isinstance(error, LabError) else describe_error(error)
        return Failure(type(error).__name__, text, traceback.format_exc())
    renewed, keys = [*loop.retries.texts], loop.infos.news()
    loop.retries.texts.clear()
    return News(renewed, keys) if renewed or keys else None
