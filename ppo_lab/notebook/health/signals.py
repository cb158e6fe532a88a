"""What the health rules compute from the metrics of a run: smoothed values, and since when a condition holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ppo_lab.config import PPOConfig
from ppo_lab.notebook.plots.canvas import Columns, column

WIDTH = 5  # updates in the window of the running median: one or two outliers are not a finding
PATIENCE = 5  # updates in a row for which a condition must hold before it is reported
RELIEF = 5  # updates in a row for which it must not hold before the finding disappears
SLOW = 20  # PATIENCE for conditions that also occur for a while in healthy runs
FEW_EPISODES = 20  # a mean over fewer is too noisy
FIRST_EPISODES, FIRST_UPDATES = 200, 10  # whichever comes first is the start of the run
SURE = 4.0  # standard errors: a significant difference between two means if one is the highest of many
GAUSSIAN = 0.5 * math.log(2 * math.pi * math.e)  # entropy of a normal distribution of std 1, in nats


@dataclass(frozen=True)
class Verdict:
    """The result of a rule. `row`: index of the update since which it holds."""

    severity: str  # "warning" or "note"
    row: int
    what: str
    advice: str


@dataclass(frozen=True)
class Signals:
    """The metrics of a run of U updates, and what the rules compute from them. `examine` explains the fields."""

    columns: Columns
    ppo: PPOConfig
    num_actions: int | None = None
    action_dims: int | None = None
    entropy_shift: float = 0.0
    chunks: int | None = None

    def __len__(self) -> int:
        return len(self.columns.get("global_step", ()))

    def raw(self, name: str) -> np.ndarray:
        """Return a metric at every update, (U,); NaN where it is missing or infinite."""
        values = column(self.columns, name)
        return np.where(np.isfinite(values), values, np.nan)

    def smooth(self, name: str) -> np.ndarray:
        """Return the running median of a metric over its last WIDTH values, (U,); NaN before there are that many."""
        return running_median(self.raw(name))

    def typical(self, name: str, row: int) -> float:
        """Return the median of a metric from `row` on, for the text of a finding; NaN if there are no values."""
        values = self.raw(name)[row:]
        return float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else math.nan

    def in_force(self, key: str) -> float:
        """Return the value of a setting in the last update if it was recorded, else the one in `ppo`."""
        values = self.raw(f"update/{key}")
        return float(values[-1]) if len(values) and math.isfinite(values[-1]) else float(getattr(self.ppo, key))

    @cached_property
    def step(self) -> np.ndarray:
        """Env steps at every update, (U,)."""
        return self.raw("global_step")

    @cached_property
    def returns(self) -> np.ndarray:
        """Mean return of the last 100 episodes, (U,); NaN until FEW_EPISODES episodes have ended."""
        return np.where(self.raw("episode/count") >= FEW_EPISODES, self.raw("episode/return_mean"), np.nan)

    @cached_property
    def best(self) -> np.ndarray:
        """The best mean return so far, (U,)."""
        return np.fmax.accumulate(self.returns) if len(self) else self.returns

    @cached_property
    def start(self) -> float:
        """The highest mean return of the first 200 episodes or 10 updates; NaN if there is none.

        Not the very first mean: short episodes end first, and they are often the worst.
        """
        return float(self.returns[self._first].max()) if self._first.size else math.nan

    @cached_property
    def lowest(self) -> float:
        """The lowest mean return of the same period as `start`; NaN if there is none."""
        return float(self.returns[self._first].min()) if self._first.size else math.nan

    @cached_property
    def _first(self) -> np.ndarray:
        """Rows of the first 200 episodes, or of the first 10 mean returns if these are fewer, (R,) int."""
        known = np.flatnonzero(np.isfinite(self.returns))[:FIRST_UPDATES]
        return known[: 1 + int((self.raw("episode/count")[known] < FIRST_EPISODES).sum())]

    @cached_property
    def learned(self) -> bool:
        """Whether the return has risen significantly above `start`, or by a whole std above `lowest`.

        If the first episodes differ by more than can be gained, a rise by the std at the best mean return is enough.
        """
        if not self._first.size:
            return False
        chance = max(self.error(row) for row in self._first)
        spread = float(np.nan_to_num(self.raw("episode/return_std")[self._first]).max())
        best = float(self.best[-1])
        if best > self.start + max(SURE * chance, self.margin) or best > self.lowest + max(spread, self.margin):
            return True
        highest, reached = (int(np.flatnonzero(self.returns == value)[0]) for value in (self.start, best))
        now = float(np.nan_to_num(self.raw("episode/return_std")[reached], nan=math.inf))
        return best > self.start + max(now, SURE / 2 * self.error(highest), self.margin)

    def error(self, row: int) -> float:
        """Return the standard error of the mean return at a row; 0 if its std is unknown."""
        episodes = min(self.raw("episode/count")[row], 100.0)
        return float(np.nan_to_num(self.raw("episode/return_std")[row]) / math.sqrt(episodes))

    @cached_property
    def margin(self) -> float:
        """The smallest difference of mean returns that counts: 2 standard errors and 2 % of their range. May be NaN."""
        known = np.flatnonzero(np.isfinite(self.returns))
        if not known.size:
            return math.nan
        spread = float(np.nanmax(self.returns) - np.nanmin(self.returns))
        chance = np.median([self.error(row) for row in known[-WIDTH:]])
        return max(0.02 * spread, 2.0 * float(chance))

    @cached_property
    def improving(self) -> bool:
        """Whether the best mean return rose in the last third of the run, as of any of the last RELIEF updates."""
        rows = np.arange(len(self))
        before = self.best[rows - np.maximum(WIDTH, rows // 3).clip(max=rows)]  # (U,) best, a third of the run earlier
        return bool((self.best > before + self.margin)[-RELIEF:].any())

    @cached_property
    def at_its_best(self) -> bool:
        """Whether the return has risen and is now below its best by at most a tenth of the rise (or `margin`)."""
        known = self.returns[np.isfinite(self.returns)]
        near = max(0.1 * (self.best[-1] - self.start), self.margin) if known.size else math.nan
        return bool(self.learned and np.median(known[-WIDTH:]) >= self.best[-1] - near)

    @cached_property
    def to_predict(self) -> np.ndarray:
        """Whether there is something to predict, (U,) bool: Var(returns) is above 1 % of its largest value so far.

        Var(returns) is about loss/value / (1 - explained variance). Where every episode is perfect it is almost 0, and
        it does not matter that the critic explains none of it.
        """
        explained = self.smooth("update/explained_variance").clip(max=0.99)
        variance = self.smooth("loss/value") / (1.0 - explained)
        return np.nan_to_num(variance) > 0.01 * np.fmax.accumulate(np.nan_to_num(variance))

    @cached_property
    def planned_steps(self) -> int:
        """Gradient steps of an update without an early stop; a minibatch has at least one row or one chunk."""
        rows = np.diff(self.step).max(initial=0.0)
        most = self.chunks or (int(rows) if rows else self.ppo.num_minibatches)
        return self.ppo.update_epochs * min(self.ppo.num_minibatches, most)

    @cached_property
    def spread(self) -> np.ndarray | None:
        """How random the policy is, (U,): entropy / log(n), or the mean std of a continuous policy; None if unknown."""
        entropy = self.smooth("loss/entropy") - self.entropy_shift
        if self.num_actions is not None:
            return entropy / math.log(self.num_actions) if self.num_actions > 1 else None
        dims = self._dims() if self.action_dims is None else self.action_dims
        return np.exp(entropy / dims - GAUSSIAN) if dims else None

    def _dims(self) -> int | None:
        """Infer the action dimensions from the first entropy, if that fits a policy with std 1; else return None."""
        entropy = self.raw("loss/entropy")
        first = float(entropy[0]) if len(entropy) else math.nan
        dims = round(first / GAUSSIAN) if math.isfinite(first) else 0
        return dims if dims >= 1 and abs(first / dims - GAUSSIAN) < 0.1 else None


def running_median(values: np.ndarray) -> np.ndarray:
    """Return the trailing median over WIDTH values, (U,) -> (U,). NaN values are skipped."""
    rows = np.flatnonzero(np.isfinite(values))
    result = np.full(len(values), np.nan)
    if len(rows) < WIDTH:
        return result
    windows = np.lib.stride_tricks.sliding_window_view(values[rows], WIDTH)  # (points, WIDTH)
    result[rows[WIDTH - 1 :]] = np.partition(windows, WIDTH // 2, axis=-1)[:, WIDTH // 2]
    known = np.where(np.isfinite(result), np.arange(len(result)), 0)
    return result[np.maximum.accumulate(known)]


def since(bad: np.ndarray, patience: int = PATIENCE) -> int | None:
    """Return the row since which `bad`, (U,) bool, holds; None if it does not.

    It starts to hold after `patience` true values in a row, and ends after RELIEF false ones, to avoid flicker.
    """
    last_good = _last_run(~bad, RELIEF)
    begun = _runs(bad, patience)
    begun = begun[begun > last_good]
    return int(begun[0]) if begun.size else None


def early(row: int) -> int:
    """Return the row at which a change began that the running median shows since `row`: half its width earlier."""
    return max(0, row - WIDTH // 2)


def _runs(bad: np.ndarray, length: int) -> np.ndarray:
    """Return the first row of every window of `length` rows that are all true, (M,) int."""
    if len(bad) < length:
        return np.array([], dtype=int)
    return np.flatnonzero(np.convolve(bad, np.ones(length, dtype=int), "valid") == length)


def _last_run(good: np.ndarray, length: int) -> int:
    rows = _runs(good, length)
    return int(rows[-1]) if rows.size else -1
