"""ppo_lab beside others at equal settings: steps per second, computing, memory, and seconds to a score.

    pip install -r requirements.txt && pip install -r benchmarks/requirements.txt
    python benchmarks/peers.py                          about 25 minutes; leave the machine alone meanwhile
    python benchmarks/peers.py --cleanrl FOLDER         also CleanRL's own scripts, which lie in FOLDER
    python benchmarks/peers.py --only pong goal         only these, printed and not kept
    python benchmarks/peers.py --report                 only write both README.md anew from the results

Every measurement is a process of its own, with the same number of threads for all. The contenders take turns,
A B C A B C ..., so that what slows the machine down for a while slows down all of them. Who is not installed is left
out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cleanrl_scripts import digest, measure_script
from machine import hardware, load, versions
from measurement import measure, write_json
from peers_report import peers_tables
from report import write_readme
from settings import GOAL_PRESET, GOAL_SB3, GOAL_SB3_ENVS, GOAL_SB3_STEPS, RESULTS, preset_settings
from tqdm import tqdm
from workloads import RECORDED, WORKLOADS, Workload, cleanrl_settings, puffer_task, sb3_task, tiny

OUT = RESULTS / "peers.json"
PACKAGES = ("torch", "gymnasium", "numpy", "stable_baselines3", "ppo_lab")
MORE = ("sb3_contrib", "sbx-rl", "jax", "pufferlib", "ale-py", "Box2D", "mujoco")  # told where they are installed
OPTIONAL = {  # contender -> module
    "sbx": "sbx",
    "pufferlib": "pufferlib",
}
HOW_TO_ADD = {
    "sbx": "pip install sbx-rl",
    "pufferlib": "pip install pufferlib (version 3)",
    "cleanrl": "--cleanrl FOLDER, with ppo.py, ppo_continuous_action.py, ppo_atari.py of github.com/vwxyzjn/cleanrl",
}

Contenders = Mapping[str, Callable[[int], dict[str, Any]]]  # name -> its measurement, given a seed


def contenders(workload: Workload, cleanrl: Path | None = None, python: str = sys.executable) -> Contenders:
    """Who is timed over a fixed number of updates; the one that the others are compared with comes first."""
    span = {"warm_up": workload.warm_up, "updates": workload.updates}

    def child(script: str, **task: Any) -> Callable[[int], dict[str, Any]]:
        return lambda seed: measure(script, "speed", seed=seed, num_threads=workload.threads, **span, **task)

    theirs = sb3_task(workload)
    found = {workload.baseline: child("sb3.py", algorithm=workload.baseline, **theirs)}
    if _has("sbx") and theirs["policy"] == "MlpPolicy":
        found["sbx"] = child("sb3.py", algorithm="sbx", **theirs)
    if _has("pufferlib") and workload.is_plain() and workload.minibatch % workload.ours["ppo.num_steps"] == 0:
        found["pufferlib"] = child("puffer.py", **puffer_task(workload))
    if cleanrl and workload.cleanrl and (cleanrl / workload.cleanrl).exists():
        script, flags = cleanrl / workload.cleanrl, cleanrl_settings(workload)
        found["cleanrl"] = lambda seed: measure_script(script, python, flags, workload.threads, seed, **span)
    for name, change in {"ours": {}, **workload.variants}.items():
        found[name] = child("ours.py", settings={**workload.ours, **change}, records=name in RECORDED)
    return found


def goal_contenders(settings: dict[str, Any]) -> Contenders:
    """Who is timed until the last 100 episodes have a mean return of 475."""

    def child(script: str, **task: Any) -> Callable[[int], dict[str, Any]]:
        return lambda seed: measure(script, "goal", seed=seed, **task)

    ours = settings["ours"]
    return {
        "sb3": child("sb3.py", steps=settings["sb3"]["n_timesteps"]),
        "ours": child("ours.py", config=ours, records=False),
        "ours_records": child("ours.py", config=ours, records=True),
    }


def in_turns(contenders: Contenders, repeats: int, what: str) -> list[dict[str, Any]]:
    """Every contender once with seed 1, then every one with seed 2, ... Who is optional and fails is left out."""
    measurements: list[dict[str, Any]] = []
    failed = set()
    turns = [(seed, name) for seed in range(1, repeats + 1) for name in contenders]
    progress = tqdm(turns, desc=what)
    for seed, name in progress:
        if name in failed:
            continue
        progress.set_postfix_str(f"{name}, seed {seed}")
        try:
            measurements.append({"contender": name, "seed": seed, **contenders[name](seed)})
        except SystemExit as error:
            if name not in HOW_TO_ADD:
                raise
            failed.add(name)
            progress.write(f"{what}: {name} is left out, it failed:\n{error}")
    return [one for one in measurements if one["contender"] not in failed]


def settings_used(names: list[str], quick: bool) -> dict[str, Any]:
    """What everybody runs with: the children get it from here, and the results keep it."""
    goal = {"sb3": {"env": "CartPole-v1", "n_envs": GOAL_SB3_ENVS, "n_timesteps": GOAL_SB3_STEPS, **GOAL_SB3}}
    goal["ours"] = preset_settings(GOAL_PRESET)
    if quick:
        goal["sb3"]["n_timesteps"] = 256
        goal["ours"]["ppo"]["total_timesteps"] = 2048
    return {name: goal if name == "goal" else _settings_of(_workload(name, quick)) for name in names}


def _settings_of(one: Workload) -> dict[str, Any]:
    span = {"warm_up_updates": one.warm_up, "updates": one.updates, "threads": one.threads}
    return {**span, "ours": one.ours, "variants": dict(one.variants), one.baseline: sb3_task(one)}


def _workload(name: str, quick: bool) -> Workload:
    return tiny(WORKLOADS[name]) if quick else WORKLOADS[name]


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def missing(names: list[str], cleanrl: Path | None) -> dict[str, str]:
    """What is left out of these workloads -> how to add it."""
    needs = {name: WORKLOADS[name].needs for name in names if name in WORKLOADS}
    absent = {name: need[1] for name, need in needs.items() if need and not _has(need[0])}
    absent |= {name: HOW_TO_ADD[name] for name, module in OPTIONAL.items() if not _has(module)}
    return absent if cleanrl else absent | {"cleanrl": HOW_TO_ADD["cleanrl"]}


def versions_used(cleanrl: Path | None) -> dict[str, str]:
    """Of everything that took part."""
    installed = [name for name in MORE if _is_installed(name)]
    scripts = sorted({each.cleanrl for each in WORKLOADS.values() if each.cleanrl}) if cleanrl else []
    found = {f"CleanRL's {name}": digest(cleanrl / name) for name in scripts if (cleanrl / name).exists()}  # type: ignore[operator]  # there are none without a folder
    return versions((*PACKAGES, *installed)) | found


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def run(names: list[str], repeats: int, quick: bool, cleanrl: Path | None, python: str) -> dict[str, Any]:
    """All measurements, with what they were made on. The goal has twice the repeats: it depends on luck."""
    absent = missing(names, cleanrl)
    for name, how in absent.items():
        print(f"{name} is left out; to add it: {how}")
    names = [name for name in names if name not in absent]
    load_before, settings = load(), settings_used(names, quick)
    found = {}
    for name in names:
        if name == "goal":
            found[name] = in_turns(goal_contenders(settings[name]), 2 * repeats, name)
        else:
            found[name] = in_turns(contenders(_workload(name, quick), cleanrl, python), repeats, name)
    return {
        "machine": hardware(),
        "versions": versions_used(cleanrl),
        "settings": settings,
        "measurements": found,
        "left_out": absent,
        "load": {"before": load_before, "after": load()},
    }


def main() -> None:
    """Measure, write the results, print the tables."""
    everything = [*WORKLOADS, "goal"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=everything, metavar="WORKLOAD", help=", ".join(everything))
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each contender (seeds 1, 2, ...)")
    parser.add_argument("--cleanrl", type=Path, metavar="FOLDER", help="where CleanRL's scripts are")
    parser.add_argument("--cleanrl-python", default=sys.executable, metavar="PYTHON", help="what runs them")
    parser.add_argument("--quick", action="store_true", help="almost no work, to see that all of it runs; not kept")
    parser.add_argument("--out", type=Path, help=f"results; README.md shows those of {OUT.relative_to(RESULTS.parent)}")
    parser.add_argument("--report", action="store_true", help="measure nothing, write both README.md from the results")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats: at least 1")
    if options.cleanrl and not any((options.cleanrl / one.cleanrl).is_file() for one in WORKLOADS.values()):
        parser.error(f"--cleanrl: {options.cleanrl} has none of CleanRL's scripts")
    if options.report:
        write_readme()
        return
    if not _has("stable_baselines3"):
        parser.error("Stable-Baselines3 is not installed: pip install -r benchmarks/requirements.txt")
    repeats = 1 if options.quick else options.repeats
    results = run(options.only or everything, repeats, options.quick, options.cleanrl, options.cleanrl_python)
    out = options.out or (None if options.only or options.quick else OUT)
    print(f"\n{peers_tables(results)}\n")
    if out:
        write_json(out, results)
        print(out)
    if out and out.resolve() == OUT:
        write_readme()


if __name__ == "__main__":
    main()
