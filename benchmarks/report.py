"""Both README.md from the results alone: pure functions of what results/*.json hold."""

from __future__ import annotations

import json
from typing import Any

from gpu_report import gpu_part
from lateral_report import lateral_part
from learned import learning_part
from limits_report import limits_part
from peers_report import peers_part, with_summary
from settings import RESULTS, ROOT

PARTS = ("peers", "learning", "saving", "lateral", "limits", "gpu")

INTRODUCTION = """\
# Benchmarks

Written by `python benchmarks/peers.py --report` from `results/*.json`: change the results, not this page.
"""

SAVING = """\
## What saving costs

    python benchmarks/saving.py --json benchmarks/results/saving.json

A run of the preset `{preset}` with its default settings spends {share:.2%} of its time on checkpoints (median of
{runs} runs; {checkpoints} checkpoints each, synced to disk and read back). The aim: less than {limit:.0%}.
"""


def readme(
    peers: dict[str, Any] | None = None,
    learning: dict[str, Any] | None = None,
    saving: dict[str, Any] | None = None,
    lateral: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    gpu: dict[str, Any] | None = None,
) -> str:
    """The whole page; a part without results is left out, or says that there are none (GPU)."""
    parts = [INTRODUCTION]
    if peers:
        parts.append(peers_part(peers))
    if learning:
        parts.append(learning_part(learning))
    if saving:
        checkpoints = saving["runs"][0]["checkpoints"]
        parts.append(SAVING.format(**{**saving, "runs": len(saving["runs"])}, checkpoints=checkpoints))
    if lateral:
        parts.append(lateral_part(lateral))
    if limits:
        parts.append(limits_part(limits))
    parts.append(gpu_part(gpu))
    return "\n".join(parts)


def write_readme() -> None:
    """Write benchmarks/README.md and the table of README.md from results/*.json."""
    results = read_results()
    (ROOT / "benchmarks" / "README.md").write_text(readme(*results), encoding="utf-8")
    page = ROOT / "README.md"
    page.write_text(with_summary(page.read_text(encoding="utf-8"), results[0]), encoding="utf-8")


def read_results() -> list[dict[str, Any] | None]:
    """What was measured so far, in the order `readme` takes it; None for what was not."""
    paths = [RESULTS / f"{name}.json" for name in PARTS]
    return [json.loads(path.read_text(encoding="utf-8")) if path.exists() else None for path in paths]
