"""Numbers of environments and of people reach the record: once each, in the line that was promised, across resumes."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ppo_lab
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.envs.contract import EnvsWrapper
from ppo_lab.envs.making import make_envs
from ppo_lab.envs.wrappers import FrameStack, TimeAware
from ppo_lab.errors import ConfigError, EnvError, RunError
from ppo_lab.notebook.data.history import History
from ppo_lab.notebook.live import contents
from ppo_lab.notebook.plots.numbers import MOST, numbers_figure
from ppo_lab.ppo.events import MinibatchStepped, RolloutCollected
from ppo_lab.training.added_metrics import LAB_METRICS, env_metrics
from ppo_lab.training.trainer import Trainer
from tests.notebook.plots import layout


def settings(folder: Path | None = None, **more) -> Config:
    base = {
        "env.id": "ppo_lab/CartPole-v1", "env.num_envs": 2, "model.hidden_sizes": [8], "ppo.num_steps": 16,
        "ppo.total_timesteps": 160, "run.root": None if folder is None else str(folder), "run.name": "x",
        "run.tensorboard": False,
    }  # fmt: skip
    return override(Config(), {**base, **more})


def lines(folder: Path, name: str = "x") -> list[dict]:
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def column(folder: Path, key: str, name: str = "x") -> list[float | None]:
    return [row.get(key) for row in lines(folder, name)]


# ---- trainer.record --------------------------------------------------------------------------------------------------


def test_between_two_updates_it_is_the_next_line_and_after_the_last_its_own(tmp_path):
    trainer = Trainer(settings(tmp_path))
    trainer.record({"probe/before": 7})
    updates = []
    for update in trainer:
        trainer.record({"probe/after": update.update})
        updates.append(update)
    assert column(tmp_path, "probe/before") == [7, None, None, None, None]
    assert column(tmp_path, "probe/after") == [None, 1, 2, 3, 5]  # that of 4 waited for line 5, and 5 took its place
    trainer.record({"probe/after": 6, "probe/end": 8})
    assert column(tmp_path, "probe/after")[-1] == 6
    assert column(tmp_path, "probe/end") == [None] * 4 + [8]
    assert updates[-1].metrics["probe/end"] == 8
    assert len(ppo_lab.read_metrics(tmp_path / "x")["update"]) == 5
    trainer.close()
    with pytest.raises(RunError, match="closed"):
        trainer.record({"probe/late": 1})


def test_in_the_middle_of_an_update_it_is_that_line(tmp_path):
    trainer = Trainer(settings(tmp_path))
    for event in trainer.events():
        if isinstance(event, RolloutCollected):
            trainer.record({"probe/rollout": trainer.state.update})
        if isinstance(event, MinibatchStepped):
            trainer.record({"probe/minibatch": trainer.state.update})
    assert column(tmp_path, "probe/rollout") == column(tmp_path, "probe/minibatch") == [0, 1, 2, 3, 4]


def test_it_changes_nothing_of_the_training():
    prints = []
    for name in ("probe/x", None):
        trainer = Trainer(settings())
        for _ in trainer:
            if name:
                trainer.record({name: 1.0})
        prints.append(trainer.fingerprint())
    assert prints[0] == prints[1]


def test_any_thread_may_and_nothing_is_lost(tmp_path):
    trainer = Trainer(settings(tmp_path, **{"ppo.total_timesteps": 960}))
    names = [f"probe/{i}" for i in range(300)]

    def give() -> None:
        for i, name in enumerate(names):
            trainer.record({name: i})

    threads = [threading.Thread(target=give) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in trainer:
        pass
    for thread in threads:
        thread.join(60)
    found = {name: value for row in lines(tmp_path) for name, value in row.items() if name.startswith("probe/")}
    assert found == {name: i for i, name in enumerate(names)}


GOOD = [1, True, np.float32(2.0), np.array([3]), torch.tensor(4.0)]


@pytest.mark.parametrize("value", GOOD, ids=repr)
def test_numbers_of_every_kind(tmp_path, value):
    trainer = Trainer(settings(tmp_path))
    trainer.record({"probe/x": value})
    next(iter(trainer))
    assert column(tmp_path, "probe/x") == [float(np.asarray(value).reshape(()))]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"probe/x": float("nan")}, "'probe/x' needs a finite number, got nan"),
        ({"probe/x": float("inf")}, "finite number"),
        ({"probe/x": "1"}, "got '1'"),
        ({"probe/x": None}, "got None"),
        ({"probe/x": [1, 2]}, "finite number"),
        ({"x": 1}, "a name needs a group in front, as in 'probe/distance', got 'x'"),
        ({"/x": 1}, "group in front"),
        ({3: 1}, "group in front"),
        ({"global_step": 1}, "group in front"),
        ({"episode/return_mean": 1}, "'episode/return_mean' is written by the lab itself"),
        ({"eval/cut_off": 1}, "written by the lab"),
        ({"episode/is_success": 1}, "written by the lab"),
        (3, "names and numbers, .* got int"),
    ],
)
def test_what_is_refused_is_refused_whole(tmp_path, numbers, message):
    more = {"env.id": "CartPole-v1", "env.info_metrics": ["is_success"]}
    trainer = Trainer(settings(tmp_path, **more))
    given = {"probe/good": 1, **numbers} if isinstance(numbers, dict) else numbers
    with pytest.raises(ConfigError, match=message) as error:
        trainer.record(given)
    assert "\n" not in str(error.value)
    next(iter(trainer))
    assert "probe/good" not in lines(tmp_path)[0]


def test_every_name_the_lab_writes_is_known():
    """In the sources of the trainer, and in what a run writes."""
    written = set()
    for path in Path(ppo_lab.__file__).parent.rglob("*.py"):
        written |= set(re.findall(r'"((?:episode|loss|update|time|eval)/[a-z_]+)"', path.read_text()))
    assert written == LAB_METRICS
    more = {"run.eval_every": 32, "run.eval_episodes": 2, "ppo.learning_rate_schedule": "adaptive"}
    for update in Trainer(settings(**more)):
        assert update.metrics.keys() <= LAB_METRICS


def test_it_reaches_tensorboard_and_the_dashboard(tmp_path):
    trainer = Trainer(settings(tmp_path, **{"run.tensorboard": True}))
    history = History()
    for update in trainer:
        history.append(update)
        trainer.record({"probe/x": update.update})
    trainer.close()
    events = EventAccumulator(str(tmp_path / "x"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("probe/x")] == [
        (64, 1), (96, 2), (128, 3), (160, 4), (160, 5)
    ]  # fmt: skip
    np.testing.assert_array_equal(history.columns()["probe/x"], [np.nan, 1, 2, 3, 4])


@pytest.mark.parametrize("every", [0, 32])
def test_what_waits_is_in_the_checkpoint_and_neither_lost_nor_doubled(tmp_path, every):
    def loop(trainer: Trainer, until: int | None = None) -> Trainer:
        for update in trainer:
            trainer.record({"probe/x": update.update / 4})
            if update.update == until:
                break
        return trainer

    more = {"run.checkpoint_every": every}
    loop(Trainer(settings(tmp_path, **more, **{"run.name": "whole"}))).close()
    for cut in (1, 3):
        trainer = loop(Trainer(settings(tmp_path, **more, **{"run.name": f"cut-{cut}"})), until=cut)
        trainer.save()  # with run.checkpoint_every there is one of this step already, from before the number came
        trainer.close()
        resumed = Trainer.resume(tmp_path / f"cut-{cut}")
        loop(resumed).close()
        assert lines(tmp_path, f"cut-{cut}") == lines(tmp_path, "whole")


def test_a_crash_costs_what_came_after_the_checkpoint_and_nothing_comes_twice(tmp_path):
    trainer = Trainer(settings(tmp_path, **{"run.checkpoint_every": 64}))
    for update in trainer:
        trainer.record({"probe/x": update.update})
        if update.update == 3:
            break
    trainer.close()  # the last checkpoint is that of update 2
    resumed = Trainer.resume(tmp_path / "x")
    assert resumed.state.update == 2
    for _ in resumed:
        pass
    assert column(tmp_path, "probe/x") == [None, 1, None, None, None]


def test_after_a_finished_run_was_resumed_it_still_goes_into_the_last_line(tmp_path):
    trainer = Trainer(settings(tmp_path))
    for _ in trainer:
        pass
    trainer.close()
    resumed = Trainer.resume(tmp_path / "x")
    resumed.record({"probe/x": 1})
    assert column(tmp_path, "probe/x") == [None] * 4 + [1]
    resumed.set(total_timesteps=192)
    for _ in resumed:
        pass
    assert column(tmp_path, "probe/x") == [None] * 4 + [1, None]


def test_a_replay_is_not_told_apart_by_it(tmp_path):
    trainer = Trainer(settings(tmp_path))
    for _ in trainer:
        trainer.record({"probe/x": 1})
    trainer.close()
    result = ppo_lab.replay(tmp_path / "x")
    assert (result.equal, result.first_difference) == (True, None)


def test_without_a_run_folder_the_last_update_still_has_it():
    trainer = Trainer(settings())
    *_, update = trainer
    trainer.record({"probe/x": 1})
    assert update.metrics["probe/x"] == 1


# ---- Envs.metrics() --------------------------------------------------------------------------------------------------


class Telling(EnvsWrapper):
    """Our CartPole, with numbers of its own."""

    def __init__(self, answer=None):
        super().__init__(make_envs(settings()))
        self.answer, self.steps = answer, 0

    def step(self, action):
        self.steps += 1
        return self.envs.step(action)

    def metrics(self):
        return {
            "terrain/level": self.steps,
            "win_rate": np.float32(0.5),
            "not/yet": float("nan"),
            **(self.answer or {}),
        }


def test_environments_say_numbers_of_their_own(tmp_path):
    trainer = Trainer(settings(tmp_path), envs=Telling())
    for _ in trainer:
        pass
    assert column(tmp_path, "terrain/level") == [16, 32, 48, 64, 80]
    assert column(tmp_path, "win_rate") == [0.5] * 5
    assert column(tmp_path, "not/yet") == [None] * 5


def test_what_is_put_around_them_passes_it_on():
    assert FrameStack(TimeAware(Telling(), 500), 2).metrics().keys() == {"terrain/level", "win_rate", "not/yet"}
    assert FrameStack(make_envs(settings()), 2).metrics() == {}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"a/b": "x"}, r"Telling.metrics\(\): 'a/b' is 'x', which is not a finite number"),
        ({"a/b": float("inf")}, "not a finite number"),
        ({"episode/count": 1}, "'episode/count' is not allowed as a name"),
        ({"update": 1}, "not allowed as a name"),
    ],
)
def test_what_they_may_not_say(answer, message):
    with pytest.raises(EnvError, match=message):
        env_metrics(Telling(answer))


# ---- the panel -------------------------------------------------------------------------------------------------------


class Goal(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        info = {"is_success": bool(action), "reward_terms": {"energy": -0.1}}
        return np.zeros(1, np.float32), float(action), self.t >= 5, False, info


def test_the_dashboard_shows_them(tmp_path, capsys):
    more = {"env.id": "unused-v0", "env.info_metrics": ["is_success", {"reward_terms/energy": "sum"}]}
    trainer = Trainer(settings(**more), envs=lambda i: Goal())
    session = ppo_lab.notebook.launch(trainer)
    assert contents.other_names(session) == ["episode/is_success", "episode/reward_terms/energy"]
    figure = contents.numbers(session)
    texts = [ax.texts[0].get_text() for ax in figure.axes]
    assert texts[1].startswith("episode/reward_terms/energy: -0.5")
    layout.check(figure)
    capsys.readouterr()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 8, 11])
@pytest.mark.parametrize("updates", [0, 1, 40])
def test_any_number_of_numbers_is_readable(count, updates):
    names = [f"probe/number-{i}-with-a-rather-long-name" for i in range(count)]
    columns = {"global_step": 100.0 * np.arange(updates), **{name: np.full(updates, 1e7) for name in names}}
    figure = numbers_figure(columns, names, 10_000)
    assert len(figure.axes) == max(1, min(count, MOST))
    assert [text.get_text() for text in figure.texts] == (["and 3 more: session.history has them all"] * (count == 11))
    if count:
        layout.check(figure)
    again = numbers_figure(columns, names, 10_000, figure)
    assert (again is figure) is bool(count)
    assert len(numbers_figure(columns, [*names, "one/more"], None, figure).axes) == min(count + 1, MOST)
