"""A run that was cut goes on bit for bit: weights, optimizer, random numbers, environments, metrics."""

from __future__ import annotations

import gc
import json
import threading

import gymnasium
import numpy as np
import pytest
import torch

from environment.cartpole import CartPole
from environment.probes import ValueOnly
from ppo_lab.config import Config
from ppo_lab.config.loading import load_config, override
from ppo_lab.errors import EnvError, RunError
from ppo_lab.ppo.events import MinibatchStepped
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.journal import read_journal
from ppo_lab.runs.run import find_checkpoint
from ppo_lab.training.replay import replay
from ppo_lab.training.trainer import Trainer

BASE = {
    "env": {"num_envs": 3},
    "model": {"hidden_sizes": [8], "normalize_obs": True},
    "ppo": {
        "total_timesteps": 384, "num_steps": 16, "update_epochs": 2, "num_minibatches": 2, "normalize_reward": True,
        "learning_rate_schedule": "linear", "clip_coef_schedule": "cosine", "ent_coef": 0.01,
    },
    "run": {"tensorboard": False, "checkpoint_every": 0},
}  # fmt: skip
ENVS = {
    "cartpole": {"env.id": "ppo_lab/CartPole-v1"},
    "pendulum": {"env.id": "Pendulum-v1", "env.kwargs": {"max_episode_steps": 30}},
    "acrobot in subprocesses": {"env.id": "Acrobot-v1", "env.kwargs": {"max_episode_steps": 30}, "env.workers": 2},
}


@pytest.fixture
def make(tmp_path):
    def make(name, *layers):
        config = override(override(Config(), BASE), {"run.root": str(tmp_path), "run.name": name})
        for layer in layers:
            config = override(config, layer)
        return Trainer(config)

    return make


