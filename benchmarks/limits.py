"""How fast PPO could be on this machine at given settings, which share of that we reach, and where the rest goes.

    python benchmarks/limits.py                                      about 3 minutes; leave the machine alone meanwhile
    python benchmarks/limits.py --preset acrobot env.num_envs=32     only one, printed and not kept

An env step costs at least the environment's own step, the actor's share of a forward pass over N rows, its share of the
critic's pass over the rollout, and its share of the gradient steps of all epochs:

    limit = 1 / (1 / environment + 1 / actor + 1 / values + epochs / train)          steps per second

where `train` is how many rows a second go through a gradient step. Each is measured alone, without an action drawn, a
row kept or a loss (see bare.py). Every setting has a process of its own with one thread, in which the pieces and our
training take turns; of each the fastest turn counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

from limits_report import limits_tables
from machine import hardware, load, versions
from measurement import measure, write_json
from report import write_readme
from scaling_figure import write_picture
from settings import LIMITS, LIMITS_SCALING, LIMITS_SCALING_ENVS, RESULTS, ROOT
from tqdm import tqdm

from ppo_lab import Config, load_config, override
from ppo_lab.config.yaml_text import parse_yaml
from ppo_lab.errors import ConfigError

OUT = RESULTS / "limits.json"
SCRIPT = "limit_parts.py"
PACKAGES = ("torch", "gymnasium", "numpy", "ppo_lab")


def settings_of(preset: str | None, overrides: dict[str, Any]) -> dict[str, Any]:
    """A preset of config.yaml (None: the defaults) with overrides, as JSON holds it."""
    config: Config = load_config(ROOT / "config.yaml", preset) if preset else Config()
    settings: dict[str, Any] = override(config, overrides).model_dump(mode="json", exclude={"run"})
    return settings


def cases() -> dict[str, dict[str, Any]]:
    """What the page shows, by name; without MuJoCo less of it."""
    there = {name: case for name, case in LIMITS.items() if "half_cheetah" not in name or _has("mujoco")}
    return {name: settings_of(case.get("preset"), case.get("overrides", {})) for name, case in there.items()}


def run(given: dict[str, dict[str, Any]], sizes: list[int], seconds: float, rounds: int) -> dict[str, Any]:
    """All measurements, with what they were made on."""
    load_before = load()
    span = {"seconds": seconds, "rounds": rounds}
    found = {name: measure(SCRIPT, "setting", config=each, **span) for name, each in tqdm(given.items(), desc="limits")}
    many = settings_of(None, LIMITS_SCALING)
    return {
        "machine": hardware(),
        "versions": versions(PACKAGES),
        "span": span,
        "settings": given,
        "limits": found,
        "scaling": [
            measure(SCRIPT, "scaling", config=many, seconds=seconds, num_envs=size)
            for size in tqdm(sizes, desc="num_envs")
        ],
        "load": {"before": load_before, "after": load()},
    }


def main() -> None:
    """Measure, write the results, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.3, help="of each piece in each turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    parser.add_argument("--out", type=Path, default=OUT, help="results; README.md shows those of the default place")
    parser.add_argument("--report", action="store_true", help="measure nothing, write README.md from the results")
    parser.add_argument("--preset", help="only this preset of config.yaml; results are printed and not kept")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="the same for other settings")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 0:
        parser.error("--rounds: at least 1; --seconds: at least 0")
    if options.report:
        write_picture(json.loads(OUT.read_text(encoding="utf-8"))["scaling"])
        write_readme()
        return
    if options.preset or options.overrides:
        changes = {key: parse_yaml(value) for key, _, value in (each.partition("=") for each in options.overrides)}
        try:
            one = {options.preset or "settings": settings_of(options.preset, changes)}
        except ConfigError as error:
            parser.error(str(error))
        print(f"\n{limits_tables(run(one, [], options.seconds, options.rounds))}")
        return
    results = run(cases(), LIMITS_SCALING_ENVS, options.seconds, options.rounds)
    write_json(options.out, results)
    print(f"\n{limits_tables(results)}\n\n{options.out}")
    if options.out.resolve() == OUT:
        write_picture(results["scaling"])
        write_readme()


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


if __name__ == "__main__":
    main()
