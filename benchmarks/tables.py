"""How results are shown: medians with their range, ratios, and Markdown tables that line up in plain text too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

Measurement = dict[str, Any]


class Ratio(NamedTuple):
    """How one contender does against another in one quantity."""

    of_medians: float
    lowest_pair: float  # pairs are measurements of one repeat
    highest_pair: float


def ratio(ours: Sequence[Measurement], theirs: Sequence[Measurement], value: Callable[[Measurement], float]) -> Ratio:
    """ours / theirs of a quantity, for measurements of the same seeds in any order."""
    other = {one["seed"]: value(one) for one in theirs}
    pairs = [value(one) / other[one["seed"]] for one in ours]
    return Ratio(median(map(value, ours)) / median(other.values()), min(pairs), max(pairs))


def of(measurements: Sequence[Measurement], contender: str) -> list[Measurement]:
    """The measurements of one contender."""
    return [one for one in measurements if one["contender"] == contender]


def rate(run: Measurement) -> float:
    """Env steps per second."""
    return float(run["steps"] / run["seconds"])


def wall(run: Measurement) -> float:
    """Seconds on the wall's clock."""
    return float(run["seconds"])


def cpu(run: Measurement) -> float:
    """Seconds of computing."""
    return float(run["cpu_seconds"])


def spread(values: Sequence[float], form: str) -> str:
    """Median (lowest to highest)."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def shown(one: Ratio) -> str:
    """Of the medians (lowest to highest pair)."""
    return f"**{one.of_medians:.2f}** ({one.lowest_pair:.2f} to {one.highest_pair:.2f})"


def machine_line(results: dict[str, Any]) -> str:
    """What was measured on, with which versions."""
    machine, versions = results["machine"], results["versions"]
    return (
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['system']}, with "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as a Markdown table whose columns line up in plain text too."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
