"""The page about lateral control, from results that are made up."""

from __future__ import annotations

SURROGATE = {
    "pid": {"mean": 105.0, "median": 88.0},
    "zero": {"mean": 1000.0, "median": 500.0},
    "pid_steps_per_cpu_second": 1.8e7,
    "env_steps_per_cpu_second": 5e6,
}
OFFICIAL = {"pid_0_99": 84.85, "pid_100_199": 105.64, "torch_bit_equal_of_100": 99, "surrogate_rank_correlation": 0.96}


def results(official=True, tuned=1):
    runs = [{"seed": n, "steps": 10, "cpu_seconds": 7.0, "surrogate_cost": 50.0 + n} for n in (1, 2, 3)]
    if official:
        runs = [{**run, "official_cost": 60.0 + run["seed"]} for run in runs]
    made = {
        "machine": {"cpu": "c", "cores": 2, "system": "s"},
        "versions": {"torch": "2"},
        "surrogate": SURROGATE,
        "trained": runs,
        "fine_tuned": runs[:tuned],
    }
    return made | {"official": OFFICIAL} if official else made


def test_costs_are_medians_with_their_range(bench):
    page = bench.lateral_report.lateral_part(results())
    assert "| 52.0 (51.0 to 53.0)" in page
    assert "| 62.0 (61.0 to 63.0)" in page
    assert "| 61.0 " in page  # one seed has no range
    assert "84.85 on segments 0-99" in page
    assert "99 of the first 100" in page
    assert "18.0 million" in page


def test_without_the_challenges_files_nothing_is_called_official(bench):
    page = bench.lateral_report.lateral_part(results(official=False, tuned=0))
    assert page.count("not measured") == 2
    assert "84.85" not in page
    assert "fine-tuned on" not in page
