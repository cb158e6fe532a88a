"""The Agent panel plays in parallel with training and does not affect it."""

import io
import random
import threading
import time
import types
from concurrent.futures import Future

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from ppo_lab.envs.making import make_envs
from ppo_lab.notebook.live import viewer
from ppo_lab.notebook.live.session import Session
from ppo_lab.notebook.live.viewer import IDLE_SHARE, MOST_FPS, SHARE, AgentPanel, Policies, affordable, pace
from ppo_lab.training.trainer import Trainer
from tests.notebook.fakes import trainer

THREAD = "ppo_lab viewer"


class Watched:
    """The view of a session with the Agent panel in sight."""

    def __init__(self, panel, patience=0):
        self.panel = panel
        self.frames = []
        self.patience = patience  # updates wait until this many frames were drawn
        panel._image.observe(lambda change: self.frames.append(change["new"]), names="value")

    def refresh(self, session, force=False):
        self.panel.refresh(session)
        if len(self.frames) < self.patience:  # hold training until it has drawn another frame, or asks for a policy
            seen, calls = len(self.frames), session._training.boundary._calls
            until(lambda: len(self.frames) > seen or not calls.empty())

    def finish(self, session):
        self.panel.show(False)

    def show(self, session):
        pass


@pytest.fixture
def panel():
    panel = AgentPanel()
    yield panel
    panel.close()
    assert not viewers()


@pytest.fixture
def start():
    """Yield a function that starts a session in the background; stop all sessions at the end."""
    sessions = []

    def start(trainer, view):
        session = Session(trainer)
        sessions.append(session)
        session.train_in_background(view)
        return session

    yield start
    for session in sessions:
        session.stop()


