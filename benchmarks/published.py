"""What others report for PPO on the tasks of our presets, to be shown beside our results.

Taken from the projects' own pages and repositories (CleanRL docs, RL Zoo benchmark.md, SLM-Lab, Tianshou and Spinning
Up benchmarks); none of it was run again here. What a score is differs too: CleanRL reports the last episodes of
training over seeds, RL Zoo the episodes that one trained policy plays. Small differences between rows say nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """One published score."""

    source: str
    steps: int  # of the agent; in Atari each is 4 frames
    score: str  # as printed, spread included
    remark: str = ""  # what else differs: version of the environment, seeds, ...


ZOO, CLEAN, SLM, TIANSHOU = "RL Zoo (SB3)", "CleanRL", "SLM-Lab", "Tianshou"
ONE_RUN = "one run"

PUBLISHED: dict[str, tuple[Figure, ...]] = {
    "cartpole": (
        Figure(ZOO, 100_000, "500.0 ± 0", ONE_RUN),
        Figure(SLM, 200_000, "498.9", "4 sessions"),
        Figure(CLEAN, 500_000, "490.0 ± 6.1", "3 seeds, ppo.py"),
    ),
    "pendulum": (
        Figure(ZOO, 100_000, "-172.2 ± 104", f"{ONE_RUN}, gSDE"),
        Figure(SLM, 300_000, "-174.9"),
    ),
    "acrobot": (
        Figure(SLM, 300_000, "-81.3"),
        Figure(CLEAN, 500_000, "-86.4 ± 1.3", "3 seeds"),
        Figure(ZOO, 1_000_000, "-73.5 ± 18.2", ONE_RUN),
    ),
    "mountain_car_continuous": (Figure(ZOO, 20_000, "88.3 ± 2.6", f"{ONE_RUN}, gSDE"),),
    "lunar_lander": (
        Figure(SLM, 300_000, "183.3", "v3"),
        Figure(ZOO, 1_000_000, "242.1 ± 31.8", f"{ONE_RUN}, LunarLander-v2"),
    ),
    "bipedal_walker": (Figure(ZOO, 5_000_000, "287.9 ± 2.4", ONE_RUN),),
    "half_cheetah": (
        Figure(CLEAN, 1_000_000, "1442.6 ± 46", "3 seeds, v4"),
        Figure(TIANSHOU, 1_000_000, "5783.9 ± 1244", "v3"),
        Figure(ZOO, 1_000_000, "5819 ± 664", f"{ONE_RUN}, v3"),
        Figure(TIANSHOU, 3_000_000, "7337 ± 1508", "v3"),
        Figure("Spinning Up", 3_000_000, "about 3130", "10 seeds, v3, read off a plot"),
        Figure(SLM, 10_000_000, "6240.7", "v5"),
    ),
    "hopper": (
        Figure(CLEAN, 1_000_000, "2382.9 ± 272", "3 seeds, v4"),
        Figure(TIANSHOU, 1_000_000, "2609.3 ± 701", "v3"),
        Figure(ZOO, 1_000_000, "2410 ± 10", f"{ONE_RUN}, v3"),
        Figure(TIANSHOU, 3_000_000, "3127.7 ± 413", "v3"),
        Figure("Spinning Up", 3_000_000, "about 2460", "10 seeds, v3, read off a plot"),
        Figure(SLM, 4_000_000, "1653.7", "v5"),
    ),
    "walker2d": (
        Figure(CLEAN, 1_000_000, "2288.0 ± 572", "3 seeds, v4"),
        Figure(TIANSHOU, 1_000_000, "3588.5 ± 757", "v3"),
        Figure(ZOO, 1_000_000, "3479 ± 822", f"{ONE_RUN}, v3"),
        Figure(TIANSHOU, 3_000_000, "4895.6 ± 704", "v3"),
        Figure("Spinning Up", 3_000_000, "about 2600", "10 seeds, v3, read off a plot"),
        Figure(SLM, 10_000_000, "4378.6", "v5"),
    ),
    "pong": (
        Figure(CLEAN, 10_000_000, "20.4 ± 0.2", "3 seeds, no sticky actions"),
        Figure(ZOO, 10_000_000, "21.0", f"{ONE_RUN}, no sticky actions"),
        Figure(TIANSHOU, 10_000_000, "20.2", f"{ONE_RUN}, no sticky actions"),
        Figure(SLM, 10_000_000, "16.7", "v5: actions stick in 1 of 4 frames"),
    ),
    "pong_small": (Figure(CLEAN, 10_000_000, "20.4 ± 0.2", "84 x 84 pixels, 3 seeds, no sticky actions"),),
    "breakout": (
        Figure(CLEAN, 10_000_000, "414.7 ± 28", "3 seeds, no sticky actions"),
        Figure(ZOO, 10_000_000, "398.0", f"{ONE_RUN}, no sticky actions"),
        Figure(TIANSHOU, 10_000_000, "441.8", f"{ONE_RUN}, no sticky actions"),
        Figure(SLM, 10_000_000, "326.5", "v5: actions stick in 1 of 4 frames"),
    ),
    "door_key": (Figure(ZOO, 100_000, "0.964", ONE_RUN),),
    "cartpole_no_velocity": (Figure("RL Zoo (RecurrentPPO)", 100_000, "500.0 ± 0", f"{ONE_RUN}, LSTM"),),
}

# The budget that a task is usually given, where nobody reports less: a shorter run is labelled so.
USUAL_STEPS = {"pong": 10_000_000, "pong_small": 10_000_000, "breakout": 10_000_000}
