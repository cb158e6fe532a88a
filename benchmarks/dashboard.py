"""What watching costs: training speed under the live dashboard beside the same training that nobody watches.

python benchmarks/dashboard.py [--preset cartpole] [--steps 600000] [--pairs 5] [--tab Learning] [--json FILE]

Exits with 1 if it costs more than 8 %. Both run in one kernel, in turn, with the same seed; their fingerprints have to
be equal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

CONFIG = Path(__file__).resolve().parent.parent / "config.yaml"
LIMIT = 0.08
PREPARE = """
import os, time
import ppo_lab

def trained(watched, **settings):
    os.environ["PPO_LAB_UI"] = "1" if watched else "0"
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    trainer = ppo_lab.Trainer(ppo_lab.load_config(CONFIG, PRESET, overrides))
    events, moments = trainer.events, []

    def timed():  # from the end of the first update to that of the last: what is drawn in between counts
        for event in events():
            if isinstance(event, ppo_lab.ppo.events.Update):
                moments.append(time.perf_counter())
            yield event

    trainer.events = timed
    session = ppo_lab.notebook.launch(trainer)
    if watched:
        tabs = session.view._tabs  # as a click does
        tabs.selected_index = tabs.titles.index(TAB)
    session.wait()
    trainer.close()
    return {"seconds": moments[-1] - moments[0], "updates": len(moments) - 1, "fingerprint": trainer.fingerprint()}
"""


@contextmanager
def kernel() -> Iterator[BlockingKernelClient]:
    """A kernel as a notebook has one."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run(client: BlockingKernelClient, code: str) -> dict[str, Any]:
    """Execute code whose last expression is a dict; what it shows is read, as a browser would, and dropped."""
    reply = client.execute_interactive(
        "", user_expressions={"result": f"__import__('json').dumps({code})"}, timeout=600, output_hook=lambda _: None
    )
    result = reply["content"]["user_expressions"]["result"]
    if result["status"] != "ok":
        raise RuntimeError(f"{result['ename']}: {result['evalue']}")
    text = result["data"]["text/plain"]  # the repr of a string
    return dict(json.loads(text[1:-1].encode().decode("unicode_escape")))


def measure(preset: str, steps: int, pairs: int, tab: str) -> list[dict[str, Any]]:
    """Pairs of a watched run and one that is not, in turn first and second."""
    with tempfile.TemporaryDirectory() as root, kernel() as client:
        names = f"CONFIG, PRESET, TAB = {str(CONFIG)!r}, {preset!r}, {tab!r}"
        client.execute_interactive(f"{names}\n{PREPARE}", timeout=120)
        settings = f"run__root={root!r}, ppo__total_timesteps={steps}"
        run(client, f"trained(True, run__root={root!r}, ppo__total_timesteps=20_000)")  # imports and caches
        found = []
        for seed in range(1, pairs + 1):
            order = (True, False) if seed % 2 else (False, True)
            both = {watched: run(client, f"trained({watched}, run__seed={seed}, {settings})") for watched in order}
            cost = both[True]["seconds"] / both[False]["seconds"] - 1.0
            found.append({"seed": seed, "cost": cost, "watched": both[True], "unwatched": both[False]})
            print(f"seed {seed}: {both[False]['seconds']:.1f} s unwatched, {cost:+.1%} watched", flush=True)
        return found


def main() -> int:
    """Print a line for each pair and the median; write what was measured if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="cartpole")
    parser.add_argument("--steps", type=int, default=600_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tab", default="Learning", help="the panel in sight")
    parser.add_argument("--json", type=Path, help="write the measurements there")
    options = parser.parse_args()
    pairs = measure(options.preset, options.steps, options.pairs, options.tab)
    cost, same = median(pair["cost"] for pair in pairs), True
    for pair in pairs:
        same &= pair["watched"]["fingerprint"] == pair["unwatched"]["fingerprint"]
    print(f"the dashboard costs {cost:.1%} of the time (median of {len(pairs)} pairs, limit {LIMIT:.0%})")
    print("equal fingerprints with and without it" if same else "THE FINGERPRINTS DIFFER")
    about = {"preset": options.preset, "steps": options.steps, "tab": options.tab}
    result = {**about, "cost": cost, "limit": LIMIT, "pairs": pairs}
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if same and cost <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
