"""The worker process of `WorkerEnvs`: a fresh Python process that steps its slice of the environments.

Imports NumPy and Gymnasium but not torch, which would cost seconds and 200 MB in every worker.
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

from ppo_lab.envs.adapters.loop import EnvLoop
from ppo_lab.envs.adapters.rows import Rows
from ppo_lab.envs.spaces import map_leaves
from ppo_lab.errors import LabError, describe_error

NOT_IMPORTABLE = "a worker process imports the environment: define it in a module file, or set env.workers to 0"


class Failure(NamedTuple):
    """A worker's answer if something raised: text, since not every exception can be sent through a pipe."""

    kind: str
    text: str
    trace: str


class News(NamedTuple):
    """A worker's answer in place of None: environments that were recreated, with reasons, and new keys of infos."""

    renewed: list[str]
    keys: tuple[str, ...]


class SharedArray:
    """A NumPy array in memory shared with subprocesses. The memory has no name, so a crash leaves nothing behind."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        context = multiprocessing.get_context("spawn")
        self._memory = context.RawArray(ctypes.c_byte, math.prod(shape) * dtype.itemsize)

    def view(self) -> np.ndarray:
        """Return the array as a view of the shared memory."""
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
    """Run a worker: make environments, then reset or step them at each message, until the pipe is closed.

    action, and each of shared_rows: a SharedArray, or a flat dictionary of them.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # often sent to the whole process group; the trainer decides
        signal.signal(number, signal.SIG_IGN)
    mine = slice(first, first + count)
    rows = Rows(*(map_leaves(lambda shared: shared.view()[mine], part) for part in shared_rows))
    actions = map_leaves(lambda shared: shared.view()[mine], action)
    with contextlib.ExitStack() as stack, contextlib.suppress(EOFError, OSError):  # the trainer's end closes the pipe
        try:
            make = pipe.recv()
            envs = [stack.enter_context(contextlib.closing(make(first + i))) for i in range(count)]
            loop = EnvLoop(envs, rows, first, make, retry, info_keys)
            stack.pop_all()
            stack.callback(loop.close)  # closes recreated environments too
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
    """Execute reset, restore, remember or step. Returns a Failure, the remembered states, News, or None."""
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
            )  # the next step overwrites the shared actions, and environments may keep theirs
    except Exception as error:
        text = str(error) if isinstance(error, LabError) else describe_error(error)
        return Failure(type(error).__name__, text, traceback.format_exc())
    renewed, keys = [*loop.retries.texts], loop.infos.news()
    loop.retries.texts.clear()
    return News(renewed, keys) if renewed or keys else None
