"""What the tables of peers.py say, from measurements that are made up."""

from __future__ import annotations

import pytest


def runs(name, seconds, cpu=1.0, steps=1000, **more):
    """Three repeats, or as many as there are seconds."""
    several = seconds if isinstance(seconds, list) else [seconds] * 3
    told = {"peak_megabytes": 400.0, "parameters": 7_000, "return_mean": 30.0, "steps": steps, **more}
    return [
        {"contender": name, "seed": seed, "seconds": each, "cpu_seconds": cpu, **told}
        for seed, each in enumerate(several, start=1)
    ]


def cells(table):
    """Rows of a Markdown table without its head, as text."""
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]


@pytest.fixture
def results(bench):
    """We are 4 times as fast as Stable-Baselines3, and reach the goal in an eighth of its time; CleanRL took part."""
    sides = runs("sb3", 2.0, cpu=2.0) + runs("ours", 0.5, cpu=0.5, peak_megabytes=300.0)
    settings = bench.peers.settings_used(["cartpole", "pong", "recurrent", "goal"], quick=False)
    return {
        "machine": {"cpu": "c", "cores": 2, "system": "s"},
        "versions": {"torch": "2"},
        "settings": settings,
        "measurements": {
            "cartpole": runs("sb3", 2.0, cpu=2.0)
            + runs("cleanrl", 4.0)
            + runs("ours", 0.5, cpu=0.5)
            + runs("ours_batched", [1.0, 0.5, 1 / 3], cpu=0.25),
            "pong": sides,
            "recurrent": [one | {"contender": "sb3_contrib" if one["contender"] == "sb3" else "ours"} for one in sides],
            "goal": runs("sb3", [10.0, 20.0], reached=True)
            + runs("ours", [2.5, 1.25], reached=True)
            + runs("ours_records", [3.0, 3.0], reached=False),
        },
        "left_out": {},
        "load": {"before": 0.1, "after": 1.0},
    }


def test_speed_table_says_how_many_times_faster_and_what_it_costs(bench, results):
    rows = cells(bench.peers_report.speed_table(results["measurements"]["cartpole"]))
    assert [row[0] for row in rows] == [
        "Stable-Baselines3",
        "CleanRL's script",
        "ppo_lab",
        "ppo_lab, its batched `ppo_lab/CartPole-v1`",
    ]
    assert rows[0][1:] == ["500 (500 to 500)", "1", "1", "2,000.0", "400 MB"]
    assert rows[3][1:] == ["2,000 (1,000 to 3,000)", "**4.00** (2.00 to 6.00)", "8.00", "250.0", "400 MB"]


def test_goal_table_counts_a_run_that_did_not_get_there_with_all_its_seconds(bench):
    sb3 = [run | {"reached": run["seconds"] < 20} for run in runs("sb3", [10.0, 20.0])]
    ours = [run | {"reached": True} for name in ("ours", "ours_records") for run in runs(name, [3.0, 3.0])]
    rows = cells(bench.peers_report.goal_table(sb3 + ours))
    assert rows[0][1:3] == ["1 of 2", "15.00 (10.00 to 20.00)"]
    assert rows[1][3] == "**0.20** (0.15 to 0.30)"


def test_a_table_of_networks_with_memory_shows_how_well_they_played(bench, results):
    rows = cells(bench.peers_report.speed_table(results["measurements"]["recurrent"]))
    assert rows[1] == ["ppo_lab", "2,000 (2,000 to 2,000)", "**4.00** (4.00 to 4.00)", "4.00", "500.0", "300 MB", "30"]


def test_every_contender_has_a_name(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench.peers, "_has", lambda module: True)
    (tmp_path / "ppo.py").touch()
    for one in bench.workloads.WORKLOADS.values():
        assert set(bench.peers.contenders(one, tmp_path)) <= set(bench.peers_report.NAMES)


def test_the_page_has_the_part(bench, results):
    page = bench.report.readme(results)
    flat = " ".join(page.split())
    assert "Each of the 3 repeats" in flat
    assert "with one thread each (Pong: 2)" in flat
    assert "### CartPole, 8 x 128, 4 epochs, minibatches of 256" in page
    assert "1,000 env steps after 5,120 that do not count" in flat
    assert "7,000 parameters against 7,000" in flat
    assert "2 seeds" in flat
    assert "CleanRL's scripts run twice" in flat
    assert "PufferLib" not in flat


def test_the_readme_has_one_row_for_each_workload(bench, results):
    text = bench.peers_report.summary(results)
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert head.split("|")[-2].strip() == "CleanRL's script"
    body = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert body[0] == [
        "CartPole, 8 x 128, 4 epochs, minibatches of 256",
        "2,000",
        "500",
        "4.0",
        "4.0",
        "400 MB, 400 MB",
        "250",
    ]
    assert body[1][:2] == ["the same, our batched one", "2,000"]
    assert body[-2][2] == "500 (sb3-contrib)"
    assert body[-1][:4] == ["CartPole, seconds to a mean return of 475", "1.9 s", "15.0 s", "8.0"]
    assert "medians of 3 (2 seeds in the last row" in text


def test_the_table_is_written_between_two_comments_and_nowhere_else(bench, results):
    report = bench.peers_report
    page = f"before\n{report.BEGIN}old\n{report.END}after\n"
    assert report.with_summary(page, None) == f"before\n{report.BEGIN}{report.NOT_YET}{report.END}after\n"
    once = report.with_summary(page, results)
    assert once == report.with_summary(once, results)
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    with pytest.raises(ValueError, match="two comments"):
        report.with_summary("before\nafter\n", results)


def test_without_the_goal_or_more_than_one_thread_there_is_less_to_say(bench, results):
    results["measurements"] = {"cartpole": results["measurements"]["cartpole"]}
    results["settings"] = {"cartpole": results["settings"]["cartpole"]}
    assert "475" not in bench.peers_report.summary(results)
    assert bench.peers_report.threads_line(results) == "one thread each"
