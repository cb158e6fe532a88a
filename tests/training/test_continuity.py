"""A run folder that somebody edited is not silently another run; a fork keeps the episodes that it does not change."""

from __future__ import annotations

import json
import logging
import shlex
from fnmatch import fnmatchcase

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from ppo_lab.cli.main import main
from ppo_lab.config import SECTIONS, Config
from ppo_lab.config.loading import load_config, override, render_yaml
from ppo_lab.errors import RunError
from ppo_lab.evaluation.policy import load_policy
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.run import find_checkpoint
from ppo_lab.runs.settings import BESIDE, edits, recorded
from ppo_lab.training.continuity import NOT_THE_EPISODES
from ppo_lab.training.replay import replay
from ppo_lab.training.trainer import Trainer

BASE = {
    "env": {"id": "CartPole-v1", "num_envs": 2},
    "model": {"hidden_sizes": [8]},
    "ppo": {"total_timesteps": 256, "num_steps": 16, "update_epochs": 1, "num_minibatches": 2},
    "run": {"tensorboard": False, "checkpoint_every": 0},
}


def trained(tmp_path, updates=2, **settings):
    """A run of a few updates with one live change, and its trainer, which is closed."""
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    place = {"run.root": str(tmp_path), "run.name": "one"}
    trainer = Trainer(override(override(Config(), {**BASE, **place}), changes))
    trainer.set(clip_coef=0.1)
    go(trainer, updates)
    trainer.save()
    trainer.close()
    return trainer


def go(trainer, updates=4):
    for update in trainer:
        if update.update >= updates:
            break
    trainer.close()
    return trainer


def edit(folder, key, text, file="config.yaml"):
    """Give a setting another value, as with an editor."""
    name = key.partition(".")[2]
    lines = (folder / file).read_text().splitlines()
    section = key.partition(".")[0]
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{section}:"))
    number = next(i for i, line in enumerate(lines) if i > start and line.startswith(f"  {name}:"))
    lines[number] = f"  {name}: {text}"
    (folder / file).write_text("\n".join(lines) + "\n")


EDITS = {
    "ppo.gamma": ("0.9", "0.99 in the checkpoint, 0.9 in config.yaml"),
    "ppo.num_steps": ("32", "16 in the checkpoint, 32 in"),
    "ppo.value_clip_coef": ("0.2", "null in the checkpoint, 0.2 in"),
    "model.hidden_sizes": ("[9]", r"\[8\] in the checkpoint, \[9\] in"),
    "env.num_envs": ("auto", "2 in the checkpoint, 8 in"),
    "env.kwargs": ("{sutton_barto_reward: true}", r"\{\} in the checkpoint, \{sutton_barto_reward: true\} in"),
    "env.wrappers": ("[ClipReward]", r"\[\] in the checkpoint, \[ClipReward\] in"),
    "run.seed": ("2", "1 in the checkpoint, 2 in"),
    "run.threads": ("2", "1 in the checkpoint, 2 in"),
    "run.engine": ("reference", "auto in the checkpoint, reference in"),
}


@pytest.mark.parametrize("key", EDITS)
def test_an_edited_setting_is_refused_by_name_and_a_fork_is_proposed(tmp_path, key):
    trained(tmp_path)
    text, words = EDITS[key]
    before = {path: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.name != "config.yaml"
              and path.is_file()}  # fmt: skip
    edit(tmp_path / "one", key, text)
    flag = f"--{key.replace('_', '-')}"
    for attempt in (Trainer.resume, replay):
        with pytest.raises(
            RunError, match=rf"config\.yaml was edited: {key}: {words}.*; .* fork .*one {flag} "
        ) as error:
            attempt(tmp_path / "one")
        assert "\n" not in str(error.value)
    with pytest.raises(
        RunError, match=rf"config\.yaml was edited: {key}: {words}.*; put it back, or choose a value, .*{flag} "
    ):
        Trainer.fork(tmp_path / "one")
    assert before == {path: path.read_bytes() for path in before}
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_the_total_is_changed_by_resume(tmp_path):
    trained(tmp_path)
    edit(tmp_path / "one", "ppo.total_timesteps", "512")
    with pytest.raises(
        RunError,
        match=r"total_timesteps: 256 in .*; put it back, and make the run longer .* resume .* --total-timesteps N",
    ):
        Trainer.resume(tmp_path / "one")


def test_many_edits_are_one_line_of_a_readable_length(tmp_path):
    trained(tmp_path)
    (tmp_path / "one" / "config.yaml").write_text("ppo: {gamma: 0.5}\n")
    with pytest.raises(RunError, match=r"; and \d+ more; put it back") as error:
        Trainer.resume(tmp_path / "one")
    assert len(str(error.value)) < 900