def viewers():
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def until(condition, seconds=30.0):
    """Wait until `condition()` holds; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def global_random_states():
    numpy_state = np.random.get_state()
    return random.getstate(), numpy_state[1].tobytes(), numpy_state[2], torch.get_rng_state().numpy().tobytes()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "ppo_lab/CartPole-v1"])
def test_who_watches_changes_nothing(panel, start, env_id, monkeypatch):
    monkeypatch.setattr(viewer, "SHARE", 1.0)  # as many frames as possible
    settings = {"env.id": env_id, "env.num_envs": 2}
    alone = trainer(40, **settings)
    for _ in alone:
        pass
    states, threads, gradients = global_random_states(), torch.get_num_threads(), torch.is_grad_enabled()
    watched, view = trainer(40, **settings), Watched(panel, patience=6)
    panel.show(True)
    panel._choice.value = False  # drawn actions need random numbers
    start(watched, view).wait()
    assert len(view.frames) >= 6
    assert watched.fingerprint() == alone.fingerprint()
    assert global_random_states() == states
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, gradients)


@pytest.mark.parametrize(
    "settings",
    [
        {"env.id": "ppo_lab/Spaces-v0", "env.kwargs": {"observation": "dict", "action": "hybrid", "masked": True},
         "model.core": "gru", "model.core_size": 8, "model.std": "gsde"},
        {"env.id": "CartPole-v1", "env.frame_stack": 2, "env.time_aware": True, "model.core": "lstm",
         "model.core_size": 8, "model.shared": True, "ppo.learning_rate_schedule": "adaptive",
         "env.wrappers": ["FlattenObservation"]},
    ],
)  # fmt: skip
def test_who_watches_a_policy_of_any_kind_changes_nothing(panel, start, settings, monkeypatch):
    monkeypatch.setattr(viewer, "SHARE", 1.0)
    monkeypatch.setattr(viewer, "END_SECONDS", 0.01)
    alone = trainer(20, **settings)
    list(alone)
    watched, view = trainer(20, **settings), Watched(panel, patience=5)
    panel.show(True)
    panel._choice.value = False
    start(watched, view).wait()
    assert len(view.frames) >= 5
    assert panel._line.value == viewer.ABOUT or "The environment cannot be rendered" in panel._line.value
    assert watched.fingerprint() == alone.fingerprint()


def test_frames_are_pictures_of_one_size(panel, start):
    view = Watched(panel)
    panel.show(True)
    start(trainer(10**6), view)
    until(lambda: len(view.frames) >= 4)
    pictures = [Image.open(io.BytesIO(frame)) for frame in view.frames]
    assert len({picture.size for picture in pictures}) == 1
    assert len(set(view.frames)) > 1
    assert panel._line.value == viewer.ABOUT


def test_it_goes_on_while_training_is_paused(panel, start):
    view = Watched(panel)
    session = start(trainer(10**6), view)
    session.pause()
    session.policy()
    session.at_boundary(lambda: panel.show(True))  # not before: the first policy must come from a paused session
    panel.refresh(session)
    until(lambda: len(view.frames) >= 3)
    before = session.trainer.state.global_step
    until(lambda: len(view.frames) >= 6)
    assert session.trainer.state.global_step == before


def test_it_plays_only_in_sight_and_in_one_thread(panel, start):
    view = Watched(panel)
    session = start(trainer(10**6), view)
    session.policy()
    assert not viewers()
    for _ in range(3):
        panel.show(True)
        panel.refresh(session)
    assert len(viewers()) == 1
    assert viewers()[0].daemon
    until(lambda: view.frames)
    panel.show(False)
    assert not viewers()
    seen = len(view.frames)
    panel.refresh(session)
    session.policy()
    assert len(view.frames) == seen
    panel.show(True)
    until(lambda: len(view.frames) > seen)


def test_turning_it_on_and_off_never_makes_two(panel, start):
    session = start(trainer(10**6), Watched(panel))
    session.policy()

    def turn():
        for on in (True, False) * 5:
            panel.show(on)
            assert len(viewers()) <= 4

    threads = [threading.Thread(target=turn) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    panel.show(True)
    panel.show(False)
    assert not viewers()


def test_held_it_stands_still(panel, start):
    view = Watched(panel)
    panel.show(True)
    start(trainer(10**6), view)
    until(lambda: view.frames)
    panel._hold.value = True
    time.sleep(0.2)
    seen = len(view.frames)
    time.sleep(0.6)
    assert len(view.frames) <= seen + 1
    panel._hold.value = False
    until(lambda: len(view.frames) > seen + 1)


def test_it_ends_with_the_session_also_while_it_waits_for_a_policy(panel, start, monkeypatch):
    monkeypatch.setattr(Policies, "newest", lambda self, begins: None)
    panel.show(True)
    session = start(trainer(10**6), Watched(panel))
    session.policy()
    session.stop()
    until(lambda: not viewers())


def test_an_environment_that_breaks_is_one_line_and_training_goes_on(panel, start, monkeypatch):
    ours = trainer(60, **{"env.id": "CartPole-v1", "env.num_envs": 2})
    monkeypatch.setattr(viewer, "Player", lambda *_: 1 / 0)
    panel.show(True)
    session = start(ours, Watched(panel))
    session.wait()
    assert ours.finished
    until(lambda: "ZeroDivisionError" in panel._line.value)
    assert panel._line.value.startswith("<b>cannot show the agent: ")


def test_what_it_says_is_no_html(panel, start, monkeypatch):
    def broken(*_):
        raise RuntimeError("<script>")

    monkeypatch.setattr(viewer, "Player", broken)
    panel.show(True)
    start(trainer(10**6), Watched(panel))
    until(lambda: "&lt;script&gt;" in panel._line.value)


def test_what_cannot_be_drawn_shows_its_state(panel, start, monkeypatch):
    def broken(self):
        raise RuntimeError("no display")

    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleEnv.render", broken)
    view = Watched(panel)
    panel.show(True)
    start(trainer(10**6, **{"env.id": "CartPole-v1", "env.num_envs": 2}), view)
    until(lambda: len(view.frames) >= 2)
    assert panel._line.value.endswith("The environment cannot be rendered: RuntimeError: no display.")


@pytest.mark.parametrize("same", [True, False])
def test_environments_given_as_objects_are_played_if_config_says_what_they_are(panel, start, same):
    config = trainer(10**6).config
    theirs = config if same else trainer(1, **{"env.id": "ppo_lab/TwoState-v0"}).config
    view = Watched(panel)
    panel.show(True)
    start(Trainer(config, envs=make_envs(theirs)), view)
    if same:
        until(lambda: view.frames)
    else:
        until(lambda: "spaces differ from those of config.env (ppo_lab/CartPole-v1)" in panel._line.value)


class Lit(gymnasium.Env):
    """Renders a single colour given by its index; its spaces match no env id in the config."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, index, render_mode="rgb_array"):
        self.index, self.render_mode = index, render_mode
        self.observation_space, self.action_space = gymnasium.spaces.Box(0, 1, (3,)), gymnasium.spaces.Discrete(5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(3, np.float32), 1.0, self.steps == 30, False, {}

    def render(self):
        return np.full((60, 80, 3), 200 + self.index, np.uint8)


@pytest.mark.parametrize("mode", ["rgb_array", None])
def test_what_a_factory_makes_is_shown_as_it_is(panel, start, mode):
    view = Watched(panel)
    panel.show(True)
    start(Trainer(trainer(10**6).config, envs=lambda index: Lit(index, mode)), view)
    until(lambda: len(view.frames) >= 2)
    picture = np.asarray(Image.open(io.BytesIO(view.frames[-1])).convert("RGB"))
    assert ((picture == 200).all(-1).sum() > 1000) == (mode is not None)
    why = "" if mode else " The environment cannot be rendered: it was made without render_mode=&#x27;rgb_array&#x27;."
    assert panel._line.value == viewer.ABOUT + why


def test_an_endless_episode_is_broken_off(panel, start, monkeypatch):
    monkeypatch.setattr(viewer, "MOST_LENGTH", 5)
    monkeypatch.setattr(viewer, "END_SECONDS", 0.01)
    courses = []
    drawn = viewer.compose
    monkeypatch.setattr(viewer, "compose", lambda *args: courses.append(args[3]) or drawn(*args))
    view = Watched(panel)
    panel.show(True)
    start(trainer(10**6, **{"env.id": "Pendulum-v1", "env.num_envs": 1}), view)
    until(lambda: courses.count(5) >= 2)
    assert max(courses) == 5


class Asked:
    """A fake session whose update boundary comes when the test calls `boundary`."""

    def __init__(self):
        self.running, self.paused, self.waiting = True, False, []
        self.trainer = trainer(4)

    def soon(self, call):
        answer = Future()
        self.waiting.append((answer, call))
        return answer

    def boundary(self):
        for answer, call in self.waiting:
            answer.set_result(call())
        self.waiting.clear()


@pytest.fixture
def clock(monkeypatch):
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(viewer, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_policy_is_copied_when_an_episode_begins_or_it_is_old(clock):
    session = Asked()
    policies = Policies(session)
    assert policies.newest(begins=True) is None  # requested, not there yet
    assert len(session.waiting) == 1
    assert policies.newest(begins=True) is None
    assert len(session.waiting) == 1  # not requested twice
    session.boundary()
    first = policies.newest(begins=False)
    assert first.model is not session.trainer.state.model
    clock.now += 100.0
    assert policies.newest(begins=True) is first  # no update since
    assert not session.waiting

    next(iter(session.trainer))
    clock.now = policies._since + 1.0
    assert policies.newest(begins=False) is first
    assert not session.waiting  # in the middle of an episode, and not old
    assert policies.newest(begins=True) is first
    session.boundary()
    second = policies.newest(begins=False)
    assert (second is not first, policies.update) == (True, 1)

    next(iter(session.trainer))
    clock.now += 2.5
    policies.newest(begins=False)
    assert len(session.waiting) == 1


def test_a_fork_has_a_policy_of_its_own(clock):
    session = Asked()
    policies = Policies(session)
    policies.newest(begins=True)
    session.boundary()
    first = policies.newest(begins=True)
    session.trainer = trainer(4)
    clock.now += 1.0
    policies.newest(begins=True)
    session.boundary()
    assert policies.newest(begins=True) is not first


@pytest.mark.parametrize("rate", [4.0, 15.0, 30.0, 50.0, 60.0, 200.0])
def test_it_plays_in_real_time_at_few_frames(rate):
    steps, seconds = pace(rate)
    assert steps / seconds == pytest.approx(rate)
    assert 1 / seconds <= MOST_FPS + 1e-9
    assert steps == 1 or 1 / seconds > MOST_FPS / 2


def test_frames_cost_a_small_share_of_a_core():
    assert affordable(0.07, spent=0.012, cost=0.010, training=True) == pytest.approx(0.010 / SHARE)
    assert affordable(0.07, spent=0.060, cost=0.010, training=True) == pytest.approx(0.030 / SHARE)
    assert affordable(0.07, spent=0.012, cost=0.010, training=False) == 0.07
    assert affordable(0.07, spent=0.100, cost=0.100, training=False) == pytest.approx(0.100 / IDLE_SHARE)
    assert SHARE <= 0.04


def test_closed_its_widgets_are_gone(panel):
    panel.close()
    assert panel.widget.comm is None
    assert panel._image.comm is None