def rows(folder):
    """The metrics without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def go(trainer, updates=None, change_at=None):
    """Train for so many updates, with a live change after one of them."""
    for update in trainer:
        if update.update == change_at:
            trainer.set(clip_coef=0.05, learning_rate=1e-3)
        if updates is not None and update.update >= updates:
            break
    return trainer


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("change_at", [None, 2, 6])
def test_a_cut_run_is_the_whole_run(make, tmp_path, env, change_at):
    whole = go(make("whole", ENVS[env]), change_at=change_at)
    whole.close()
    cut = go(make("cut", ENVS[env]), updates=4, change_at=change_at)
    cut.save()
    cut.close()
    again = go(Trainer.resume(tmp_path / "cut"), updates=5, change_at=change_at)
    again.save()
    again.close()
    last = go(Trainer.resume(tmp_path / "cut"), change_at=change_at)
    last.close()
    assert last.fingerprint() == whole.fingerprint()
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert [c._replace(source="") for c in read_journal(tmp_path / "cut")] == [
        c._replace(source="") for c in read_journal(tmp_path / "whole")
    ]


def test_what_came_after_the_checkpoint_happens_again_with_the_changes_made_then(make, tmp_path):
    whole = go(make("whole"), change_at=5)
    whole.close()
    cut = go(make("cut"), updates=3)
    cut.save()
    go(cut, updates=7, change_at=5).close()  # a crash: nothing saved since
    assert len(rows(tmp_path / "cut")) == 7
    again = Trainer.resume(tmp_path / "cut")
    assert [row["update"] for row in rows(tmp_path / "cut")] == [1, 2, 3]
    go(again).close()
    assert again.fingerprint() == whole.fingerprint()
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert len(read_journal(tmp_path / "cut")) == 2


def test_only_total_timesteps_can_be_extended(make, tmp_path):
    constant = {"ppo.learning_rate_schedule": "constant", "ppo.clip_coef_schedule": "constant"}
    run = go(make("short", {"ppo.total_timesteps": 192}, constant))
    run.close()
    longer = go(Trainer.resume(tmp_path / "short", total_timesteps=384))
    longer.close()
    whole = go(make("whole", constant))
    whole.close()
    a, b = longer.state.state_dict(), whole.state.state_dict()
    assert longer.state.global_step == 384
    assert (a["model"]["critic_head.weight"] == b["model"]["critic_head.weight"]).all()
    assert [c.key for c in read_journal(tmp_path / "short")] == ["total_timesteps"]
    once_more = Trainer.resume(tmp_path / "short")
    assert once_more.finished
    assert once_more.state.total_timesteps == 384
    once_more.close()


def test_two_trainers_on_one_run_are_refused_and_one_after_the_other_is_fine(make, tmp_path):
    first = go(make("one"), updates=1)
    first.save()
    with pytest.raises(RunError, match=r"is in use by process \d+ \(this process\); close its trainer"):
        Trainer.resume(tmp_path / "one")
    first.close()
    Trainer.resume(tmp_path / "one").close()


def test_saving_in_the_middle_of_an_update_waits_for_its_end(make, tmp_path):
    trainer = make("middle")
    for event in trainer.events():
        if isinstance(event, MinibatchStepped):
            assert trainer.save() is None
            break
    assert not list((tmp_path / "middle").glob("checkpoints/*"))
    next(iter(trainer))
    assert [path.name for path in (tmp_path / "middle").glob("checkpoints/*")] == ["48"]
    trainer.close()


def test_observing_does_not_disturb(make):
    plain = go(make("plain"))
    watched = go(
        make("watched", {"run": {"checkpoint_every": 48, "eval_every": 96, "eval_episodes": 2, "tensorboard": True}})
    )
    bare = make("bare", {"run.root": None})
    go(bare)
    for trainer in (plain, watched):
        trainer.close()
    assert plain.fingerprint() == watched.fingerprint() == bare.fingerprint()


def test_checkpoints_kept_are_the_last_the_best_and_every_so_many(make, tmp_path):
    trainer = go(make("kept", {"run": {"checkpoint_every": 48, "keep_last": 2, "keep_every": 144}}))
    trainer.close()
    kept = sorted(int(path.name) for path in (tmp_path / "kept" / "checkpoints").iterdir())
    best = json.loads((tmp_path / "kept" / "best").read_text())["step"]
    assert set(kept) == {336, 384, 48, 144, 288, best}
    assert (tmp_path / "kept" / "latest").read_text().strip() == "384"


def test_a_fork_goes_on_from_its_parent_with_other_settings(make, tmp_path):
    parent = go(make("parent"), updates=4, change_at=2)
    parent.save()
    go(parent).close()
    before = {path.name: path.read_bytes() for path in (tmp_path / "parent").iterdir() if path.is_file()}
    child = Trainer.fork(tmp_path / "parent", at=192, overrides={"run.name": "child", "ppo.clip_coef": 0.3})
    assert child.state.global_step == 192
    updates = list(child)
    child.close()
    assert updates[0].update == 5
    assert updates[0].metrics["update/clip_coef"] == pytest.approx(0.3 * 0.5)  # half of the cosine is over
    lineage = json.loads((tmp_path / "child" / "lineage.json").read_text())
    assert (lineage["parent"], lineage["step"], lineage["changes"]) == ("parent", 192, {"ppo.clip_coef": [0.2, 0.3]})
    assert {path.name: path.read_bytes() for path in (tmp_path / "parent").iterdir() if path.is_file()} == before
    assert len(read_journal(tmp_path / "child")) == 2


def test_a_fork_without_changes_is_its_parent(make, tmp_path):
    parent = go(make("parent"), updates=4)
    parent.save()
    go(parent).close()
    child = go(Trainer.fork(tmp_path / "parent", at=192, overrides={"run.name": "child"}))
    child.close()
    assert child.fingerprint() == parent.fingerprint()


def test_rewinding_forks_and_leaves_history_alone(make, tmp_path):
    trainer = go(make("one"), updates=3)
    trainer.save()
    go(trainer)
    back = trainer.rewind(144)
    assert back.state.update == 3
    assert back.run.folder != trainer.run.folder
    assert len(rows(tmp_path / "one")) == 8
    back.close()
    trainer.close()


def test_a_fork_to_another_number_of_environments_begins_new_episodes(make, tmp_path):
    parent = go(make("parent"), updates=2)
    parent.save()
    parent.close()
    child = Trainer.fork(tmp_path / "parent", overrides={"run.name": "more", "env.num_envs": 5})
    assert child.state.obs.shape == (5, 4)
    go(child, updates=3).close()


def test_a_fork_to_another_model_is_refused(make, tmp_path):
    parent = go(make("parent"), updates=1)
    parent.save()
    parent.close()
    with pytest.raises(RunError, match="do not fit this model"):
        Trainer.fork(tmp_path / "parent", overrides={"run.name": "other", "model.hidden_sizes": [9]})


def test_a_place_without_a_run_or_a_checkpoint_is_named(make, tmp_path):
    with pytest.raises(RunError, match=r"no run at .*; runs in .*: none"):
        Trainer.resume(tmp_path / "nothing")
    make("empty").close()
    with pytest.raises(RunError, match=r"has no whole checkpoint"):
        Trainer.resume(tmp_path / "empty")
    with pytest.raises(RunError, match=r"no run at .*nothing; runs in .*: empty"):
        Trainer.resume(tmp_path / "nothing")
    with pytest.raises(RunError, match=r"has no checkpoint at 7; available: none"):
        Trainer.fork(tmp_path / "empty", at=7)


def test_a_resumed_run_has_the_settings_it_was_made_with(make, tmp_path):
    trainer = go(make("one"), updates=1)
    trainer.save()
    trainer.close()
    again = Trainer.resume(tmp_path / "one")
    assert again.config.ppo == trainer.config.ppo
    assert load_config(tmp_path / "one" / "config.yaml").ppo == trainer.config.ppo
    again.close()


def test_where_the_best_leads_nowhere_the_newest_is_used_and_the_reason_told(make, tmp_path, caplog):
    trainer = go(make("one", {"run.checkpoint_every": 96}))
    trainer.close()
    best = tmp_path / "one" / "checkpoints" / "192"
    (tmp_path / "one" / "best").write_text(json.dumps({"step": 192, "score": 9.0}))
    (best / "model.safetensors").write_bytes(b"torn")
    child = Trainer.fork(tmp_path / "one", at="best")
    assert child.state.global_step == 384
    assert child.run.name == "one-fork-1"
    assert "passed over" in caplog.text
    assert "model.safetensors is not what was written" in caplog.text
    child.close()


class Forgetful(gymnasium.Env):
    """An environment whose answers do not follow from its seed; it counts how often it was made."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    made = 0

    def __init__(self):
        type(self).made += 1
        self.t, self.number = 0, self.made

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.full(2, self.number / 100, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(2, self.t / 10 + self.number / 100, np.float32), 1.0, False, self.t >= 20, {}


class Broken(Forgetful):
    """One that raises in its third step."""

    def step(self, action):
        if self.t == 2:
            raise ValueError("the third step is too far")
        return super().step(action)


@pytest.fixture
def registered():
    for name, env in (("Forgetful-v0", Forgetful), ("Broken-v0", Broken)):
        gymnasium.register(name, entry_point=env)
    yield
    for name in ("Forgetful-v0", "Broken-v0"):
        gymnasium.registry.pop(name)


def test_an_environment_that_cannot_be_led_back_begins_anew_and_the_run_says_so(make, tmp_path, registered, caplog):
    trainer = go(make("one", {"env.id": "Forgetful-v0"}), updates=2)
    assert "not deterministic" in trainer.inexact
    assert f"exact_resume is false: {trainer.inexact}" in caplog.text  # said at the start
    caplog.clear()
    trainer.save()
    trainer.close()
    again = Trainer.resume(tmp_path / "one")
    assert "exact_resume is false" in caplog.text
    go(again, updates=4)
    again.save()
    again.close()
    about = load_checkpoint(find_checkpoint(tmp_path / "one")[0])["about"]
    assert about["exact_resume"] is False
    assert again.state.update == 4
    with pytest.raises(RunError, match=r"cannot be repeated exactly: environment 0 cannot be restored"):
        replay(tmp_path / "one")


def test_an_environment_that_fails_is_one_line_and_leaves_nothing_behind(make, tmp_path, registered):
    trainer = make("one", {"env.id": "Broken-v0"})
    assert "third step is too far" in trainer.inexact
    with pytest.raises(EnvError, match="third step is too far"):
        go(trainer)
    trainer.close()


@pytest.mark.parametrize(
    ("needs", "env_id"),
    [
        ("gymnasium", "CartPole-v1"), ("gymnasium", "Pendulum-v1"), ("gymnasium", "Acrobot-v1"),
        ("gymnasium", "MountainCar-v0"), ("gymnasium", "MountainCarContinuous-v0"), ("gymnasium", "FrozenLake-v1"),
        ("Box2D", "LunarLander-v3"), ("Box2D", "BipedalWalker-v3"),
        ("mujoco", "HalfCheetah-v5"), ("mujoco", "Hopper-v5"),
    ],
)  # fmt: skip
def test_gymnasium_environments_are_led_back_to_where_they_were(make, tmp_path, needs, env_id):
    pytest.importorskip(needs)
    layer = {"env.id": env_id, "env.num_envs": 2, "env.new_each_episode": env_id.startswith("Bipedal")}
    whole = go(make("whole", layer), updates=5)
    cut = go(make("cut", layer), updates=3)
    assert cut.inexact is None
    cut.save()
    cut.close()
    again = go(Trainer.resume(tmp_path / "cut"), updates=5)
    assert again.fingerprint() == whole.fingerprint()
    whole.close()
    again.close()


def test_a_longer_run_moves_its_schedules_as_if_it_had_been_planned_so(make, tmp_path):
    layer = {"ppo": {"total_timesteps": 192, "learning_rate": 1e-3, "learning_rate_warmup": 0.25}}
    go(make("short", layer)).close()
    longer = Trainer.resume(tmp_path / "short", total_timesteps=384)
    longer.set(clip_coef=0.1)  # together with the extension: it must not be stamped with the old total
    updates = list(longer)
    longer.close()
    rates = [update.metrics["update/learning_rate"] for update in updates]
    assert rates == pytest.approx([1e-3 * (1 - step / 384) for step in (192, 240, 288, 336)])  # no second warm-up
    assert updates[0].metrics["update/clip_coef"] == pytest.approx(0.1)
    assert 0 < updates[-1].metrics["update/clip_coef"] < 0.1
    result = replay(tmp_path / "short")
    assert result.equal
    assert result.first_difference is None


def test_a_resumed_run_cannot_be_made_shorter_or_other(make, tmp_path):
    go(make("one"), updates=3).save()
    gc.collect()
    with pytest.raises(RunError, match="is at step 144 already; total_timesteps=1"):
        Trainer.resume(tmp_path / "one", total_timesteps=1)
    with pytest.raises(RunError, match=r"keeps its settings; for another overrides use Trainer.fork"):
        Trainer.resume(tmp_path / "one", overrides={"ppo.gamma": 0.5})


def test_a_fork_takes_the_settings_it_was_asked_for(make, tmp_path):
    go(make("one"), updates=2).save()
    gc.collect()
    child = Trainer.fork(tmp_path / "one", overrides={"ppo.adam_eps": 1e-3, "run.seed": 9})
    assert [group["eps"] for group in child.state.optimizer.param_groups] == [1e-3, 1e-3]
    twin = Trainer.fork(tmp_path / "one")
    assert not torch.equal(child.state.obs, twin.state.obs)  # another seed: other episodes too
    child.close()
    twin.close()


def test_environments_of_one_s_own_must_be_passed_again(make, tmp_path):
    config = override(override(Config(), BASE), {"run.root": str(tmp_path), "run.name": "own"})
    trainer = go(Trainer(config, CartPole(3, max_episode_steps=7)), updates=2)
    trainer.save()
    trainer.close()
    with pytest.raises(RunError, match="pass them again"):
        Trainer.resume(tmp_path / "own")
    with pytest.raises(RunError, match="cannot make them"):
        replay(tmp_path / "own")
    with pytest.raises(RunError, match="another observation space"):
        Trainer.resume(tmp_path / "own", envs=ValueOnly(3))
    again = go(Trainer.resume(tmp_path / "own", envs=CartPole(3, max_episode_steps=7)))
    whole = go(Trainer(override(config, {"run.root": None}), CartPole(3, max_episode_steps=7)))
    assert again.fingerprint() == whole.fingerprint()
    again.close()


def test_saving_from_another_thread_never_tears_a_checkpoint(make, tmp_path):
    trainer = make("busy", {"run.keep_last": 1000})
    trouble = []

    def save_often():
        try:
            while not trainer.finished:
                trainer.save()
        except RunError as error:
            trouble.append(error)

    thread = threading.Thread(target=save_often)
    thread.start()
    go(trainer)
    thread.join()
    assert not trouble
    place = tmp_path / "busy" / "checkpoints"
    recorded = {row["global_step"] for row in rows(tmp_path / "busy")}
    assert {int(path.name) for path in place.iterdir()} <= recorded | {0}
    trainer.close()
    again = Trainer.resume(tmp_path / "busy")
    assert again.fingerprint() == trainer.fingerprint()
    again.close()


def test_the_best_checkpoint_is_best_in_evaluation_if_asked(make, tmp_path):
    layer = {"run": {"best_by": "evaluation", "eval_every": 96, "eval_episodes": 3, "checkpoint_every": 48}}
    go(make("one", layer)).close()
    scores = {
        row["global_step"]: row["eval/return_mean"] for row in rows(tmp_path / "one") if "eval/return_mean" in row
    }
    best = json.loads((tmp_path / "one" / "best").read_text())
    assert set(scores) == {96, 192, 288, 384}
    assert best["score"] == max(scores.values())
    assert scores[best["step"]] == best["score"]