BESIDE_EDITS = {
    "run.name": "other", "run.root": "elsewhere", "run.tensorboard": "true", "run.checkpoint_every": "32",
    "run.keep_last": "1", "run.keep_every": "64", "run.eval_every": "64", "run.eval_episodes": "1", "env.workers": "1",
    "env.allow_import": "true",
}  # fmt: skip


def test_what_changes_nothing_that_training_changes_may_be_edited(tmp_path):
    whole = trained(tmp_path, updates=4)
    other = tmp_path / "cut"
    other.mkdir()
    trained(other)
    for key, text in BESIDE_EDITS.items():
        edit(other / "one", key, text)
    resumed = go(Trainer.resume(other / "one"))
    assert resumed.config.run.keep_last == 1
    assert resumed.fingerprint() == whole.fingerprint()
    assert replay(other / "one").equal


def test_the_lists_name_settings_that_exist():
    known = {f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields}
    left_out = known - recorded(Config())["settings"].keys()
    assert all(any(fnmatchcase(key, beside) for key in left_out) for beside in BESIDE)
    assert set(BESIDE_EDITS) | {"run.best_by"} <= left_out
    assert {key for key in left_out if not key.startswith("run.")} == {"env.workers", "env.allow_import"}
    assert {"run.seed", "run.threads", "run.device", "run.deterministic"}.isdisjoint(left_out)
    assert not NOT_THE_EPISODES & {"id", "kwargs", "num_envs", "vector", "wrappers", "frame_stack", "time_aware"}


@pytest.mark.parametrize(
    ("key", "given", "text"),
    [
        ("model.hidden_sizes", [8], "[ 8 ]   # the same"),
        ("ppo.learning_rate", 1e-3, "0.001"),
        ("ppo.learning_rate", 1e-3, "1.0e-3"),
        ("env.kwargs", {"a": 1, "b": (2, [3])}, "{b: !tuple [2, [3]], a: 1}"),
        ("ppo.target_kl", None, "~"),
        ("env.num_envs", "auto", "8"),
    ],
)
def test_another_way_to_write_a_value_is_no_edit(tmp_path, key, given, text):
    config = override(Config(), {key: given})
    (tmp_path / "config.yaml").write_text(render_yaml(config))
    edit(tmp_path, key, text)
    assert edits(recorded(config), load_config(tmp_path / "config.yaml")) == {}


@pytest.mark.parametrize(
    ("given", "text"),
    [({"a": (1, 2)}, "{a: [1, 2]}"), ({"a": 1}, "{a: true}"), ({"a": 1}, "{a: 1.0}"), ({"a": "1"}, "{a: 1}"),
     ({"a": {1: 2}}, '{a: {"1": 2}}'), ({"a": float("nan")}, "{a: null}")],
)  # fmt: skip
def test_another_kind_of_value_is_an_edit(tmp_path, given, text):
    config = override(Config(), {"env.kwargs": given})
    (tmp_path / "config.yaml").write_text(render_yaml(config))
    edit(tmp_path, "env.kwargs", text)
    assert list(edits(recorded(config), load_config(tmp_path / "config.yaml"))) == ["env.kwargs"]


def test_a_fork_of_an_edited_run_takes_what_it_is_told(tmp_path):
    trained(tmp_path)
    edit(tmp_path / "one", "ppo.gamma", "0.9")
    edit(tmp_path / "one", "run.keep_last", "7")
    with pytest.raises(RunError, match="or choose a value"):
        Trainer.fork(tmp_path / "one", overrides={"ppo.clip_coef": 0.3})
    for gamma, changes in ((0.9, {"ppo.gamma": [0.99, 0.9]}), (0.99, {}), (0.5, {"ppo.gamma": [0.99, 0.5]})):
        child = Trainer.fork(tmp_path / "one", overrides={"ppo": {"gamma": gamma}})
        assert (child.config.ppo.gamma, child.config.run.keep_last) == (gamma, 7)
        assert json.loads((child.run.folder / "lineage.json").read_text())["changes"] == changes
        go(child)
        assert replay(child.run.folder).equal


def rewrite(monkeypatch, change):
    """Let checkpoints hold other settings than they do."""
    true = recorded
    monkeypatch.setattr("ppo_lab.training.recorder.recorded", lambda config: change(true(config)))


