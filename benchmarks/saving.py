"""What saving costs: the share of a run's time that goes into checkpoints, at default settings.

python benchmarks/saving.py [--preset cartpole] [--runs 5] [--json FILE]; exits with 1 if it is more than 2 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from ppo_lab import Trainer, load_config
from ppo_lab.training.recorder import Recorder

CONFIG = Path(__file__).resolve().parent.parent / "config.yaml"
LIMIT = 0.02


def measure(preset: str, seed: int) -> dict[str, Any]:
    """Train one run to its end and take the time of all of it and of `write_checkpoint`, in seconds."""
    spent: list[float] = []
    write = Recorder.save

    def timed(*args: Any) -> Path:
        began = time.perf_counter()
        path = write(*args)
        spent.append(time.perf_counter() - began)
        return path

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as root:  # /tmp may be memory, where syncing costs nothing
        trainer = Trainer(load_config(CONFIG, preset, {"run.root": root, "run.seed": seed}))
        with patch.object(Recorder, "save", timed):
            began = time.perf_counter()
            for _ in trainer:
                pass
            total = time.perf_counter() - began
        trainer.close()
    return {
        "seed": seed,
        "env_steps": trainer.state.global_step,
        "checkpoints": len(spent),
        "saving_seconds": sum(spent),
        "total_seconds": total,
        "share": sum(spent) / total,
    }


def main() -> int:
    """Print one line, and write what was measured if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="cartpole")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the measurements there")
    options = parser.parse_args()
    measure(options.preset, 0)  # imports and caches
    runs = [measure(options.preset, seed) for seed in range(1, options.runs + 1)]
    share = median(run["share"] for run in runs)
    result = {"preset": options.preset, "share": share, "limit": LIMIT, "runs": runs}
    one = median(run["saving_seconds"] / run["checkpoints"] for run in runs)
    print(
        f"saving took {share:.2%} of {median(run['total_seconds'] for run in runs):.1f} s of training "
        f"({runs[0]['checkpoints']} checkpoints of {1000 * one:.1f} ms; median of {len(runs)} runs, limit {LIMIT:.0%})"
    )
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(result))
    return 0 if share <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
