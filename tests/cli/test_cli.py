"""The command line does what Python does, stops cleanly, and says what is wrong in one line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ppo_lab.cli import training
from ppo_lab.cli.flags import flag, tidied
from ppo_lab.cli.main import main
from ppo_lab.config import SECTIONS
from ppo_lab.config.loading import allowed_text, load_config
from ppo_lab.config.yaml_text import render_scalar
from ppo_lab.runs.checkpoint import load_checkpoint, problem_of
from ppo_lab.runs.run import find_checkpoint, read_config
from ppo_lab.training.trainer import Trainer

KEYS = [(section, name) for section, model in SECTIONS.items() for name in model.model_fields]
QUICK = ["--preset", "debug", "--ppo.num-steps", "16", "--ppo.total-timesteps", "256", "--run.tensorboard", "false"]
SLOW = {  # long enough that a signal comes in the middle, short enough to train it three times
    "env.id": "ppo_lab/CartPole-v1", "env.num_envs": 4, "model.hidden_sizes": [8], "ppo.total_timesteps": 16_384,
    "ppo.num_steps": 64, "ppo.update_epochs": 1, "ppo.num_minibatches": 2, "run.tensorboard": False,
    "ppo.learning_rate_schedule": "linear", "run.checkpoint_every": 4096,
}  # fmt: skip


@pytest.fixture
def train(tmp_path, root, monkeypatch):
    """Train a short run of this name; returns its folder."""
    monkeypatch.chdir(root)

    def train(name, *flags):
        assert main(["train", *QUICK, "--run.root", str(tmp_path), "--run.name", name, *flags]) == 0
        return tmp_path / name

    return train


def newest_fingerprint(folder):
    return load_checkpoint(find_checkpoint(folder)[0])["about"]["fingerprint"]


def error_line(capsys, code, arguments):
    """The one line on stderr of a command that fails with an error of ours."""
    capsys.readouterr()
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    return error


def usage_error(capsys, arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    return capsys.readouterr().err


# settings as flags


@pytest.mark.parametrize("command", ["train", "fork"])
def test_every_setting_is_a_flag_whose_help_has_default_range_and_meaning(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    entries = [" ".join(entry.split()) for entry in capsys.readouterr().out.split("\n  --")]
    for section, name in KEYS:
        field = SECTIONS[section].model_fields[name]
        (entry,) = [entry for entry in entries if entry.startswith(f"{flag(section, name)[2:]} ")]
        assert f"{field.description}{allowed_text(field)} (default {render_scalar(field.default)})" in entry


def test_flags_set_what_they_say_in_either_spelling(train, capsys):
    folder = train(
        "flags", "--ppo.learning_rate", "1e-3", "--ppo.clip-coef=0.1", "--model.hidden_sizes", "[4, 4]",
        "--model.log-std-init", "-1e-3", "--model.shared", "true", "--ppo.target-kl", "null",
        "--env.kwargs", "{max_episode_steps: 30}",
    )  # fmt: skip
    config = read_config(folder)
    assert (config.ppo.learning_rate, config.ppo.clip_coef, config.ppo.num_steps) == (1e-3, 0.1, 16)
    assert (config.model.hidden_sizes, config.model.log_std_init, config.model.shared) == ((4, 4), -1e-3, True)
    assert config.run.tensorboard is False  # on by default
    assert (config.preset, config.env.kwargs) == ("debug", {"max_episode_steps": 30})
    out = capsys.readouterr()
    assert "done: 256 of 256 steps, return " in out.out
    assert out.out.endswith(f"run {folder}\n")
    assert "flags" in out.err  # the progress bar
    assert "256/256" in out.err


def test_only_names_of_flags_are_tidied():
    assert tidied(["fork", "my_run", "--run.name=a_b", "--ppo.clip_coef", "-.5", "--at", "1_024"]) == [
        "fork", "my_run", "--run.name=a_b", "--ppo.clip-coef=-.5", "--at", "1_024",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--ppo.gamma", "3"], "ppo.gamma: input should be less than or equal to 1, got 3; allowed in [0, 1]"),
        (["--ppo.num-steps", "many"], "ppo.num_steps: "),
        (["--ppo.num-steps", "true"], "ppo.num_steps: expected a number, not true/false"),
        (["--run.tensorboard", "maybe"], "run.tensorboard: "),
        (["--env.kwargs", "{a"], "not YAML"),
        (["--model.activation", "sine"], "allowed tanh | relu"),
        (["--run.name", "../out"], "run.name: a run name has 1 to 64 letters"),
        (["--preset", "cartpoll"], "did you mean 'cartpole'?"),
        (["--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["--env.id", "Nothing-v0"], "Nothing"),
    ],
)
def test_a_wrong_value_is_one_line(flags, text, capsys, tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    assert text in error_line(capsys, 1, ["train", "--run.root", str(tmp_path), *flags])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "--ppo.gama", "0.9"], "unknown flag --ppo.gama; did you mean --ppo.gamma?"),
        (["train", "--run.gradient", "autograd"], "unknown flag --run.gradient; it is now --run.engine"),
        (["train", "--learning_rate", "0.9"], "unknown flag --learning-rate; did you mean --ppo.learning-rate?"),
        (["train", "--ppo.gamma"], "expected one argument"),
        (["train", "cartpole"], "unexpected 'cartpole'"),
        (["resume", "x", "--ppo.gamma", "0.9"], "make a new run: `fork RUN --ppo.gamma ...`"),
        (["fork", "x", "--at", "noon"], "best, latest or a step, got 'noon'"),
        (["evaluate", "x", "--episodes", "ten"], "invalid int value"),
        (["learn"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_usage_is_short_and_points_the_way(arguments, text, capsys):
    error = usage_error(capsys, arguments)
    assert text in error
    assert error.count("\n") <= 2


# the same as Python


def test_python_and_the_command_line_make_the_same_run(train, tmp_path):
    folder = train("one", "--ppo.learning-rate", "1e-3", "--run.seed", "7")
    overrides = {"ppo.num_steps": 16, "ppo.total_timesteps": 256, "ppo.learning_rate": 1e-3, "run.seed": 7}
    config = load_config(preset="debug", overrides={**overrides, "run.root": None})
    trainer = Trainer(config)
    list(trainer)
    trainer.close()
    assert newest_fingerprint(folder) == trainer.fingerprint()
    other = train("other", "--ppo.learning-rate", "1e-3", "--run.seed", "8")
    assert newest_fingerprint(other) != trainer.fingerprint()


def test_resume_extends_and_says_when_nothing_is_left(train, capsys):
    folder = train("short")
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "nothing left to do: 256 of 256 steps" in out
    assert f"python -m ppo_lab resume {folder} --total-timesteps N" in out
    assert main(["resume", str(folder), "--total_timesteps", "3_84"]) == 0
    assert "done: 384 of 384 steps" in capsys.readouterr().out
    assert main(["runs", str(folder.parent)]) == 0
    assert "384 / 384" in capsys.readouterr().out
    assert newest_fingerprint(folder) != newest_fingerprint(train("whole", "--ppo.total-timesteps", "128"))
    assert "total_timesteps" in error_line(capsys, 1, ["resume", str(folder), "--total-timesteps", "0"])


def test_an_extended_run_that_was_stopped_is_not_finished(train, capsys):
    folder = train("long")
    trainer = Trainer.resume(folder, total_timesteps=640)
    next(iter(trainer))
    trainer.save()
    trainer.close()
    capsys.readouterr()
    main(["runs", str(folder.parent)])
    assert capsys.readouterr().out.splitlines()[1].split()[:5] == ["long", "ppo_lab/CartPole-v1", "320", "/", "640"]
    main(["show", str(folder)])
    assert "stopped" in capsys.readouterr().out


def test_fork_begins_at_a_checkpoint_with_other_settings(train, capsys, tmp_path):
    train("parent", "--run.checkpoint-every", "64", "--run.keep-last", "9")
    flags = ["--ppo.clip_coef", "0.3", "--run.name", "child", "--ppo.total-timesteps", "320"]
    assert main(["fork", str(tmp_path / "parent"), "--at", "128", *flags]) == 0
    assert "done: 320 of 320 steps" in capsys.readouterr().out
    lineage = json.loads((tmp_path / "child" / "lineage.json").read_text())
    assert (lineage["parent"], lineage["step"]) == ("parent", 128)
    assert lineage["changes"] == {"ppo.clip_coef": [0.2, 0.3], "ppo.total_timesteps": [256, 320]}
    assert main(["fork", str(tmp_path / "parent"), "--at", "best", "--run.name", "best"]) == 0
    lineage = json.loads((tmp_path / "best" / "lineage.json").read_text())
    assert lineage["step"] == json.loads((tmp_path / "parent" / "best").read_text())["step"]
    assert "has no checkpoint at 100" in error_line(capsys, 1, ["fork", str(tmp_path / "parent"), "--at", "100"])


def test_replay_is_0_for_the_same_run_and_1_for_another(train, capsys):
    folder = train("one")
    capsys.readouterr()
    assert main(["replay", str(folder)]) == 0
    assert newest_fingerprint(folder) in capsys.readouterr().out
    change = {"update": 3, "global_step": 128, "key": "clip_coef", "old": 0.2, "new": 0.001, "source": "code"}
    (folder / "journal.jsonl").write_text(json.dumps(change) + "\n")
    assert main(["replay", str(folder)]) == 1
    assert "first at update 3" in capsys.readouterr().err


def test_a_run_is_found_by_path_or_by_name(train, capsys, tmp_path, monkeypatch):
    folder = train("one")
    (tmp_path / "project" / "below").mkdir(parents=True)
    (tmp_path / "project" / "config.yaml").write_text("run: {root: ..}\n")
    monkeypatch.chdir(tmp_path / "project" / "below")
    for place in ("one", str(folder), f"{folder}/", "../../one"):
        assert main(["show", place]) == 0, place
    monkeypatch.chdir(folder)
    assert main(["show", "."]) == 0
    monkeypatch.chdir(tmp_path / "project" / "below")
    assert "runs in ../..: one" in error_line(capsys, 1, ["show", "two"])
    assert main(["runs"]) == 0
    assert "one  " in capsys.readouterr().out


# what is printed


def test_evaluate_plays_with_the_policy_of_the_run(train, capsys):
    folder = train("one")
    capsys.readouterr()
    answers = []
    for flags in ([], [], ["--stochastic"], ["--seed", "2"], ["--at", "best"]):
        assert main(["evaluate", str(folder), "--episodes", "6", *flags]) == 0
        answers.append(capsys.readouterr().out)
    assert "6 episodes" in answers[0]
    assert "6 of 6 terminated" in answers[0]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]
    assert answers[0] != answers[3]
    assert "episodes: at least 1, got 0" in error_line(capsys, 1, ["evaluate", str(folder), "--episodes", "0"])


def test_the_table_lists_every_run_even_a_broken_one(train, capsys, tmp_path):
    train("one")
    main(["fork", str(tmp_path / "one"), "--run.name", "two", "--ppo.total-timesteps", "320"])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("ppo: {gamma: 3}\n")
    capsys.readouterr()
    assert main(["runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "env", "steps", "best", "state", "parent"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert "256 / 256" in rows["one"]
    assert "finished" in rows["one"]
    assert rows["two"].endswith("one at 256")
    assert "unreadable: ppo.gamma" in rows["broken"]
    assert main(["runs", str(tmp_path / "none")]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_show_tells_settings_lineage_journal_checkpoints_and_metrics(train, capsys, tmp_path):
    folder = train("one")
    main(["resume", str(folder), "--total-timesteps", "320"])
    main(["fork", str(folder), "--run.name", "two", "--ppo.gamma", "0.9", "--ppo.total-timesteps", "384"])
    capsys.readouterr()
    assert main(["show", str(folder)]) == 0
    one = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "ppo.num_steps 16 default 128" in one
    assert not [line for line in one if line.startswith("ppo.gamma")]
    assert "update 5, step 256 total_timesteps 256 -> 320 resume" in one
    assert "fork two at 320 finished" in one
    assert [line for line in one if line.startswith("320 whole")]
    assert "global_step 320" in one
    assert f"fingerprint {newest_fingerprint(folder)} at 320" in one
    (folder / "checkpoints" / "320" / "state.json").write_text("{}")
    assert main(["show", str(tmp_path / "two")]) == 0
    assert "forked from  one at 320  ppo.total_timesteps 256 -> 384, ppo.gamma 0.99 -> 0.9" in capsys.readouterr().out
    assert main(["show", str(folder)]) == 0
    assert "state.json is not what was written" in capsys.readouterr().out


def test_export_writes_a_table(train, capsys, tmp_path):
    folder = train("one")
    assert main(["export-csv", str(folder), str(tmp_path / "one.csv")]) == 0
    with (tmp_path / "one.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["global_step"]) for row in rows] == [64, 128, 192, 256]
    assert "cannot write" in error_line(capsys, 1, ["export-csv", str(folder), str(tmp_path / "no" / "one.csv")])


# processes and signals


def run(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "ppo_lab", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options,
    )  # fmt: skip


def wait_for_updates(folder, count, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").read_text().count("\n") >= count:
            return
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"training did not get under way: {process.communicate()}")


def flags_of(settings):
    return [text for key, value in settings.items() for text in (f"--{key}", json.dumps(value).strip('"'))]


@pytest.fixture(scope="module")
def undisturbed():
    """The fingerprint of SLOW without a signal."""
    trainer = Trainer(load_config(overrides={**SLOW, "run.root": None}))
    list(trainer)
    trainer.close()
    return trainer.fingerprint()


def test_one_press_can_arrive_twice_and_only_ctrl_c_can_insist(monkeypatch):
    now, left = [100.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training.os, "_exit", left.append)
    stop = training.StopAsked()
    stop(signal.SIGTERM, None)
    now[0] += 0.1
    stop(signal.SIGINT, None)
    now[0] += 10.0
    stop(signal.SIGTERM, None)
    assert (stop.number, left) == (signal.SIGTERM, [])
    stop(signal.SIGINT, None)
    assert left == [130]


@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_stops_after_the_update_and_resume_goes_on_exactly(
    number, code, word, undisturbed, tmp_path, root, capsys
):
    folder = tmp_path / "cut"
    process = run("train", "--run.root", str(tmp_path), "--run.name", "cut", *flags_of(SLOW), cwd=root)
    wait_for_updates(folder, 2, process)
    os.kill(process.pid, number)
    time.sleep(0.005)
    os.kill(process.pid, number)  # as `timeout` and `make` do: the same press, arriving twice
    out, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert f"stopped by {word}: " in out
    assert f"continue with: python -m ppo_lab resume {folder}\n" in out
    steps = [json.loads(line)["global_step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] < SLOW["ppo.total_timesteps"]
    path, passed = find_checkpoint(folder)
    assert (path.name, passed, problem_of(path)) == (str(steps[-1]), [], "")
    assert not list(folder.rglob(".tmp-*"))
    assert (folder / "best").exists()
    assert main(["resume", str(folder)]) == 0
    assert newest_fingerprint(folder) == undisturbed


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path, root):
    stuck = {"env.id": "tests.slow_envs:Slow-v0", "env.allow_import": True, "run.checkpoint_every": 0}
    environment = {**os.environ, "SLOW_STEP": "1000", "SLOW_NOTES": str(tmp_path / "notes")}
    process = run(
        "train", "--run.root", str(tmp_path), "--run.name", "cut", *flags_of(stuck), cwd=root, env=environment
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "notes").exists() or "step" not in (tmp_path / "notes").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None  # it waits for the step
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "ended at once" in error
    assert not list((tmp_path / "cut").glob("checkpoints/*"))


@pytest.mark.slow
def test_a_signal_to_the_whole_group_leaves_the_workers_to_the_trainer(tmp_path, root):
    settings = {**SLOW, "env.id": "Acrobot-v1", "env.workers": 2, "ppo.total_timesteps": 10**6}
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = run("train", "--run.root", str(tmp_path), "--run.name", f"cut{code}", *flags_of(settings), cwd=root)
        wait_for_updates(tmp_path / f"cut{code}", 2, process)
        os.killpg(process.pid, number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == code, error
        assert find_checkpoint(tmp_path / f"cut{code}")[1] == []


def test_help_is_quick_to_make_and_needs_no_torch(root):
    code = "import sys; from ppo_lab import cli; assert not {'torch', 'gymnasium', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
    process = run("--help", cwd=root)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    for command in ("train", "resume", "fork", "replay", "evaluate", "runs", "show", "export-csv", "export-controller"):
        assert command in out
