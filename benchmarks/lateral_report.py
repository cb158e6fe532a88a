"""The part of README.md about lateral control, from results/lateral.json."""

from __future__ import annotations

from statistics import median
from typing import Any

from tables import machine_line, markdown

PART = """\
## Lateral control

    python benchmarks/lateral.py --data DIR --model tinyphysics.onnx --fine-tune {tuned}

comma.ai's controls challenge (v2): mean total cost, less is better. The preset `lateral` is trained on the physics
surrogate and synthetic routes alone, then forked to the official network, with segments 0-99. Judged on segments
100-199 with the official noise, which nothing was trained on, and on 1000 synthetic routes that training did not see.
The preset's settings and the hardest synthetic curves were chosen while looking at costs on 100-199 (some ten runs,
docs/log.md), the settings of the fine-tuning were not. A cost on the surrogate is no score of the challenge.

{table}

{facts}

{machine}
"""

FACTS = """\
PID costs {pid_0_99:.2f} on segments 0-99 with the onnx plant (published: 84.85) and {pid_100_199:.2f} on 100-199.
With the torch plant {torch_bit_equal_of_100} of the first 100 drives are the same to the last bit. The surrogate ranks
PID's costs on the first 200 segments like the official network, Spearman's rho {surrogate_rank_correlation:.3f}."""

SURROGATE = """\
On synthetic routes PID costs {pid:.1f} on the surrogate (median {median:.1f}), no steering {zero:.0f}. With 1000 cars
one core makes {drives:.1f} million steps a second with PID, {steps:.1f} million of the environment, observations
included."""


def lateral_part(results: dict[str, Any]) -> str:
    """The whole part."""
    facts = [FACTS.format(**results["official"])] if "official" in results else []
    own = results["surrogate"]
    facts.append(
        SURROGATE.format(
            pid=own["pid"]["mean"],
            median=own["pid"]["median"],
            zero=own["zero"]["mean"],
            drives=own["pid_steps_per_cpu_second"] / 1e6,
            steps=own["env_steps_per_cpu_second"] / 1e6,
        )
    )
    tuned = len(results["fine_tuned"])
    machine = machine_line(results)
    return PART.format(tuned=tuned, table=lateral_table(results), facts="\n".join(facts), machine=machine)


def lateral_table(results: dict[str, Any]) -> str:
    """Costs of PID and of what was trained."""
    heads = ["", "seeds", "env steps", "CPU seconds", "surrogate", "official, 100-199"]
    pid = results.get("official", {}).get("pid_100_199")
    rows = [["PID", "", "", "", f"{results['surrogate']['pid']['mean']:.1f}", _number(pid)]]
    for name, title in (
        ("trained", "PPO on the surrogate alone"),
        ("fine_tuned", "the same, fine-tuned on the official plant"),
    ):
        if runs := results[name]:
            steps, seconds = (median(run[key] for run in runs) for key in ("steps", "cpu_seconds"))
            costs = [_spread([run[key] for run in runs if key in run]) for key in ("surrogate_cost", "official_cost")]
            rows.append([title, str(len(runs)), f"{steps:,.0f}", f"{seconds:,.0f}", *costs])
    return markdown(heads, rows)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f}"


def _spread(values: list[float]) -> str:
    """Median and range over seeds."""
    if not values:
        return "not measured"
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else _number(values[0])
