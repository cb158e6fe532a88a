"""PPO with a memory side by side with sb3-contrib's RecurrentPPO: steps per second.

    pip install -r requirements.txt && pip install -r benchmarks/requirements.txt
    python benchmarks/recurrent.py                      about 15 minutes; leave the machine alone meanwhile

Measured as in versus_sb3.py: every measurement is a process of its own with one thread, and the contenders take turns.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import hardware, load, versions
from measurement import measure, write_json
from report import recurrent_table, write_readme
from settings import RECURRENT_OURS, RECURRENT_SB3, RECURRENT_UPDATES, RECURRENT_WARM_UP, RESULTS
from versus_sb3 import PACKAGES, Contenders, in_turns

OUT = RESULTS / "recurrent.json"
SAME_ENV, BATCHED = "CartPole-v1", "ppo_lab/CartPole-v1"


def contenders(updates: int) -> Contenders:
    """Who is timed over a fixed number of updates."""
    span = {"warm_up": RECURRENT_WARM_UP, "updates": updates}

    def ours(core: str, env: str = SAME_ENV, chunk_length: int = 16) -> Callable[[int], dict[str, Any]]:
        settings = {"env": env, "core": core, "chunk_length": chunk_length, **span}
        return lambda seed: measure("ours.py", "recurrent", seed=seed, **settings)

    return {
        "sb3": lambda seed: measure("sb3.py", "recurrent", seed=seed, **span),
        "ours_lstm": ours("lstm"),
        "ours_lstm_far": ours("lstm", chunk_length=128),
        "ours_lstm_batched": ours("lstm", BATCHED),
        "ours_gru": ours("gru"),
    }


def run(repeats: int, updates: int) -> dict[str, Any]:
    """All measurements, with what they were made on."""
    load_before = load()
    span = {"warm_up_updates": RECURRENT_WARM_UP, "updates": updates}
    return {
        "machine": hardware(),
        "versions": versions((*PACKAGES, "sb3_contrib")),
        "settings": {**span, "sb3": RECURRENT_SB3, "ours": RECURRENT_OURS},
        "speed": in_turns(contenders(updates), repeats, "steps per second"),
        "load": {"before": load_before, "after": load()},
    }


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each contender (seeds 1, 2, ...)")
    parser.add_argument("--updates", type=int, default=RECURRENT_UPDATES, help="updates under the clock")
    parser.add_argument("--out", type=Path, default=OUT, help="results; README.md shows those of the default place")
    parser.add_argument("--report", action="store_true", help="measure nothing, write README.md from the results")
    options = parser.parse_args()
    if options.repeats < 1 or options.updates < 1:
        parser.error("--repeats and --updates: at least 1")
    if options.report:
        write_readme()
        return
    if importlib.util.find_spec("sb3_contrib") is None:
        parser.error("sb3-contrib is not installed: pip install -r benchmarks/requirements.txt")
    results = run(options.repeats, options.updates)
    write_json(options.out, results)
    print(f"\n{recurrent_table(results)}\n\n{options.out}")
    if options.out.resolve() == OUT:
        write_readme()


if __name__ == "__main__":
    main()
