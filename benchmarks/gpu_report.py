"""The part of README.md about CUDA graphs, from results/gpu.json; what the command is where there are none."""

from __future__ import annotations

from typing import Any

from tables import machine_line, markdown, of, rate, ratio, shown, spread

CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> (title, settings)
    "plain": ("without graphs", {"run.cuda_graphs": False}),
    "graphs": ("graphs", {"run.cuda_graphs": True}),
    "graphs_bfloat16": ("graphs, bfloat16", {"run.cuda_graphs": True, "model.precision": "bfloat16"}),
}
NOT_YET = """\
## CUDA graphs

    python benchmarks/gpu.py

measures training with `run.cuda_graphs` on and off (and in bfloat16), `ppo_lab/CartPole-v1` and the recurrent preset
`cartpole_no_velocity` with 4,096 and 65,536 environments. **No figure exists yet:** the code has not run on a GPU.
`python benchmarks/gpu.py --dry-run` goes through everything but the capture; see [docs/gpu.md](../docs/gpu.md).
"""
PART = """\
## CUDA graphs

    python benchmarks/gpu.py

Training with `run.cuda_graphs` off and on, and with bodies in bfloat16: every contender is a process of its own, in
turns, {repeats} times; {updates} updates after {warm_up} of warm-up. "First update" has the capture in it.

{table}

{machine}
"""


def gpu_part(results: dict[str, Any] | None) -> str:
    """The part of the page."""
    if results is None:
        return NOT_YET
    few = next(iter(next(iter(results["speed"].values())).values()))
    settings = results["settings"]
    about = {"updates": settings["updates"], "warm_up": settings["warm_up_updates"], "repeats": len(of(few, "plain"))}
    machine = f"GPU: {results['machine']['gpu']}. {machine_line(results)}"
    return PART.format(table=gpu_table(results), machine=machine, **about)


def gpu_table(results: dict[str, Any]) -> str:
    """Steps per second of every preset and size, without graphs and with them."""
    rows = []
    for preset, sizes in results["speed"].items():
        for num_envs, runs in sizes.items():
            plain = of(runs, "plain")
            for name, (title, _) in CONTENDERS.items():
                ours = of(runs, name)
                against = "1" if name == "plain" else shown(ratio(ours, plain, rate))
                first = spread([one["first_update_seconds"] for one in ours], ".2f")
                speed = spread([rate(one) for one in ours], ",.0f")
                rows.append([f"`{preset}`", f"{int(num_envs):,}", title, speed, against, first])
    return markdown(["preset", "environments", "", "steps per second", "ratio", "first update, seconds"], rows)
