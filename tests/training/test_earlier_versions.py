"""Run folders of before `run.engine` still load: two of CartPole, made by the commit that had `run.gradient`."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

import ppo_lab
from ppo_lab.cli.main import main
from ppo_lab.config.loading import load_config
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.training.trainer import Trainer

RUNS = Path(__file__).parent / "runs_of_0_1"  # auto: run.gradient auto; autograd: run.gradient autograd


@pytest.fixture(params=["auto", "autograd"])
def folder(request, tmp_path) -> Path:
    shutil.copytree(RUNS / request.param, tmp_path / request.param)
    return tmp_path / request.param


def test_it_is_resumed_and_what_cannot_be_exact_is_said(folder, caplog):
    with caplog.at_level(logging.WARNING, logger="ppo_lab"):
        trainer = Trainer.resume(folder)
    assert trainer.state.update == 2
    assert trainer.config.run.engine == {"auto": "auto", "autograd": "reference"}[folder.name]
    assert [change.key for change in trainer.changes] == ["learning_rate"]
    why = "run.gradient: autograd, which acted in NumPy"
    assert (why in caplog.text) is (why in (trainer.inexact or "")) is (folder.name == "autograd")
    assert [update.update for update in trainer] == [3, 4]
    trainer.close()
    assert len(ppo_lab.read_metrics(folder)["update"]) == 4


def test_it_is_shown_evaluated_and_forked(folder, capsys):
    assert main(["show", str(folder)]) == 0
    assert "fingerprint" in capsys.readouterr().out
    assert len(ppo_lab.evaluate(ppo_lab.load_policy(folder), "ppo_lab/CartPole-v1", episodes=2, seed=1).returns) == 2
    fork = Trainer.fork(folder, overrides={"run.root": str(folder.parent), "run.name": "fork"})
    assert fork.state.global_step == 64
    fork.close()
    assert "engine: " in (folder.parent / "fork" / "config.yaml").read_text()


def test_a_replay_says_why_it_cannot_be_the_same():
    with pytest.raises(RunError, match=r"cannot be repeated exactly: an older version .* acted in NumPy"):
        ppo_lab.replay(RUNS / "autograd")


def test_a_config_yaml_of_ones_own_is_asked_to_change(tmp_path):
    (tmp_path / "config.yaml").write_text("run:\n  gradient: autograd\n")
    with pytest.raises(ConfigError, match=r"unknown setting 'run.gradient'; it is run.engine now"):
        load_config(tmp_path / "config.yaml")
