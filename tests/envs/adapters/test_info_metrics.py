"""Numbers from info become metrics of episodes: as counted by hand, in every kind of environment, across resumes."""

from __future__ import annotations

import json
import logging
import math
from decimal import Decimal
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.config import Config
from ppo_lab.config.loading import load_config, override
from ppo_lab.envs.adapters.episode_numbers import EpisodeNumbers
from ppo_lab.envs.adapters.info import InfoReader, as_number
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.envs.making import make_envs
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.evaluation import evaluate
from ppo_lab.training.trainer import Trainer

HOWS = ("last", "sum", "mean", "max", "min")
WANTED = ["is_success", {"reward_terms/energy": "sum"}, {"speed": "mean"}, {"height": "max"}, {"depth": "min"}]
KEYS = tuple(override(Config(), {"env.info_metrics": WANTED}).env.info_keys)


class Telling(gymnasium.Env):
    """Episodes of 1 to 5 steps whose infos follow from the seed. `height` comes at times, `is_success` at the end."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, who: int = 0, log: list | None = None, fault: object = None) -> None:
        self.who, self.log, self.fault = who, log, fault

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.length = 0, int(self.np_random.integers(1, 6))
        return np.zeros(1, np.float32), {"speed": 1e6, "height": 1e6, "is_success": 1e6}  # no step led there

    def step(self, action):
        self.t += 1
        end = self.t == self.length
        draw = self.np_random.normal(size=4)
        info: dict = {
            "speed": float(draw[0]), "depth": np.float32(draw[1]), "note": "words",
            "reward_terms": {"energy": np.array([draw[2]]), "goal": 1}, "mask": np.ones(2, bool),
        }  # fmt: skip
        if draw[3] > 0:
            info["height"] = np.float64(draw[3])
        if end:
            info["is_success"] = bool(draw[0] > 0)
        if self.fault is not None:
            info["speed"] = self.fault
        if self.log is not None:
            self.log.append((self.who, info, end))
        return np.full(1, draw[0], np.float32), 1.0, end, False, info


def by_hand(values: list[float], how: str) -> float:
    """The number of one episode from what its steps gave; NaN where none did."""
    if not values:
        return math.nan
    return {"last": values[-1], "sum": sum(values), "mean": sum(values) / len(values), "max": max(values),
            "min": min(values)}[how]  # fmt: skip


def look(info: dict, key: str) -> float | None:
    outer, _, inner = key.partition("/")
    found = info.get(outer) if not inner else info.get(outer, {}).get(inner)
    return None if found is None else float(np.asarray(found).reshape(()))


def expected(log: list, keys=KEYS) -> dict[str, float]:
    """The means over the last 100 episodes that ended, from all steps in order."""
    gathered: dict[int, list[dict]] = {}
    episodes = []
    for who, info, end in log:
        gathered.setdefault(who, []).append(info)
        if end:
            steps = gathered.pop(who)
            given = [[value for info in steps if (value := look(info, key)) is not None] for key, _ in keys]
            episodes.append([by_hand(values, how) for values, (_, how) in zip(given, keys, strict=True)])
    columns = np.array(episodes[-100:]).T if episodes else []
    return {
        f"episode/{key}": float(column[~np.isnan(column)].mean())
        for (key, _), column in zip(keys, columns, strict=False)
        if not np.isnan(column).all()
    }


def approx(found: dict[str, float]):
    return pytest.approx(found, rel=1e-12, abs=1e-12)


# ---- the sums --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 10_000), st.floats(0.05, 0.9), st.booleans())
def test_equals_a_count_by_hand(T, N, seed, share, autoreset_rows):
    rng = np.random.default_rng(seed)
    keys = [(how, how) for how in HOWS]
    numbers = EpisodeNumbers(keys, N)
    log = []
    for _ in range(T):
        x = np.where(rng.random((N, 5)) < 0.6, rng.normal(size=(N, 5)), np.nan)
        valid = rng.random(N) < 0.8 if autoreset_rows else np.ones(N, bool)
        ended = (rng.random(N) < share) & valid
        numbers.take(x, torch.from_numpy(ended), valid)
        log += [
            (i, {how: v for how, v in zip(HOWS, x[i], strict=True) if not np.isnan(v)}, bool(ended[i]))
            for i in range(N)
            if valid[i]
        ]
    assert numbers.metrics() == approx(expected(log, keys))
    again = EpisodeNumbers(keys[::-1], N)  # in another order
    again.load(numbers.added_to({"something": 1}))
    x, ended = rng.normal(size=(N, 5)), torch.ones(N, dtype=torch.bool)
    numbers.take(x, ended)
    again.take(x[:, ::-1], ended)
    assert again.metrics() == numbers.metrics()


def test_none_wanted_is_nothing_to_do():
    numbers = EpisodeNumbers((), 3)
    numbers.take(np.zeros((3, 0)), torch.ones(3, dtype=torch.bool))
    assert numbers.metrics() == {}
    assert numbers.added_to({"a": 1}) == {"a": 1}
    plain = make_envs(override(Config(), {"env.id": "CartPole-v1", "env.num_envs": 2}))
    plain.reset(1)
    assert "numbers" not in plain.state_dict()
    plain.close()


GOOD = [
    (True, 1.0), (np.False_, 0.0), (3, 3.0), (0.5, 0.5), (np.float32(0.5), 0.5), (np.int8(-2), -2.0),
    (np.array(7), 7.0), (np.array([[2.5]]), 2.5), (torch.tensor(1.5), 1.5), (torch.tensor([True]), 1.0), ([4], 4.0),
]  # fmt: skip


@pytest.mark.parametrize(("value", "number"), GOOD, ids=repr)
def test_what_counts_as_a_number(value, number):
    assert as_number(value, "x") == number


def test_nothing_given():
    assert math.isnan(as_number(None, "x"))
    assert math.isnan(as_number(float("nan"), "x"))


@pytest.mark.parametrize("value", ["yes", math.inf, -math.inf, np.ones(2), [], {}, 1j, object(), Decimal(1), 10**400])
def test_what_does_not(value):
    with pytest.raises(EnvError, match=r"env.info_metrics: info\['x'\] is .*, which is not a finite number") as error:
        as_number(value, "x")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_a_key_with_a_slash_is_found_as_it_is_or_in_a_dictionary():
    reader, row = InfoReader(["a/b/c", "a/d", "e/f", "g"]), np.zeros(4)
    reader.read({"a": {"b": {"c": 1}, "d": 2}, "e/f": 3, "g": None}, row)
    assert row[:3].tolist() == [1, 2, 3]
    assert np.isnan(row[3])


# ---- every kind of environment ---------------------------------------------------------------------------------------


def settings(**more) -> Config:
    base = {
        "env.num_envs": 3, "env.info_metrics": WANTED, "model.hidden_sizes": [8], "ppo.num_steps": 16,
        "ppo.total_timesteps": 480, "run.root": None, "run.tensorboard": False,
    }  # fmt: skip
    return override(Config(), {**base, **more})


def told(row: dict[str, float]) -> dict[str, float]:
    return {name: row[name] for name in (f"episode/{key}" for key, _ in KEYS) if name in row}


@pytest.mark.parametrize("more", [{}, {"env.frame_stack": 2}])
def test_single_environments(more):
    log: list = []
    trainer = Trainer(settings(**more), envs=lambda i: Telling(i, log))
    log.clear()  # what was tried out
    for update in trainer:
        assert told(update.metrics) == approx(expected(log))
    assert len(told(update.metrics)) == 5


def test_they_are_absent_until_an_episode_that_gave_them_has_ended():
    class Late(Telling):
        def reset(self, **how):
            answer = super().reset(**how)
            self.length = 20
            return answer

    first, second, *_ = Trainer(settings(), envs=Late)
    assert told(first.metrics) == {}
    assert "episode/is_success" in told(second.metrics)


def test_workers_say_the_same():
    rows = []
    for workers in (0, 2):
        trainer = Trainer(settings(**{"env.workers": workers}), envs=partial(Telling))
        rows.append([told(update.metrics) for update in trainer])
        trainer.close()
    assert rows[0] == rows[1]
    assert len(rows[0][-1]) == 5


@pytest.mark.parametrize("mode", AutoresetMode)
def test_vector_environments(mode):
    log: list = []
    makers = [partial(Telling, i, log) for i in range(3)]
    envs = VectorEnvs(SyncVectorEnv(makers, autoreset_mode=mode), info_keys=KEYS)
    envs.reset(1)
    for _ in range(80):
        envs.step(torch.zeros(3, dtype=torch.long))
    want = expected(log)
    assert envs.metrics() == pytest.approx(want, rel=1e-6)
    assert len(want) == 5
    envs.close()


def test_an_asynchronous_vector_environment():
    envs = VectorEnvs(AsyncVectorEnv([partial(Telling, i) for i in range(2)]), info_keys=KEYS)
    plain = VectorEnvs(SyncVectorEnv([partial(Telling, i) for i in range(2)]), info_keys=KEYS)
    for each in (envs, plain):
        each.reset(1)
        for _ in range(40):
            each.step(torch.zeros(2, dtype=torch.long))
        each.close()
    assert envs.metrics() == plain.metrics() != {}


@pytest.mark.parametrize(
    ("infos", "found"),
    [
        ({"a": [1.0, 2.0]}, [1.0, 2.0]),
        ({"a": np.array([[1.0], [2.0]])}, [1.0, 2.0]),
        ({"a": torch.tensor([1, 2])}, [1.0, 2.0]),
        ({"a": np.array([1.0, 2.0]), "_a": np.array([True, False])}, [1.0, None]),
        ({"a": np.array([True, None], object)}, [1.0, None]),
        ({"a": 0.5}, [0.5, 0.5]),
        ({}, [None, None]),
        ({"final_info": {"a": np.array([0.0, 9.0])}, "a": np.array([1.0, 2.0])}, [1.0, 9.0]),
        ({"final_info": np.array([None, {"a": 9}], object), "a": np.array([1.0, 2.0])}, [1.0, 9.0]),
    ],
    ids=str,
)
def test_infos_of_vector_environments_by_others(infos, found):
    rows = InfoReader(["a"]).read_batch(infos, np.array([False, True]))[:, 0]
    assert [None if np.isnan(one) else one for one in rows] == found


@pytest.mark.parametrize("value", [np.ones(3), np.array(["x", "y"]), np.array([1.0, np.inf]), "x"], ids=repr)
def test_infos_of_vector_environments_that_are_no_numbers(value):
    with pytest.raises(EnvError, match=r"env.info_metrics: info"):
        InfoReader(["a"]).read_batch({"a": value}, np.zeros(2, bool))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_value_that_is_no_number_names_environment_key_and_value(workers):
    trainer = Trainer(settings(**{"env.workers": workers}), envs=partial(Telling, fault="fast"))
    with pytest.raises(
        EnvError, match=r"environment 0: env.info_metrics: info\['speed'\] is str 'fast'.*at its step 1"
    ):
        next(iter(trainer))
    trainer.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_key_that_never_comes_is_told_once_with_those_that_do(caplog, workers):
    more = {"env.info_metrics": ["is_sucess", "speed"], "env.workers": workers}
    with caplog.at_level(logging.WARNING, logger="ppo_lab"):
        trainer = Trainer(settings(**more), envs=partial(Telling))
        *_, update = trainer
        evaluate(trainer.policy(), trainer.config, 3, env_factory=partial(Telling))
        trainer.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "had 'is_sucess'; available numbers: depth, height, is_success, reward_terms/energy, " in line
    assert "speed" in line
    assert "note" not in line
    assert "mask" not in line
    assert "episode/is_sucess" not in update.metrics
    assert "episode/speed" in update.metrics


def test_evaluation_looks_into_no_info():
    trainer = Trainer(settings(), envs=lambda i: Telling())
    assert len(evaluate(trainer.policy(), trainer.config, 4, env_factory=lambda i: Telling(fault="x")).returns) == 4


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (["a", {"b": "sum"}], (("a", "last"), ("b", "sum"))),
        ("[a, {b/c: mean}]", (("a", "last"), ("b/c", "mean"))),
        ("a", (("a", "last"),)),
        ({"a": "max", "b": "min"}, (("a", "max"), ("b", "min"))),
    ],
)
def test_ways_to_write_it(given, keys):
    assert load_config(overrides={"env.info_metrics": given}).env.info_keys == keys


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["return_mean"], "would be episode/return_mean, which there is already"),
        (["a", {"a": "sum"}], "'a' is given twice"),
        ([""], "'' is no key"),
        ([{"a": "median"}], "'last', 'sum', 'mean', 'max' or 'min', got 'median'"),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(ConfigError, match=f"env.info_metrics: .*{message}"):
        override(Config(), {"env.info_metrics": given})


def test_environments_without_infos_refuse_it():
    with pytest.raises(ConfigError, match=r"env.info_metrics: ppo_lab/CartPole-v1 is one batched program"):
        make_envs(settings(**{"env.id": "ppo_lab/CartPole-v1"}))
    given = make_envs(override(Config(), {"env.id": "ppo_lab/CartPole-v1"}))
    with pytest.raises(ConfigError, match=r"env.info_metrics: .* their own metrics\(\)"):
        Trainer(settings(), envs=given)


# ---- resume and fork -------------------------------------------------------------------------------------------------


def lines(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def train(trainer: Trainer, until: int | None = None) -> Trainer:
    for update in trainer:
        if update.update == until:
            break
    return trainer


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_writes_the_same_lines(tmp_path, workers):
    make = partial(Telling)
    more = {"run.root": str(tmp_path), "env.workers": workers, "ppo.num_steps": 2}
    whole = train(Trainer(settings(**more, **{"run.name": "whole"}), envs=make))
    whole.close()
    for cut in (1, 3, 40):
        name = f"cut-{cut}"
        trainer = train(Trainer(settings(**more, **{"run.name": name}), envs=make), until=cut)
        trainer.save()
        trainer.close()
        resumed = train(Trainer.resume(tmp_path / name, envs=make))
        assert resumed.inexact is None
        assert resumed.fingerprint() == whole.fingerprint()
        resumed.close()
        assert lines(tmp_path / name) == lines(tmp_path / "whole")
    assert "episode/is_success" in lines(tmp_path / "whole")[-1]


def test_where_a_resume_is_not_exact_past_episodes_still_count(tmp_path):
    class Moody(Telling):
        def reset(self, **how):
            answer = super().reset(**how)
            return np.random.default_rng().normal(size=1).astype(np.float32), answer[1]

    trainer = train(Trainer(settings(**{"run.root": str(tmp_path), "run.name": "x"}), envs=lambda i: Moody()), until=5)
    before = trainer.envs.metrics()
    assert trainer.inexact
    trainer.save()
    trainer.close()
    resumed = Trainer.resume(tmp_path / "x", envs=lambda i: Moody())
    assert resumed.envs.metrics() == before != {}
    resumed.close()


@pytest.mark.parametrize("overrides", [{"ppo.gamma": 0.9}, {"env.num_envs": 2}])
def test_a_fork_into_the_same_task_goes_on_with_them(tmp_path, overrides):
    trainer = train(
        Trainer(settings(**{"run.root": str(tmp_path), "run.name": "x"}), envs=lambda i: Telling()), until=5
    )
    before = trainer.envs.metrics()
    trainer.save()
    trainer.close()
    forked = Trainer.fork(tmp_path / "x", overrides=overrides, envs=lambda i: Telling())
    assert forked.envs.metrics() == before != {}
    forked.close()
    more = Trainer.fork(tmp_path / "x", overrides={"env.info_metrics": ["speed", "new"]}, envs=lambda i: Telling())
    assert more.envs.metrics() == {}  # it was the mean of an episode and is the last value now
    more.close()


def test_checkpoints_from_before_there_were_any_still_load(tmp_path, monkeypatch):
    from ppo_lab.training import resume

    plain = {"run.root": str(tmp_path), "run.name": "x", "env.info_metrics": []}
    trainer = train(Trainer(settings(**plain), envs=lambda i: Telling()), until=5)
    trainer.save()
    trainer.close()
    load = resume.load_checkpoint

    def old(path):
        saved = load(path)
        assert saved.pop("numbers") == {"added": {}}
        return saved

    monkeypatch.setattr(resume, "load_checkpoint", old)
    resumed = train(Trainer.resume(tmp_path / "x", envs=lambda i: Telling()))
    assert resumed.inexact is None
    resumed.close()
