"""`evaluate` for runs on LateralControl-v0: costs on the challenge's segments, beside PID's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ppo_lab.config import Config
from ppo_lab.errors import ConfigError, RunError

ENV = "ppo_lab/LateralControl-v0"
FLAGS = ("data", "model", "segments", "noise", "csv")  # they ask for the table; they have no defaults, to be noticed


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `evaluate` the flags of this file."""
    group = parser.add_argument_group(ENV, "Lateral, jerk and total cost of segments, paired with PID's.")
    group.add_argument("--data", metavar="DIR", type=Path, help="the challenge's CSV files; default: synthetic routes")
    group.add_argument("--model", metavar="FILE", type=Path, help="tinyphysics.onnx; default: the surrogate")
    group.add_argument(
        "--segments", metavar="N", type=_segments, help="the first N of the sorted files, or A:B (default 100)"
    )
    group.add_argument("--noise", choices=("official", "fresh"), help="that of the file name (default), or --seed's")
    group.add_argument("--csv", metavar="FILE", type=Path, help="the costs of every drive as a table")


def wanted(given: argparse.Namespace) -> bool:
    """Return whether any of the flags of this file was given."""
    return any(getattr(given, name) is not None for name in FLAGS)


def check(given: argparse.Namespace, config: Config) -> None:
    """Check the flags before anything is driven. Raise RunError or ConfigError."""
    if not wanted(given):
        return
    flag = next(f"--{name}" for name in FLAGS if getattr(given, name) is not None)
    if config.env.id != ENV:
        raise RunError(f"{given.run} was trained on {config.env.id}; {flag} is for runs on {ENV}")
    if given.model is None:
        return
    if given.data is None:
        raise ConfigError("--model needs --data, the folder with the challenge's NNNNN.csv")
    if given.stochastic or given.episodes is not None or given.max_steps is not None:
        raise ConfigError(
            "--episodes, --max-steps and --stochastic are of the run's own environment, which --model leaves out"
        )


def report(folder: Path, given: argparse.Namespace) -> None:
    """Print the table, and write the CSV file where one is asked for."""
    from ppo_lab.envs.registry import our_module

    result = our_module("lateral.challenge").evaluate_lateral(
        folder.resolve(),
        plant="surrogate" if given.model is None else "onnx",
        routes=given.data or "synthetic",
        segments=given.segments or (0, 100),
        model=given.model,
        noise=given.noise or "official",
        seed=given.seed,
        at=given.at,
    )
    print(result.table())
    if given.csv is not None:
        result.write_csv(given.csv)
        print(f"{given.csv}: the costs of every drive")


def _segments(text: str) -> tuple[int, int]:
    """Parse 100 or 100:200 as (start, stop)."""
    start, colon, stop = text.rpartition(":")
    numbers: Any = (start or "0") if colon else "0", stop
    if not all(number.isdecimal() for number in numbers) or int(numbers[0]) >= int(numbers[1]):
        raise argparse.ArgumentTypeError(f"a number of segments, or START:STOP, got {text!r}")
    return int(numbers[0]), int(numbers[1])
