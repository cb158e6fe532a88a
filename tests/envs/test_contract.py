"""`Envs`: its defaults, what a wrapper forwards, and `learned` and `metrics` on their way through a run."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.envs import Envs, EnvsWrapper, Step
from ppo_lab.envs.wrappers import FrameStack, TimeAware
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.run import find_checkpoint
from ppo_lab.training.trainer import Trainer

NOT_FORWARDED = {"capturable", "generator"}  # a wrapper makes new tensors in each step


class Line(Envs):
    """Walk on a line of ten places; the reward is the place. It counts the updates that it was told of."""

    num_envs, device = 2, torch.device("cpu")
    observation_space, action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2)

    def __init__(self):
        self.place, self.updates, self.parameters = torch.zeros(2), 0, 0

    def reset(self, seed):
        self.place = torch.zeros(2)
        return self.place.unsqueeze(-1).clone()

    def step(self, action):
        self.place = (self.place + 2 * action.reshape(2) - 1).clamp(0, 9)
        obs, never = self.place.unsqueeze(-1).clone(), torch.zeros(2, dtype=torch.bool)
        return Step(obs, self.place.clone(), never, never, obs, ~never)

    def learned(self, model):
        self.updates += 1
        self.parameters = sum(one.numel() for one in model.parameters())

    def metrics(self):
        return {"line/updates": float(self.updates), "line/place": float(self.place.mean()), "line/never": float("nan")}

    def state_dict(self):
        return {"place": self.place.clone(), "updates": self.updates}

    def load_state_dict(self, state):
        self.place, self.updates = state["place"].clone(), state["updates"]


class Bare(Envs):
    """Only what has to be there."""

    num_envs, device = 2, torch.device("cpu")
    observation_space, action_space = Line.observation_space, Line.action_space
    reset, step = Line.reset, Line.step


def settings(folder=None, **more) -> Config:
    base = {
        "env.id": "unused-v0", "env.num_envs": 2, "model.hidden_sizes": [8], "ppo.num_steps": 8,
        "ppo.total_timesteps": 64, "run.root": None if folder is None else str(folder), "run.name": "one",
        "run.tensorboard": False, "run.checkpoint_every": 16,
    }  # fmt: skip
    return override(Config(), {**base, **{key.replace("__", "."): value for key, value in more.items()}})


def test_defaults(tmp_path):
    envs = Bare()
    assert envs.state_dict() is None
    assert envs.episodes_under_way() is None
    assert envs.metrics() == envs.ending_info() == {}
    assert envs.metrics_state() is envs.lost is envs.why_inexact_now() is None
    assert envs.retries() == 0
    assert envs.episode_done is envs.max_episode_steps is envs.longest_episode is None
    assert not any([envs.capturable, envs.next_step_autoreset, envs.draws])
    assert envs.learned(torch.nn.Linear(1, 1)) is None
    for call in (lambda: envs.load_state_dict({}), lambda: envs.load_metrics_state({}), envs.frame):
        with pytest.raises(EnvError):
            call()
    envs.close()
    trainer = Trainer(settings(tmp_path), envs=envs)
    assert len(list(trainer)) == 4
    trainer.close()
    about = load_checkpoint(find_checkpoint(tmp_path / "one")[0])["about"]
    assert about["inexact_because"] == "Bare cannot save its state"


@pytest.mark.parametrize("missing", ["reset", "step"])
def test_what_has_to_be_there(missing):
    with pytest.raises(TypeError, match=missing):
        type("Half", (Envs,), {name: getattr(Line, name) for name in ("reset", "step") if name != missing})()


def public(cls) -> set[str]:
    names = {name for name in vars(cls) if not name.startswith("_")}
    return names | {name for name in cls.__annotations__ if not name.startswith("_")}


def test_a_wrapper_forwards_every_capability():
    """Each name of `Envs` gives, through a wrapper, what the environments inside give."""

    class Asked(Line):
        """Answers everything with something that only it can have said."""

        next_step_autoreset = True
        max_episode_steps, longest_episode, frames_per_second, running_statistics = 123, 45, 67.0, "NormalizeX"
        draws, lost = True, "gone"
        said: tuple = ()

    for name in public(Envs):
        if inspect.isfunction(getattr(Envs, name, None)):
            setattr(Asked, name, lambda self, *given, name=name: setattr(self, "said", (name, *given)) or {"of": name})
    Asked.__abstractmethods__ = frozenset()
    inner = Asked()
    inner.episode_done = torch.tensor([True, False])
    wrapper = EnvsWrapper(inner)
    for name in sorted(public(Envs) - NOT_FORWARDED):
        method = getattr(Envs, name, None)
        if not inspect.isfunction(method):
            assert getattr(wrapper, name) is getattr(inner, name), f"EnvsWrapper does not forward {name}"
            continue
        given: list = [object() for _ in inspect.signature(method).parameters][1:]
        passed = given
        if name == "load_state_dict":  # its own state is beside that of the environments
            given, passed = [{"envs": 7}], [7]
        inner.said = ()
        getattr(wrapper, name)(*given)
        assert inner.said == (name, *passed), f"EnvsWrapper does not forward {name}"


def test_what_only_looks_like_environments_is_refused():
    class Duck:
        num_envs, device = 2, torch.device("cpu")
        observation_space, action_space = Line.observation_space, Line.action_space
        reset, step = Line.reset, Line.step

    with pytest.raises(ConfigError, match=r"write class Duck\(ppo_lab.Envs\)"):
        Trainer(settings(), envs=Duck())


@pytest.mark.parametrize("around", [lambda envs: envs, EnvsWrapper, lambda envs: FrameStack(TimeAware(envs, 500), 2)])
def test_learned_comes_once_an_update_with_the_model(around):
    line = Line()
    trainer = Trainer(settings(), envs=around(line))
    for update in trainer:
        assert line.updates == update.update
    assert line.parameters == sum(one.numel() for one in trainer.state.model.parameters())


def test_metrics_reach_the_record_tensorboard_and_the_update(tmp_path):
    trainer = Trainer(settings(tmp_path, run__tensorboard=True), envs=Line())
    updates = list(trainer)
    trainer.close()
    rows = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert [row["line/updates"] for row in rows] == [1, 2, 3, 4]
    assert [update.metrics["line/place"] for update in updates] == [row["line/place"] for row in rows]
    assert not any("line/never" in row for row in rows)
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent)).Reload()
    assert [scalar.value for scalar in events.Scalars("line/updates")] == [1, 2, 3, 4]


def test_what_learned_changed_is_resumed(tmp_path):
    whole = Trainer(settings(), envs=Line())
    list(whole)
    first = Trainer(settings(tmp_path), envs=Line())
    next(iter(first))
    first.save()
    first.close()
    line = Line()
    resumed = Trainer.resume(tmp_path / "one", envs=line)
    assert line.updates == 1
    list(resumed)
    resumed.close()
    assert line.updates == 4
    assert resumed.inexact is None
    assert resumed.fingerprint() == whole.fingerprint()
