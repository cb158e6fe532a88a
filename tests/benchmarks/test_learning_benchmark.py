"""What the presets learn: which seeds are run, how an interrupted one goes on, and what the tables say of them."""

from __future__ import annotations

import json

import pytest

from ppo_lab import Trainer, load_config
from ppo_lab.errors import ConfigError, EnvError, RunError

ASKED = {"threshold": 5.0, "judged_on": None, "episodes": 4, "deterministic": True}


@pytest.fixture
def learning(bench, tmp_path, monkeypatch):
    """The script, its results in a folder of the test."""
    monkeypatch.setattr(bench.learning, "OUT", tmp_path / "learning.json")
    return bench.learning


@pytest.fixture
def config(root):
    return load_config(root / "config.yaml", "debug").model_dump(mode="json", exclude={"run"})


def entry(steps=1000, task=(), **run):
    """Two seeds of a preset."""
    one = {
        "steps": steps,
        "seconds": 2.0,
        "cpu_seconds": 1.0,
        "reached_at": None,
        "evaluation_mean": 1.0,
        "processes": 2,
    }
    task = {"threshold": None, "judged_on": None, "episodes": 100, "deterministic": True} | dict(task)
    made = {"config": {"env": {"id": "Own-v0"}}, "task": task, "versions": {"torch": "2"}}
    made["machine"] = {"cpu": "c", "cores": 2, "system": "s"}
    runs = [one | {"seed": 1} | run, one | {"seed": 2, "evaluation_mean": 3.0}]
    return {"made_with": made, "summary": {"seeds": 2, "iqm": 2.0, "interval": [1.0, 3.0]}, "runs": runs}


def cells(table, row=0):
    return [cell.strip() for cell in table.splitlines()[2 + row].split("|")[1:-1]]


def test_finished_seeds_hold_only_for_what_they_were_made_with(learning, monkeypatch):
    learned = []

    def learn(made, seed, folder, fresh):
        learned.append(seed)
        return {"seed": seed, "evaluation_mean": float(seed)}

    monkeypatch.setattr(learning, "learn", learn)
    learning.run(["cartpole"], seeds=2, fresh=False, processes=1)
    learning.run(["cartpole"], seeds=3, fresh=False, processes=1)
    assert learned == [1, 2, 3]
    results = json.loads(learning.OUT.read_text())["cartpole"]
    assert [run["seed"] for run in results["runs"]] == [1, 2, 3]
    assert results["summary"]["iqm"] == 2.0
    monkeypatch.setitem(learning.TASKS, "cartpole", learning.Task(episodes=7))
    learning.run(["cartpole"], seeds=1, fresh=False, processes=1)
    learning.run(["cartpole"], seeds=1, fresh=True, processes=1)
    assert learned == [1, 2, 3, 1, 1]


def test_a_seed_that_fails_leaves_the_finished_ones(learning, monkeypatch):
    def learn(made, seed, folder, fresh):
        if seed == 1:
            raise SystemExit("learn_seed.py learn ended with status 1")
        return {"seed": seed, "evaluation_mean": 1.0}

    monkeypatch.setattr(learning, "learn", learn)
    with pytest.raises(SystemExit, match="status 1"):
        learning.run(["acrobot"], seeds=3, fresh=False, processes=1)
    assert [run["seed"] for run in json.loads(learning.OUT.read_text())["acrobot"]["runs"]] == [2, 3]


def test_a_preset_whose_package_is_missing_is_passed_over(learning, monkeypatch, capsys):
    def make_envs(config, device):
        if config.preset == "acrobot":
            raise EnvError('Acrobot-v1 needs a package: pip install "gymnasium[some]"') from ImportError("no some")
        return load(config, device)

    load = learning.make_envs
    monkeypatch.setattr(learning, "make_envs", make_envs)
    monkeypatch.setattr(learning, "learn", lambda made, seed, *_: {"seed": seed, "evaluation_mean": 1.0})
    assert list(learning.run(["acrobot", "pendulum"], seeds=1, fresh=False, processes=1)) == ["pendulum"]
    assert (
        'acrobot is passed over: Acrobot-v1 needs a package: pip install "gymnasium[some]"' in capsys.readouterr().out
    )


