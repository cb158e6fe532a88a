"""CUDA graphs on and off on a GPU: steps per second of training, feed-forward and recurrent, with many environments.

    python benchmarks/gpu.py                 on a machine with a GPU that nobody else uses
    python benchmarks/gpu.py --dry-run       without one: every line but the capture, small; nothing is kept

Every measurement is a process of its own, and the contenders take turns: without graphs, with graphs, with graphs and
bodies in bfloat16. The clock starts after two updates, so what a capture takes is beside the figure and not in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_report import CONTENDERS, gpu_table
from machine import hardware, load, versions
from measurement import measure, write_json
from peers import Contenders, in_turns
from report import write_readme
from settings import GPU, GPU_DRY, GPU_ENVS, GPU_UPDATES, GPU_WARM_UP, RESULTS, preset_settings

OUT = RESULTS / "gpu.json"
PACKAGES = ("torch", "gymnasium", "numpy", "ppo_lab")


def contenders(preset: str, num_envs: int, updates: int, dry: bool) -> Contenders:
    """Who is timed, by name: one preset with `num_envs` environments."""
    base = preset_settings(preset)
    span = {"num_envs": num_envs, "warm_up": GPU_WARM_UP, "updates": updates, "dry": dry}

    def one(changes: dict[str, Any]) -> Any:
        config = {"base": base, "changes": {**GPU[preset], **(GPU_DRY if dry else {}), **changes}}
        return lambda seed: measure("gpu_training.py", "training", config=config, seed=seed, **span)

    return {name: one(changes) for name, (_, changes) in CONTENDERS.items()}


def run(sizes: Sequence[int], repeats: int, updates: int, dry: bool) -> dict[str, Any]:
    """All measurements, with what they were made on."""
    load_before = load()
    speed = {
        preset: {
            str(num_envs): in_turns(contenders(preset, num_envs, updates, dry), repeats, f"{preset}, {num_envs}")
            for num_envs in sizes
        }
        for preset in GPU
    }
    first = next(iter(next(iter(speed.values())).values()))[0]
    return {
        "machine": {**hardware(), "gpu": first["gpu"]},
        "versions": versions(PACKAGES),
        "settings": {"presets": GPU, "warm_up_updates": GPU_WARM_UP, "updates": updates},
        "speed": speed,
        "load": {"before": load_before, "after": load()},
    }


def main(given: Sequence[str] | None = None) -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each contender (seeds 1, 2, ...)")
    parser.add_argument("--updates", type=int, default=GPU_UPDATES, help="updates under the clock")
    parser.add_argument("--envs", type=int, nargs="+", default=GPU_ENVS, help="numbers of environments")
    parser.add_argument(
        "--dry-run", action="store_true", help="on the CPU, with 16 environments, once; nothing is kept"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="results; README.md shows those of the default place")
    parser.add_argument("--report", action="store_true", help="measure nothing, write README.md from the results")
    options = parser.parse_args(given)
    if options.repeats < 1 or options.updates < 1 or min(options.envs) < 1:
        parser.error("--repeats, --updates and --envs: at least 1")
    if options.report:
        write_readme()
        return
    if options.dry_run:
        print(f"\n{gpu_table(run([16], 1, 1, dry=True))}\n\nA dry run on the CPU: these are no figures.")
        return
    import torch

    if not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; --dry-run goes through everything but the capture")
    results = run(options.envs, options.repeats, options.updates, dry=False)
    write_json(options.out, results)
    print(f"\n{gpu_table(results)}\n\n{options.out}")
    if options.out.resolve() == OUT:
        write_readme()


if __name__ == "__main__":
    main()