def test_a_checkpoint_of_before_there_were_settings_in_them_loads(tmp_path, monkeypatch):
    rewrite(monkeypatch, lambda held: {})
    trainer = trained(tmp_path)
    edit(tmp_path / "one", "ppo.gamma", "0.9")
    resumed = Trainer.resume(tmp_path / "one")
    assert resumed.fingerprint() == trainer.fingerprint()
    resumed.close()
    Trainer.fork(tmp_path / "one").close()


def test_a_setting_that_came_later_has_its_default(tmp_path, monkeypatch):
    def older(held):
        texts = {key: text for key, text in held["settings"].items() if key != "ppo.dual_clip"}
        return {"settings": {**texts, "ppo.gone": "3"}, "settings_sha256": "of others"}

    rewrite(monkeypatch, older)
    trained(tmp_path)
    Trainer.resume(tmp_path / "one").close()
    edit(tmp_path / "one", "ppo.dual_clip", "3.0")
    with pytest.raises(RunError, match=r"edited: ppo.dual_clip: null in the checkpoint, 3.0 in config.yaml;"):
        Trainer.resume(tmp_path / "one")


def test_a_run_may_be_moved_and_renamed(tmp_path):
    trainer = trained(tmp_path)
    (tmp_path / "one").rename(tmp_path / "two")
    resumed = Trainer.resume(tmp_path / "two")
    assert resumed.fingerprint() == trainer.fingerprint()
    resumed.close()


def test_the_hash_is_that_of_the_settings_that_count():
    sha = recorded(Config())["settings_sha256"]
    assert len(sha) == 64
    beside = {"run.name": "x", "run.root": None, "run.keep_last": 9, "env.workers": 3}
    assert recorded(override(Config(), beside))["settings_sha256"] == sha
    number = recorded(override(Config(), {**beside, "env.num_envs": "auto"}))  # 9: each worker has equally many
    assert (number["settings"]["env.num_envs"], number["settings_sha256"] == sha) == ("9", False)
    assert recorded(override(Config(), {"ppo.gamma": 0.9}))["settings_sha256"] != sha


def test_an_edited_journal_is_refused_at_a_resume_and_shown_by_a_replay(tmp_path):
    trained(tmp_path)
    journal = tmp_path / "one" / "journal.jsonl"
    text = journal.read_text()
    assert '"new": 0.1' in text
    for edited in (text.replace('"new": 0.1', '"new": 0.3'), "", text + text):
        journal.write_text(edited)
        with pytest.raises(RunError, match=r"journal.jsonl was edited: its changes up to update 2 are not"):
            Trainer.resume(tmp_path / "one")
        if edited != text + text:
            assert not replay(tmp_path / "one").equal
    journal.write_text(text)
    assert replay(tmp_path / "one").equal
    Trainer.resume(tmp_path / "one").close()


@pytest.mark.parametrize(
    ("key", "value", "words"), [("clip_coef", -1.0, "got -1.0"), ("seed", 3, "cannot change while")]
)
def test_a_change_to_come_that_could_not_have_been_made_is_refused(tmp_path, key, value, words):
    trained(tmp_path)
    change = {"update": 3, "global_step": 64, "key": key, "old": 0.1, "new": value, "source": "an editor"}
    with (tmp_path / "one" / "journal.jsonl").open("a") as file:
        file.write(json.dumps(change) + "\n")
    with pytest.raises(RunError, match=rf"journal.jsonl: the change at update 3: .*{words}"):
        Trainer.resume(tmp_path / "one")


def test_an_edited_lineage_is_refused(tmp_path):
    trained(tmp_path)
    child = Trainer.fork(tmp_path / "one", overrides={"run.name": "two"})
    go(child)
    lineage = tmp_path / "two" / "lineage.json"
    text = lineage.read_text()
    for edited, says in ((text.replace('"step": 64', '"step": 32'), 32), (None, 0)):
        lineage.unlink() if edited is None else lineage.write_text(edited)
        for attempt in (Trainer.resume, replay):
            with pytest.raises(
                RunError, match=rf"lineage.json was edited: the run began at step 64, but the file says {says}"
            ):
                attempt(tmp_path / "two")
    lineage.write_text(text.replace('"parent": "one"', '"parent": "renamed"'))
    Trainer.resume(tmp_path / "two").close()


def test_show_says_what_was_edited(tmp_path, capsys):
    trained(tmp_path)
    assert main(["show", str(tmp_path / "one")]) == 0
    assert "was edited" not in capsys.readouterr().out
    edit(tmp_path / "one", "ppo.gamma", "0.9")
    assert main(["show", str(tmp_path / "one")]) == 0
    assert "was edited: ppo.gamma: 0.99 in the checkpoint, 0.9 in config.yaml" in capsys.readouterr().out