def test_an_environment_that_fails_for_another_reason_is_an_error(learning, monkeypatch):
    def make_envs(config, device):
        raise EnvError("cannot make it") from ValueError("no")

    monkeypatch.setattr(learning, "make_envs", make_envs)
    with pytest.raises(EnvError, match="cannot make it"):
        learning.missing("acrobot")


def test_any_preset_can_be_asked_for(learning):
    names = learning.known_presets()
    assert names[: len(learning.TASKS)] == list(learning.TASKS)
    assert "debug" in names
    assert learning.task_of("debug") == learning.Task()
    assert learning.made_with("debug")["task"]["threshold"] is None


def test_a_shorter_run_is_made_with_another_budget(learning, monkeypatch):
    budget = {steps: learning.made_with("cartpole", steps)["config"]["ppo"]["total_timesteps"] for steps in (None, 9)}
    assert budget == {None: 150_000, 9: 9}
    monkeypatch.setitem(learning.TASKS, "cartpole", learning.Task(steps=77))
    assert learning.made_with("cartpole")["config"]["ppo"]["total_timesteps"] == 77


def test_tasks_and_published_figures_are_of_the_same_presets(bench):
    assert bench.published.PUBLISHED.keys() == bench.learning.TASKS.keys()
    assert bench.published.USUAL_STEPS.keys() <= bench.learning.TASKS.keys()


def test_runs_of_other_settings_lie_in_other_folders(learning, tmp_path):
    made = learning.made_with("cartpole")
    folder = learning.folder_of(tmp_path, "cartpole", made, 3)
    assert folder.parent == tmp_path
    assert folder.name.startswith("cartpole-")
    assert folder.name.endswith("-3")
    assert folder == learning.folder_of(tmp_path, "cartpole", json.loads(json.dumps(made)), 3)
    made["versions"]["torch"] = "another"
    assert folder != learning.folder_of(tmp_path, "cartpole", made, 3)
    assert learning.folder_of(None, "cartpole", made, 3) is None


def test_an_interrupted_seed_ends_like_one_that_was_not(bench, config, tmp_path):
    whole = bench.learn_seed.learn(config, 1, **ASKED)
    trainer = bench.learn_seed.begin(config, 1, tmp_path / "seed")
    course = bench.learn_seed.Course(tmp_path / "seed" / "course.jsonl", 0)
    for update in trainer:
        course.add(update.global_step, update.metrics, {"seconds": 100.0, "cpu_seconds": 50.0})
        if update.update == 2:
            trainer.save()
            break
    course.add(update.global_step + 1, update.metrics, {"seconds": 999.0, "cpu_seconds": 999.0})  # lost with the crash
    course.close()
    trainer.close()
    resumed = bench.learn_seed.learn(config, 1, **ASKED, folder=str(tmp_path / "seed"))
    times = {name: (resumed.pop(name), whole.pop(name)) for name in ("seconds", "cpu_seconds")}
    assert resumed == whole
    assert resumed["steps"] == 512
    assert 100.0 < times["seconds"][0] < 900.0
    assert 50.0 < times["cpu_seconds"][0] < 900.0
    again = bench.learn_seed.learn(config, 1, **ASKED, folder=str(tmp_path / "seed"))  # nothing is left to train
    assert {name: again[name] for name in resumed} == resumed


def test_a_seed_without_a_checkpoint_begins_anew_and_one_in_use_is_left_alone(bench, config, tmp_path):
    folder = tmp_path / "seed"
    first = bench.learn_seed.begin(config, 1, folder)
    with pytest.raises(RunError, match="seed"):
        bench.learn_seed.begin(config, 1, folder)
    first.close()
    second = bench.learn_seed.begin(config, 1, folder)
    assert second.state.global_step == 0
    second.close()


def test_a_policy_is_judged_in_the_preset_s_own_environment(bench, config):
    stacked = {**config, "env": {**config["env"], "frame_stack": 2}}
    assert bench.learn_seed.learn(stacked, 1, **ASKED)["evaluation_mean"] > 0.0
    with pytest.raises(ConfigError, match="with other observations"):
        bench.learn_seed.learn(stacked, 1, **(ASKED | {"judged_on": "CartPole-v1"}))


