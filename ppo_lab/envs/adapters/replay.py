"""Exact resume for environments that cannot save their state: replay an episode's seed and actions."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ppo_lab.envs.adapters.episode_numbers import InfoMetrics
from ppo_lab.envs.adapters.loop import Recipe
from ppo_lab.envs.adapters.rows import ArrayTree, Format
from ppo_lab.envs.contract import Step
from ppo_lab.envs.spaces import map_leaves, parts
from ppo_lab.runs.piece import Piece
from ppo_lab.trees import Tree, apply

LOG = logging.getLogger("ppo_lab")
LONGEST = 200_000  # most steps of an episode that are kept; beyond it a resume would take minutes
MOST_BYTES = 2**26  # most bytes kept
PIECE_BYTES = 2**18  # bytes of a sealed piece; every checkpoint rewrites the rows that are not sealed yet
REWARD = "reward"  # a column in addition to those of the actions, which are named "action" or "action/<key>"


class ActionLog:
    """The episode number of each of N environments, and the actions and rewards of the current episodes.

    Rows are appended and never overwritten, so that a `state_dict` holds views and is almost free.
    """

    def __init__(self, num_envs: int, formats: Any) -> None:
        """Start an empty log. formats: shape and dtype of the actions of all N, from `steps.action_format`."""
        self.num_envs = num_envs
        self._formats: dict[str, Format] = {
            **{_column(key): one for key, one in parts(formats).items()}, REWARD: ((num_envs,), np.dtype(np.float32)),
        }  # fmt: skip
        step = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self._formats.values())  # bytes
        self._size = max(64, min(8192, PIECE_BYTES // step))  # rows of a piece
        self.most = max(self._size, min(LONGEST, MOST_BYTES // step))  # rows that are kept
        self.reset(0)

    def reset(self, run_seed: int) -> None:
        """Start all N episodes from their beginning."""
        self.run_seed = run_seed
        self.episode = np.zeros(self.num_envs, np.int64)
        self.length = np.zeros(self.num_envs, np.int64)  # steps of the current episode
        self._pieces: deque[Piece] = deque()  # oldest first
        self._begin_piece()

    def record(self, action: ArrayTree, reward: np.ndarray, ended: np.ndarray) -> None:
        """Append one step of all N: action (N, *action), reward (N,), ended (N,) bool."""
        if isinstance(action, dict):
            for key, values in action.items():
                self._rows[_column(key)][self._fill] = values
        else:
            self._action[self._fill] = action
        self._reward[self._fill] = reward
        self._fill += 1
        self.length += 1
        if ended.any():
            self.episode[ended] += 1
            self.length[ended] = 0
        if self._fill == self._size:
            self._seal()

    @property
    def lost(self) -> str | None:
        """Why the current episodes cannot be replayed: one is longer than the log; None if they can."""
        if (longest := int(self.length.max())) <= min(self.most, self._kept()):
            return None
        return f"a current episode has {longest:,} steps, and only {self.most:,} are kept for its replay"

    def state_dict(self, obs: Tree) -> dict[str, Any]:
        """Return the state to replay, with the current obs (N, *obs) to check the replay; {} if an episode is lost."""
        if self.lost:
            return {}
        return {
            "run_seed": self.run_seed,
            "episode": torch.from_numpy(self.episode.copy()),
            "length": torch.from_numpy(self.length.copy()),
            "pieces": self._needed(int(self.length.max())),
            "tail": {key: torch.from_numpy(rows[: self._fill]) for key, rows in self._rows.items()},
            "obs": apply(torch.clone, obs),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.reset(int(saved["run_seed"]))
        if "pieces" in saved:
            self._pieces.extend(saved["pieces"])
            for key, rows in saved["tail"].items():
                self._fill = len(rows)
                self._rows[key][: self._fill] = rows.numpy(force=True)
            self.length[:] = saved["length"].numpy(force=True)
        else:
            self._load_unsealed(recipe_from(saved))
        self.episode[:] = saved["episode"].numpy(force=True)

    def _load_unsealed(self, recipe: Recipe) -> None:
        """Load the format of version 0.1: the actions of each environment, without rewards."""
        lengths = [steps_of(actions) for actions in recipe.actions]
        longest = max(lengths)
        steps = {key: np.zeros((longest, *shape), dtype) for key, (shape, dtype) in self._formats.items()}
        for i, length in enumerate(lengths):
            for key, rows in parts(recipe.actions[i]).items():
                steps[_column(key)][longest - length :, i] = rows
        never = np.zeros(self.num_envs, np.bool_)
        for t in range(longest):
            row = {key: steps[_column(key)][t] for key in parts(recipe.actions[0])}
            self.record(row.get("", row), steps[REWARD][t], never)
        self.length[:] = lengths

    def _begin_piece(self) -> None:
        self._rows = {key: np.empty((self._size, *shape), dtype) for key, (shape, dtype) in self._formats.items()}
        self._action, self._reward = self._rows.get(_column(""), self._rows[REWARD]), self._rows[REWARD]
        self._fill = 0

    def _seal(self) -> None:
        """Seal the collected rows as a piece; drop older pieces that no current episode needs."""
        self._pieces.append(Piece({key: torch.from_numpy(rows) for key, rows in self._rows.items()}))
        self._begin_piece()
        longest = min(int(self.length.max()), self.most)
        while self._pieces and self._kept() - len(self._pieces[0]) >= longest:
            self._pieces.popleft()

    def _kept(self) -> int:
        return sum(map(len, self._pieces)) + self._fill

    def _needed(self, longest: int) -> list[Piece]:
        """Return the pieces that, together with the unsealed rows, hold the last `longest` rows."""
        kept, pieces = self._fill, list[Piece]()
        for piece in reversed(self._pieces):
            if kept >= longest:
                break
            pieces.insert(0, piece)
            kept += len(piece)
        return pieces


class Replayed(InfoMetrics):
    """Single environments, in this process or in workers, whose unfinished episodes are replayed from their seeds."""

    _log: ActionLog
    _step: Step
    _renewals = 0
    _first_renewal: str | None = None

    def episodes_under_way(self) -> dict[str, Any]:
        """Return `state_dict` without the state that outlives episodes: fast enough for every update."""
        return self.numbers.added_to(self._log.state_dict(self._step.obs))

    @property
    def lost(self) -> str | None:
        """Why the current episodes cannot be replayed; None if they can."""
        return self._log.lost

    def retries(self) -> int:
        """Return how many times an environment was recreated because it raised (env.retry)."""
        return self._renewals

    def metrics(self) -> dict[str, float]:
        """Return the means of numbers from infos, and how often an environment was recreated."""
        found = super().metrics()
        return {**found, "env/retries": float(self._renewals)} if self._renewals else found

    def why_inexact_now(self) -> str | None:
        """Return why the run cannot be replayed any more: an environment failed. None: it can."""
        return self._first_renewal

    def _take_renewals(self, texts: list[str]) -> None:
        """Count the environments that were recreated and log one line for each; `texts` are empty afterwards."""
        for text in texts:
            LOG.warning("%s; its episode is truncated (env.retry)", text)
        self._renewals += len(texts)
        self._first_renewal = self._first_renewal or texts[0]
        texts.clear()


def _column(key: str) -> str:
    return f"action/{key}" if key else "action"


def steps_of(actions: ArrayTree) -> int:
    """Return the number of steps in actions (steps, *action)."""
    return len(next(iter(parts(actions).values())))


def recipe_from(saved: Mapping[str, Any]) -> Recipe:
    """Convert a `state_dict` to the Recipe that `EnvLoop.restore` takes, in this process or in a worker."""
    episode, obs = saved["episode"].numpy(force=True), _arrays(saved["obs"])
    remembered = saved.get("$remembered")
    if "pieces" not in saved:  # written by version 0.1
        actions = [_arrays(rows) for rows in saved["actions"]]
        return Recipe(int(saved["run_seed"]), episode, actions, obs, None, remembered)
    blocks = [*(piece.rows for piece in saved["pieces"]), saved["tail"]]
    columns = {key: np.concatenate([rows[key].numpy(force=True) for rows in blocks]) for key in saved["tail"]}
    reward = columns.pop(REWARD)
    actions = []
    for i, rows in _episodes(columns, saved["length"].tolist()):
        flat = {key.removeprefix("action").removeprefix("/"): array[rows, i] for key, array in columns.items()}
        actions.append(flat.get("", flat))
    rewards = [reward[rows, i] for i, rows in _episodes(columns, saved["length"].tolist())]
    return Recipe(int(saved["run_seed"]), episode, actions, obs, rewards, remembered)


def _episodes(columns: Mapping[str, np.ndarray], lengths: list[int]) -> Iterator[tuple[int, slice]]:
    """Yield each environment and the rows of its current episode, which are the last ones."""
    total = len(next(iter(columns.values())))
    return ((i, slice(total - length, total)) for i, length in enumerate(lengths))


def _arrays(tensors: Tree) -> ArrayTree:
    return map_leaves(lambda tensor: tensor.numpy(force=True), tensors)