def test_a_policy_is_not_made_with_edited_settings_of_the_model(tmp_path):
    trained(tmp_path)
    edit(tmp_path / "one", "ppo.gamma", "0.9")
    load_policy(tmp_path / "one")  # it does not act by it
    edit(tmp_path / "one", "model.activation", "relu")
    with pytest.raises(
        RunError, match=r"edited: model.activation: tanh in the checkpoint, relu in config.yaml; put it"
    ):
        load_policy(tmp_path / "one")
    edit(tmp_path / "one", "model.hidden_sizes", "[9]")
    with pytest.raises(RunError, match=r"the weights do not fit the settings of the run: model.hidden_sizes: \[8\] in"):
        load_policy(tmp_path / "one")


KEEPS = {
    "workers": {"env.workers": 2},
    "import": {"env.allow_import": True},
    "the number that auto is": {"env.num_envs": "auto"},
    "learning": {"ppo.clip_coef": 0.1, "run.keep_last": 9},
}
BEGINS = {
    "kwargs": {"env.kwargs": {"sutton_barto_reward": True}},
    "wrappers": {"env.wrappers": [{"TimeLimit": {"max_episode_steps": 50}}]},
    "num_envs": {"env.num_envs": 4},
    "seed": {"run.seed": 2},
}


@pytest.mark.parametrize("overrides", KEEPS.values(), ids=list(KEEPS))
def test_a_fork_that_changes_nothing_of_the_episodes_goes_on_with_them(tmp_path, overrides):
    parent = trained(tmp_path, env__num_envs=8)
    child = Trainer.fork(tmp_path / "one", overrides=overrides)
    assert child.fingerprint() == parent.fingerprint() or "ppo.clip_coef" in overrides
    assert (child.state.obs == parent.state.obs).all()
    if "ppo.clip_coef" not in overrides:
        assert go(child).fingerprint() == go(Trainer.resume(tmp_path / "one")).fingerprint()
    child.close()


@pytest.mark.parametrize("overrides", BEGINS.values(), ids=list(BEGINS))
def test_a_fork_that_changes_the_episodes_begins_new_ones(tmp_path, overrides):
    trained(tmp_path)
    child = Trainer.fork(tmp_path / "one", overrides=overrides)
    assert child.state.starts.all()
    child.close()


class Map(gymnasium.Env):
    """A way of some length, whose length is the bound of what is seen."""

    def __init__(self, size=5, force=1.0, seen="numbers", extra=0):
        self.size, self.force, self.seen = size, force, seen
        if seen == "picture":
            self.observation_space = Box(0, size, (8, 8), np.uint8)
        else:
            self.observation_space = Box(0, size, (2 + extra,), np.float32)
        self.action_space = Box(-force, force, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.t = 0
        return self.see(), {}

    def see(self):
        space = self.observation_space
        return np.full(space.shape, min(self.x, self.size), space.dtype)

    def step(self, action):
        self.t += 1
        self.x = int(np.clip(self.x + (1 if action[0] > 0 else -1), 0, self.size))
        return self.see(), float(self.x == self.size), self.x == self.size, self.t > 40, {}


@pytest.fixture
def mapped():
    gymnasium.register("Map-v0", entry_point=Map)
    yield {"env__id": "Map-v0", "model__distribution": "gaussian"}
    gymnasium.registry.pop("Map-v0")


def test_a_fork_goes_on_where_only_bounds_are_others_that_no_network_reads(tmp_path, mapped, caplog):
    parent = trained(tmp_path, **mapped)
    for number, fork in enumerate(({"overrides": {"env.kwargs": {"size": 9}}}, {"envs": lambda index: Map(9)})):
        caplog.clear()
        child = Trainer.fork(tmp_path / "one", **fork)
        lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        words = "observation: Box with bounds 0 to 5 in the checkpoint, 0 to 9 here; no network reads them"
        assert lines == [f"one-fork-{number + 1}: {words}, and new episodes begin"]
        assert child.inexact is None
        assert child.state.starts.all()
        for name, rows in child.state.model.state_dict().items():
            assert (rows == parent.state.model.state_dict()[name]).all()
        folder = go(child).run.folder
        about = load_checkpoint(find_checkpoint(folder)[0])["about"]
        assert about["observation_space"]["high"] == [9.0, 9.0]
        if "overrides" in fork:
            assert replay(folder).equal


def test_a_resumed_run_keeps_its_bounds(tmp_path, mapped):
    gymnasium.registry["Map-v0"].kwargs["size"] = 5
    trained(tmp_path, **mapped)
    gymnasium.registry["Map-v0"].kwargs["size"] = 9  # as another version of a package may
    with pytest.raises(RunError, match=r"another observation space: .*0 to 5 .*0 to 9 here; .*use Trainer.fork for it"):
        Trainer.resume(tmp_path / "one")
    Trainer.fork(tmp_path / "one").close()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"force": 2.0}, "another action space: action: Box with bounds -1 to 1 in the checkpoint, -2 to 2 here$"),
        ({"extra": 1}, r"another observation space: observation: Box of shape \(2,\) in the checkpoint, \(3,\) here$"),
        (
            {"seen": "picture", "force": 2.0},
            r"another observation space and another action space: observation: Box of shape \(2,\) in .*; "
            r"observation: Box of float32 in the checkpoint, uint8 here; action: Box with bounds",
        ),
    ],
)
def test_a_fork_into_another_space_says_in_words_what_differs(tmp_path, mapped, overrides, words):
    trained(tmp_path, **mapped)
    with pytest.raises(RunError, match=words) as error:
        Trainer.fork(tmp_path / "one", overrides={"env.kwargs": overrides})
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_network_that_reads_the_bounds_of_pictures_keeps_them(tmp_path, mapped):
    trained(tmp_path, **mapped, env__kwargs={"seen": "picture"})
    with pytest.raises(
        RunError, match=r"another observation space: observation: Box with bounds 0 to 5 .* 0 to 9 here$"
    ):
        Trainer.fork(tmp_path / "one", overrides={"env.kwargs": {"seen": "picture", "size": 9}})


