"""README.md and the printed tables, from the results alone: pure functions of what results/*.json hold."""

from __future__ import annotations

import json
from typing import Any

from gpu_report import gpu_part
from lateral_report import lateral_part
from learned import learning_part
from limits_report import limits_part
from settings import GOAL, RESULTS, ROOT
from tables import cpu, machine_line, markdown, of, ratio, shown, speed_rows, spread, wall

PARTS = ("versus_sb3", "recurrent", "learning", "saving", "lateral", "limits", "gpu")

SPEED_NAMES = {
    "sb3": "Stable-Baselines3, `CartPole-v1` in its DummyVecEnv",
    "ours_same_env": "ppo_lab, the same `CartPole-v1`",
    "ours_same_env_records": "ppo_lab, the same `CartPole-v1`, with records",
    "ours_batched": "ppo_lab, its batched `ppo_lab/CartPole-v1`",
    "ours_batched_records": "ppo_lab, its batched `ppo_lab/CartPole-v1`, with records",
}
RECURRENT_NAMES = {
    "sb3": "sb3-contrib RecurrentPPO, `CartPole-v1` in DummyVecEnv",
    "ours_lstm": "ppo_lab LSTM, the same `CartPole-v1`, chunks of 16",
    "ours_lstm_far": "ppo_lab LSTM, the same `CartPole-v1`, chunks of 128",
    "ours_lstm_batched": "ppo_lab LSTM, its batched `ppo_lab/CartPole-v1`, chunks of 16",
    "ours_gru": "ppo_lab GRU, the same `CartPole-v1`, chunks of 16",
}
GOAL_NAMES = {
    "sb3": "Stable-Baselines3, settings of RL Zoo",
    "ours": "ppo_lab, preset `cartpole`",
    "ours_records": "ppo_lab, preset `cartpole`, with records",
}

INTRODUCTION = """\
# Benchmarks

Written by `python benchmarks/versus_sb3.py --report` from `results/*.json`: change the results, not this page.
"""

VERSUS = """\
## CartPole, side by side with Stable-Baselines3

    pip install -r requirements.txt && pip install -r benchmarks/requirements.txt
    python benchmarks/versus_sb3.py

Each of the {repeats} repeats measures every row once, in turn, with its own seed; each measurement is a process
of its own with one thread and no GPU. Tables give the median (lowest to highest). "Against SB3" is the ratio of
the medians, in brackets the range of the ratios within a repeat; "CPU time" is the ratio in seconds of
computing, which other work on the machine disturbs less. Stable-Baselines3 logs nothing. "With records" is
ppo_lab as it comes, writing metrics.jsonl and TensorBoard files; without, it writes nothing either. Loading
libraries and making environments and networks is outside the clock on both sides.

### Steps per second

Both with settings that are usual for Stable-Baselines3: 8 environments x 128 steps, 4 epochs, minibatches of
256, two separate networks of two 64-unit tanh layers (the rest is in `settings.py`). {steps} steps after
{warm_up} updates of warm-up. The aim: at least 1.5 times the steps per second.

{speed}

### Seconds to a mean return of {goal:g}

From the first line of the training loop until the last 100 episodes of training have a mean return of {goal:g}.
Each side has its best known settings: Stable-Baselines3 those of RL Zoo (`hyperparams/ppo.yml`), whose learning
rate and clip range fall to 0 over {budget} steps, where the run ends; ppo_lab its preset. A run that does not
get there counts with all its seconds, which flatters it, and is missing under "reached". The aim: at most a
quarter of the seconds.

{table}

{machine}
Load average before {before}, after {after} (1: one process computing, as here).
"""

RECURRENT = """\
## A memory, side by side with sb3-contrib

    python benchmarks/recurrent.py

sb3-contrib's RecurrentPPO with its own defaults: 8 environments x 128 steps, 10 epochs, minibatches of 128 rows,
actor and critic with an LSTM of 256 units each and two 64-unit tanh layers after it. ppo_lab has the same LSTMs with
the two layers before them, so that its LSTMs read 64 features where the others read CartPole's 4 numbers:
{ours:,} parameters against {theirs:,}. Its minibatches have 128 rows too, made of chunks: gradients go back through
at most 16 steps (8 chunks a minibatch), or 128 (1 chunk) as in sb3-contrib. {steps} steps after {warm_up} update
of warm-up, measured as above. "Return" is of the last 100 episodes at the end, the mean over {repeats} repeats: the
better a policy, the longer its episodes, on which sb3-contrib is slower. The aim: 5 times the steps per second.

{table}

{machine}
Load average before {before}, after {after} (1: one process computing, as here).
"""

