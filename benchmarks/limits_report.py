"""The part of README.md about the machine's limit, from results/limits.json."""

from __future__ import annotations

import math
from typing import Any

from tables import machine_line, markdown

NEEDED = ("environment", "actor", "values")  # and learning
OURS = ("rollout_ours", "learning_ours")

PART = """\
## The machine's limit

    python benchmarks/limits.py

PPO cannot take more env steps per second than the environment, the forward passes and the gradient steps alone allow,
each in the fastest of the ways tried here:
`limit = 1 / (1 / environment + 1 / actor + 1 / values + epochs / train)`. Each is measured
alone, on one thread: the environment with the actions of our last rollout, without our adapter (unless that is
faster); the actor on N rows and the critic on a rollout, in bare linear layers, the actor in NumPy where that is
faster; forward, backward and fused Adam of a minibatch without a loss, by autograd or with the chain rule by hand and
all parameters side by side (`ppo_lab/engine/mlp_gradient.py`), whichever is faster; "of autograd's" is the share of
what the limit would be if gradients had to come from torch's autograd. "Reached" is our training. Everything takes
turns in one process; of {rounds} turns the fastest counts. Adapter: the environment as our rollout steps it.

{tables}

{machine}
Load average before {before}, after {after} (1: one process computing, as here).
"""

SCALING = """\
Cost per env step of `ppo_lab/CartPole-v1` by `env.num_envs`, 32 steps a rollout, 4 epochs of 4 minibatches; memory as
`trainer.memory_plan` says before, and how much larger the process became at most, which keeps some of what tensors gave
back:

![cost per env step and memory by the number of environments](results/scaling.png)"""

PROFILE = """\
Where the time of {name} goes by function: its own time, callees left out, while the profiler watches, which
makes Python dearer than it is:"""


def best(measured: dict[str, Any]) -> dict[str, float]:
    """The fastest turn of every piece, in microseconds per env step; learning is the fastest way to do that."""
    found = {name: min(turns) for name, turns in measured["rounds"].items()}
    return found | {"learning": min(found["autograd"], found.get("by_hand", math.inf))}


def limit(measured: dict[str, Any], learning: str = "learning") -> float:
    """Steps per second that no PPO can exceed, or that none can which learns in a certain way ("autograd")."""
    pieces = best(measured)
    return 1e6 / sum(pieces[name] for name in (*NEEDED, learning))


def reached(measured: dict[str, Any]) -> float:
    """Steps per second of our training: the fastest turn as a whole."""
    return 1e6 / min(map(sum, zip(*(measured["rounds"][name] for name in OURS), strict=True)))


def limits_tables(results: dict[str, Any]) -> str:
    """All that was found, as Markdown."""
    found: dict[str, Any] = results["limits"]
    parts = [share_table(found), "Microseconds per env step, at least and ours:", pieces_table(found)]
    name = next(iter(found))
    parts += [PROFILE.format(name=name), profile_table(found[name]["profile"])]
    if results["scaling"]:
        parts += [SCALING, scaling_table(results["scaling"])]
    return "\n\n".join(parts)


def share_table(found: dict[str, Any]) -> str:
    """The limit, what we reach, and the share."""
    rows = []
    for name, one in found.items():
        shape = f"{one['num_envs']} x {one['num_steps']}, {one['update_epochs']} x {one['minibatch']}"
        share, of_autograd = (f"{reached(one) / limit(one, way):.0%}" for way in ("learning", "autograd"))
        rows.append([name, shape, f"{limit(one):,.0f}", f"{reached(one):,.0f}", f"**{share}**", of_autograd])
    return markdown(["", "envs x steps, epochs x minibatch", "limit", "reached", "share", "of autograd's"], rows)


def pieces_table(found: dict[str, Any]) -> str:
    """What an env step costs: the parts of the limit, then ours, phase by phase."""
    pieces = (*NEEDED, "learning")
    heads = ["", *pieces, "by autograd", "limit", "our rollout", "of it adapter", "our learning", "ours"]
    rows = []
    for name, one in found.items():
        each = best(one)
        shown = [*(each[piece] for piece in pieces), each["autograd"], 1e6 / limit(one)]
        shown += [each["rollout_ours"], each["adapter"], each["learning_ours"], 1e6 / reached(one)]
        rows.append([name, *(f"{value:.2f}" for value in shown)])
    return markdown(heads, rows)


def profile_table(profile: list[Any]) -> str:
    """Functions and their shares."""
    return markdown(["function", "own time"], [[f"`{name}`", f"{share:.1%}"] for name, share in profile])


def scaling_table(sizes: list[dict[str, Any]]) -> str:
    """A row for each number of environments."""
    rows = []
    for one in sizes:
        seen = "not known" if one["seen_bytes"] is None else f"{one['seen_bytes'] / 1e6:,.0f} MB"
        cost = one["microseconds"]
        planned = f"{one['planned_bytes'] / 1e6:,.0f} MB"
        rows.append([f"{one['num_envs']:,}", f"{cost:.2f}", f"{1e6 / cost:,.0f}", planned, seen])
    return markdown(["num_envs", "microseconds per step", "steps per second", "planned", "seen"], rows)


def limits_part(results: dict[str, Any]) -> str:
    """The whole part."""
    rounds, machine = results["span"]["rounds"], machine_line(results)
    return PART.format(rounds=rounds, tables=limits_tables(results), machine=machine, **results["load"])
