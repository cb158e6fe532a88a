"""The report holds the run's own numbers, and summary.json in the run's folder the same."""

import json

import numpy as np
import pytest

from ppo_lab.errors import ConfigError
from ppo_lab.evaluation.statistics import mean_interval
from ppo_lab.notebook.headless.fast import fast
from ppo_lab.notebook.live.report import ANNOUNCE, Report, announce, report
from ppo_lab.notebook.live.session import Session
from tests.notebook.fakes import trainer


def trained(updates=30, **overrides):
    session = Session(trainer(updates, **overrides))
    for update in session.trainer:
        session.records.append(update)
    session._training.done.set()
    session.trainer.close()
    return session


def test_it_is_the_run_in_numbers(tmp_path):
    session = trained(**{"run.root": str(tmp_path), "run.name": "mine"})
    result = report(session)
    returns = list(session.trainer.state.episodes.returns)
    assert result.return_mean == pytest.approx(np.mean(returns))
    assert (result.return_low, result.return_high) == mean_interval(returns)
    assert result.episodes == len(returns)
    assert result.global_step == 30 * 64
    seconds = session.history["time/rollout_seconds"] + session.history["time/learn_seconds"]
    assert result.seconds == pytest.approx(seconds.sum())
    assert result.steps_per_second == pytest.approx(30 * 64 / seconds.sum())
    saved = Report(**json.loads((tmp_path / "mine" / "summary.json").read_text()))
    assert saved == result
    assert str(saved) == str(result)


def test_before_the_first_episode_it_says_so():
    result = report(trained(updates=1, **{"ppo.num_steps": 2, "ppo.total_timesteps": 8}))
    assert result.return_mean is None
    assert "no episode has ended yet" in str(result)
    assert result.run is None


def test_while_training_it_says_so_and_writes_nothing(tmp_path):
    session = trained(**{"run.root": str(tmp_path), "run.name": "mine"})
    session._training.done.clear()
    session._thread = __import__("threading").current_thread()  # so that the call runs in this thread
    assert "still running" in str(report(session))
    assert not (tmp_path / "mine" / "summary.json").exists()


def test_a_run_is_announced_to_whoever_asks(tmp_path, monkeypatch):
    ours = trainer(2, **{"run.root": str(tmp_path), "run.name": "mine"})
    ours.close()
    announce(ours)  # without the variable: writes nothing
    monkeypatch.setenv(ANNOUNCE, str(tmp_path / "run.json"))
    announce(ours)
    about = json.loads((tmp_path / "run.json").read_text())
    assert about == {"run": str((tmp_path / "mine").resolve()), "total_timesteps": 128}


def test_fast_mode_shrinks_and_writes_nothing(monkeypatch):
    wanted = {"run.seed": 3, "ppo.total_timesteps": 10**6}
    monkeypatch.delenv("PPO_LAB_FAST", raising=False)
    assert fast(wanted) == wanted
    monkeypatch.setenv("PPO_LAB_FAST", "1")
    assert fast(wanted)["ppo.total_timesteps"] < 10_000
    assert fast(wanted)["run.root"] is None
    assert fast(wanted)["run.seed"] == 3


def test_overrides_come_in_layers_and_as_the_text_papermill_hands_over(monkeypatch):
    monkeypatch.delenv("PPO_LAB_FAST", raising=False)
    assert fast({"run.seed": 1}, "{ppo.gamma: 0.9, run.seed: 3}", {}) == {"run.seed": 3, "ppo.gamma": 0.9}
    with pytest.raises(ConfigError, match=r"overrides: expected settings such as .*, got '0.9'"):
        fast("0.9")