SAVING = """\
## What saving costs

    python benchmarks/saving.py --json benchmarks/results/saving.json

A run of the preset `{preset}` with its default settings spends {share:.2%} of its time on checkpoints (median of
{runs} runs; {checkpoints} checkpoints each, synced to disk and read back). The aim: less than {limit:.0%}.
"""


def speed_table(results: dict[str, Any]) -> str:
    """Steps per second of every contender."""
    return markdown(["", "steps per second", "against SB3", "CPU time"], speed_rows(SPEED_NAMES, results["speed"]))


def recurrent_table(results: dict[str, Any]) -> str:
    """Steps per second of every contender with a memory."""
    rows = speed_rows(RECURRENT_NAMES, results["speed"])
    for row, name in zip(rows, RECURRENT_NAMES, strict=True):
        runs = of(results["speed"], name)
        row.append(f"{sum(run['return_mean'] for run in runs) / len(runs):.0f}")
    return markdown(["", "steps per second", "against sb3-contrib", "CPU time", "return"], rows)


def goal_table(results: dict[str, Any]) -> str:
    """Seconds to the goal of every contender."""
    rows = []
    sb3 = of(results["goal"], "sb3")
    for name, title in GOAL_NAMES.items():
        runs = of(results["goal"], name)
        reached = f"{sum(run['reached'] for run in runs)} of {len(runs)}"
        seconds = spread([wall(run) for run in runs], ".2f")
        steps = spread([run["steps"] for run in runs], ",.0f")
        against = [shown(ratio(runs, sb3, wall)), f"{ratio(runs, sb3, cpu).of_medians:.2f}"]
        rows.append([title, reached, seconds, *(against if name != "sb3" else ["1", "1"]), steps])
    return markdown(["", "reached", "seconds", "against SB3", "CPU time", "env steps"], rows)


def readme(
    versus: dict[str, Any] | None,
    recurrent: dict[str, Any] | None,
    learning: dict[str, Any] | None,
    saving: dict[str, Any] | None = None,
    lateral: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    gpu: dict[str, Any] | None = None,
) -> str:
    """The whole page; a part without results is left out, or says that there are none (GPU)."""
    parts = [INTRODUCTION]
    if versus:
        parts.append(_versus_part(versus))
    if recurrent:
        parts.append(_recurrent_part(recurrent))
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
    """Write benchmarks/README.md from results/*.json."""
    (ROOT / "benchmarks" / "README.md").write_text(readme(*read_results()), encoding="utf-8")


def read_results() -> list[dict[str, Any] | None]:
    """What was measured so far, in the order `readme` takes it; None for what was not."""
    paths = [RESULTS / f"{name}.json" for name in PARTS]
    return [json.loads(path.read_text(encoding="utf-8")) if path.exists() else None for path in paths]


def _versus_part(versus: dict[str, Any]) -> str:
    sb3 = of(versus["speed"], "sb3")
    return VERSUS.format(
        repeats=len(sb3),
        steps=f"{sb3[0]['steps']:,}",
        warm_up=versus["settings"]["speed"]["warm_up_updates"],
        budget=f"{versus['settings']['goal']['sb3']['n_timesteps']:,}",
        goal=GOAL,
        speed=speed_table(versus),
        table=goal_table(versus),
        machine=machine_line(versus),
        **versus["load"],
    )


def _recurrent_part(recurrent: dict[str, Any]) -> str:
    sb3, ours = of(recurrent["speed"], "sb3"), of(recurrent["speed"], "ours_lstm")
    return RECURRENT.format(
        repeats=len(sb3),
        steps=f"{sb3[0]['steps']:,}",
        warm_up=recurrent["settings"]["warm_up_updates"],
        theirs=sb3[0]["parameters"],
        ours=ours[0]["parameters"],
        table=recurrent_table(recurrent),
        machine=machine_line(recurrent),
        **recurrent["load"],
    )