class Shaped(gymnasium.Env):
    """One that sees 8 x 8 numbers."""

    observation_space, action_space = Box(0, 1, (8, 8), np.float32), Discrete(2)

    def __init__(self, ends=None):
        assert ends is None or type(ends[0]) is tuple

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros((8, 8), np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full((8, 8), self.t / 10, np.float32), 1.0, self.t > 5, False, {}


@pytest.fixture
def shaped():
    gymnasium.register("Shaped-v0", entry_point=Shaped)
    yield
    gymnasium.registry.pop("Shaped-v0")


@pytest.mark.parametrize("shape", [[64], (64,)])
def test_a_run_with_keywords_that_are_tuples_is_resumed_forked_and_replayed(tmp_path, shaped, shape):
    wrappers = [{"ReshapeObservation": {"shape": shape}}]
    kwargs = {"ends": [(1, 2), {"a": (float("inf"), ())}]}
    trainer = trained(tmp_path, env__id="Shaped-v0", env__wrappers=wrappers, env__kwargs=kwargs)
    resumed = Trainer.resume(tmp_path / "one")
    assert resumed.config.env == trainer.config.env
    assert resumed.fingerprint() == trainer.fingerprint()
    go(resumed).save()
    child = Trainer.fork(tmp_path / "one")
    assert child.fingerprint() == resumed.fingerprint()
    child.close()
    assert replay(tmp_path / "one").equal
    assert json.loads((child.run.folder / "lineage.json").read_text())["changes"] == {}


def test_tuples_are_written_on_the_command_line_too(tmp_path, shaped, capsys):
    flags = {
        "run.root": str(tmp_path), "run.name": "one", "env.id": "Shaped-v0", "env.num-envs": "2", "ppo.num-steps": "16",
        "ppo.total-timesteps": "64", "model.hidden-sizes": "[8]", "env.kwargs": "{ends: [!tuple [1, 2]]}",
        "env.wrappers": "[{ReshapeObservation: {shape: !tuple [64]}}]",
    }  # fmt: skip
    assert main(["train", *(part for name, text in flags.items() for part in (f"--{name}", text))]) == 0
    assert load_config(tmp_path / "one" / "config.yaml").env.kwargs == {"ends": [(1, 2)]}
    assert main(["replay", str(tmp_path / "one")]) == 0
    assert main(["show", str(tmp_path / "one")]) == 0
    assert "[{ReshapeObservation: {shape: !tuple [64]}}]" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "one"), "--total-timesteps", "128"]) == 0
    edit(tmp_path / "one", "env.wrappers", "[{ReshapeObservation: {shape: [64]}}]")
    assert main(["resume", str(tmp_path / "one"), "--total-timesteps", "192"]) == 1
    command = capsys.readouterr().err.rpartition("start a new run with `python -m ppo_lab ")[2].strip().rstrip("`")
    assert main(shlex.split(command)) == 0  # what the message says works