def test_drawn_actions_are_drawn(bench, config, monkeypatch):
    asked = []
    real = bench.learn_seed.evaluate
    monkeypatch.setattr(bench.learn_seed, "evaluate", lambda *a, **k: asked.append(k["deterministic"]) or real(*a, **k))
    bench.learn_seed.learn(config, 1, **(ASKED | {"deterministic": False}))
    assert asked == [False]


def test_the_course_knows_when_a_return_was_reached(bench, tmp_path):
    path = tmp_path / "course.jsonl"
    course = bench.learn_seed.Course(path, 0)
    for step, mean, count in ((10, 9.0, 50), (20, 4.0, 100), (30, 6.0, 100), (40, 3.0, 100)):
        clock = {"seconds": step / 10, "cpu_seconds": step / 20}
        course.add(step, {"episode/return_mean": mean, "episode/count": count}, clock)
    course.close()
    with path.open("a") as file:
        file.write('{"step": 50, "sec')  # torn
    back = bench.learn_seed.Course(path, 40)
    back.close()
    assert back.result(5.0) == {"steps": 40, "reached_at": 30, "last": 3.0, "seconds": 4.0, "cpu_seconds": 2.0}
    assert back.result(7.0)["reached_at"] is None
    assert back.result(None)["reached_at"] is None
    earlier = bench.learn_seed.Course(path, 20)
    earlier.close()
    assert earlier.result(5.0)["steps"] == 20


def test_the_results_table(bench):
    results = {"mine": entry(task={"threshold": 2.5, "judged_on": "Other-v0"}, reached_at=500)}
    told = cells(bench.learned.learning_table(results))
    assert told[:5] == ["mine", "`Other-v0`", "most likely", "1,000", "2"]
    assert told[5:10] == ["2.0 (1.000 to 3.0)", "1.000", "2.5", "1 of 2", "500, 500"]
    assert told[10:] == ["2 (2 to 2)", "1 (1 to 1)"]
    without = cells(bench.learned.learning_table({"mine": entry(task={"deterministic": False})}))
    assert without[1:3] == ["`Own-v0`", "drawn"]
    assert without[7:10] == ["-", "-", "-"]


@pytest.mark.parametrize(("steps", "short"), [(3_000_000, True), (9_900_000, False), (10_000_000, False)])
def test_a_run_with_less_than_the_usual_budget_is_labelled(bench, steps, short):
    results = {"pong": entry(steps), "mine": entry(10)}
    page = bench.learned.learning_part(results)
    assert ("`pong` is a short run: 3M of the usual 10M steps." in page) is short
    assert cells(bench.learned.learning_table(results))[0] == ("pong (short run)" if short else "pong")
    assert cells(bench.learned.learning_table(results), 1)[0] == "mine"


def test_published_figures_stand_beside_ours_with_their_budgets(bench):
    table = bench.learned.beside_table({"mine": entry(), "hopper": entry(1_003_520)})
    rows = [cells(table, row) for row in range(len(bench.published.PUBLISHED["hopper"]))]
    assert rows[0][:2] == ["hopper", "2.0 (2 seeds, 1M steps)"]
    assert rows[0][2:] == ["2382.9 ± 272", "CleanRL", "1M", "same", "3 seeds, v4"]
    assert rows[1][:2] == ["", ""]
    assert [row[4:6] for row in rows if row[3] == "SLM-Lab"] == [["4M", "4 x ours"]]
    assert bench.learned.beside_table({"mine": entry()}) == ""


def test_resuming_is_what_a_trainer_calls_resuming(bench, config, tmp_path):
    trainer = bench.learn_seed.begin(config, 2, tmp_path / "seed")
    next(iter(trainer))
    trainer.save()
    trainer.close()
    fingerprint = trainer.fingerprint()
    resumed = bench.learn_seed.begin(config, 2, tmp_path / "seed")
    assert isinstance(resumed, Trainer)
    assert resumed.fingerprint() == fingerprint
    resumed.close()
