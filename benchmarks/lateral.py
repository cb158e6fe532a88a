"""What lateral control learns, and whether its plants are what they say.

    python benchmarks/lateral.py                                         without the challenge's files
    python benchmarks/lateral.py --data DIR --model tinyphysics.onnx     official costs too
    python benchmarks/lateral.py --data DIR --model FILE --fine-tune 3   and three seeds fine-tuned with them

DIR holds the challenge's segments 00000.csv to 00199.csv at least: 0-99 are fine-tuned on, 100-199 are judged on.
Results go to results/lateral.json, and from there into README.md.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from machine import cores, hardware, load, versions
from measurement import measure, write_json
from report import write_readme
from settings import RESULTS

OUT = RESULTS / "lateral.json"
SCRIPT = "lateral_seed.py"
PACKAGES = ("torch", "gymnasium", "numpy", "ppo_lab")


def main() -> None:
    """Measure, write the results and the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the challenge's segments")
    parser.add_argument("--model", type=Path, help="the challenge's tinyphysics.onnx")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fine-tune", type=int, default=0, metavar="SEEDS", help="how many of them; needs --data")
    parser.add_argument("--processes", type=int, default=cores(), help="seeds at a time; default: one a core")
    parser.add_argument("--runs", type=Path, help="keep the runs in this folder")
    options = parser.parse_args()
    if (options.data is None) != (options.model is None):
        parser.error("--data and --model go together")
    if options.fine_tune and options.data is None:
        parser.error("--fine-tune needs --data and --model")
    given = {"data": options.data, "model": options.model}
    official = {name: str(path.resolve()) if path else None for name, path in given.items()}
    results: dict[str, Any] = {"machine": hardware(), "load_before": load()}
    results["versions"] = versions(PACKAGES + (("onnxruntime",) if options.data else ()))
    results["surrogate"] = measure(SCRIPT, "surrogate")
    if options.data:
        results["official"] = measure(SCRIPT, "official", **official)
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.processes) as pool:
        runs = str((options.runs or Path(temporary)).resolve())

        def seed(number: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
            trained = measure(SCRIPT, "train", seed=number, runs=runs, **official)
            tuned = number <= options.fine_tune
            return trained, measure(SCRIPT, "fine_tune", seed=number, runs=runs, **official) if tuned else None

        found = list(pool.map(seed, range(1, options.seeds + 1)))
    results["trained"] = [trained for trained, _ in found]
    results["fine_tuned"] = [tuned for _, tuned in found if tuned is not None]
    write_json(OUT, results)
    write_readme()


if __name__ == "__main__":
    main()
