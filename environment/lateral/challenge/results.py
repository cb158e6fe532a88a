"""Results of a lateral evaluation: costs of each drive, the paired difference to PID, a table, a CSV file.

A cost on the surrogate is called `surrogate_cost` wherever it is shown: it is not a score of the challenge.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppo_lab.evaluation import statistics
from ppo_lab.runs.files import disk

from ..rules import Cost

PLANTS = {
    "surrogate": "the physics surrogate",
    "onnx": "the official network",
    "torch": "the official network in torch",
}


@dataclass(frozen=True)
class Drives:
    """The drives of one controller on S segments with K sets of noise. Lower cost is better."""

    cost: Cost  # (S, K) each: lateral, jerk, total
    lataccel: np.ndarray  # (500, S) m/s^2, with the first set of noise; before row 100 the recorded values
    steering: np.ndarray  # (500, S) commands, likewise

    def mean(self) -> Cost:
        """Return the mean costs of all drives."""
        return self._each(np.mean)

    def median(self) -> Cost:
        """Return the median costs of all drives."""
        return self._each(np.median)

    def p90(self) -> Cost:
        """Return the 90th percentiles of the costs of all drives."""
        return self._each(lambda costs: np.quantile(costs, 0.9))

    def _each(self, statistic: Callable[[np.ndarray], Any]) -> Cost:
        return Cost(*(float(statistic(costs)) for costs in self.cost))


@dataclass(frozen=True)
class LateralEvaluation:
    """A controller and PID on the same S segments with the same K sets of noise."""

    name: str  # of the controller
    plant: str
    noise: str
    keys: tuple[str, ...]  # (S,) of the segments
    seeds: tuple[int, ...]  # (K,) of fresh noise; other noise has no seed, and K is 1
    target: np.ndarray  # (500, S) target lateral acceleration, m/s^2
    controller: Drives
    pid: Drives

    @property
    def cost_name(self) -> str:
        """The name of the total cost: "surrogate_cost", or "total_cost" on the official network."""
        return "surrogate_cost" if self.plant == "surrogate" else "total_cost"

    @property
    def is_score(self) -> bool:
        """Whether the mean total equals the result of the challenge's own eval.py for these segments."""
        return self.plant == "onnx" and self.noise == "official" and not self._synthetic

    @property
    def difference(self) -> np.ndarray:
        """Total cost (S,) of each segment, controller - PID, averaged over the sets of noise."""
        gap: np.ndarray = (self.controller.cost.total - self.pid.cost.total).mean(1)
        return gap

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Compute the bootstrap interval of the mean difference over segments; (nan, nan) for one segment."""
        return statistics.mean_interval(self.difference, confidence)

    def rows(self) -> list[dict[str, Any]]:
        """List one row for each segment and set of noise, as written by `write_csv`."""
        found = []
        for s, key in enumerate(self.keys):
            for k in range(len(self.seeds)):
                row: dict[str, Any] = {"segment": key, "noise": self.noise}
                row["noise_seed"] = self.seeds[k] if self.noise == "fresh" else ""
                for who, drives in (("", self.controller), ("pid_", self.pid)):
                    for name, cost in zip(self._columns, drives.cost, strict=True):
                        row[who + name] = float(cost[s, k])
                found.append(row)
        return found

    def write_csv(self, path: str | Path) -> None:
        """Write the costs of every drive as a CSV file. Raises RunError if it cannot be written."""
        rows = self.rows()
        with disk(f"write {path}"), Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def table(self) -> str:
        """Format mean, median and p90 of both controllers, and the difference, as text."""
        wide = max(len(self.name), len("pid")) + 2
        lines = [self._heading(), f"{'':{wide}}{'':<16}{'mean':>10}{'median':>10}{'p90':>10}"]
        alone = self.controller is self.pid
        both = [("pid", self.pid)] if alone else [(self.name, self.controller), ("pid", self.pid)]
        for who, drives in both:
            columns = zip(drives.mean(), drives.median(), drives.p90(), strict=True)
            for name, numbers in zip(("lateral", "jerk", self.cost_name), columns, strict=True):
                shown = "".join(f"{number:>10.3f}" for number in numbers)
                lines.append(f"{who if name == 'lateral' else '':{wide}}{name:<16}{shown}")
        return "\n".join(lines if alone else [*lines, self._gap()])

    def _gap(self) -> str:
        gap, (low, high) = self.difference, self.interval()
        sure = f"95 % interval {low:.2f} to {high:.2f}" if len(gap) > 1 else "no interval from one segment"
        lower = f"lower on {int((gap < 0).sum())} of {len(gap)}"
        return f"{self.cost_name}, {self.name} - pid: {gap.mean():.2f} ({sure}), {lower}"

    def _heading(self) -> str:
        roads = "synthetic routes" if self._synthetic else "segments"
        noise = f"{self.noise} noise" + (f" of {len(self.seeds)} seeds" if len(self.seeds) > 1 else "")
        what = f"{self.cost_name} with {PLANTS[self.plant]} on {len(self.keys)} {roads}, {noise}"
        return what if self.is_score else f"{what}; not a score of the challenge"

    @property
    def _synthetic(self) -> bool:
        return self.keys[0].startswith("synthetic-")

    @property
    def _columns(self) -> tuple[str, str, str]:
        kind = "surrogate_" if self.plant == "surrogate" else ""
        return f"{kind}lateral_cost", f"{kind}jerk_cost", self.cost_name
