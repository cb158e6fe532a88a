"""Sessions: training does not depend on the view, can be stopped and continued anywhere, and loses nothing."""

import signal
import threading
import types

import numpy as np
import pytest

from ppo_lab.errors import ConfigError, RunError
from ppo_lab.notebook.live import contents, dashboard, start, static
from ppo_lab.notebook.live.report import report
from ppo_lab.notebook.live.session import Session
from ppo_lab.notebook.live.start import launch, ui_attached
from tests.notebook.fakes import Silent, trainer


class Handle:
    """A fake of IPython's `display` and its handle, which records what is shown."""

    def __init__(self):
        self.shown, self.below = [], []

    def update(self, what, raw=False):
        self.shown.append(what)

    def display(self, what, raw=False, display_id=None):
        if display_id is None:
            self.below.append(what)
        return self


@pytest.fixture(autouse=True)
def _no_session_is_left(monkeypatch):
    monkeypatch.setenv("PPO_LAB_UI", "0")
    yield
    if start._current is not None:
        start._current.stop()
        start._current = None


@pytest.fixture
def handle(monkeypatch):
    """Make `launch` train in the background with a real dashboard, displayed in the handle that is returned."""
    handle = Handle()
    monkeypatch.setenv("PPO_LAB_UI", "1")
    monkeypatch.setattr(dashboard, "display", handle.display)
    return handle


def background(trainer, view=None):
    started = Session(trainer)
    start._current = started
    started.train_in_background(view or Silent())
    return started


def plain(**arguments):
    alone = trainer(**arguments)
    history = list(alone)
    return alone.fingerprint(), history


def test_headless_it_blocks_and_says_where_it_got_to(capsys):
    ours = trainer(6)
    done = launch(ours)
    assert not done.running
    assert ours.finished
    first, engine, last = capsys.readouterr().out.splitlines()
    assert first == str(ours.memory_plan)
    assert engine == ours.engine_line
    assert last.startswith("done: 384 of 384 steps, return ")
    done.wait()  # returns at once


def test_history_is_what_the_trainer_reported():
    done = launch(trainer(6))
    _, updates = plain(updates=6)
    assert list(done.history["global_step"]) == [update.global_step for update in updates]
    for name in ("loss/policy", "update/approx_kl", "episode/return_mean"):
        np.testing.assert_array_equal(
            done.history[name], [update.metrics.get(name, np.nan) for update in updates], err_msg=name
        )


def test_who_watches_changes_nothing(handle):
    alone, _ = plain(updates=40)
    watched = trainer(40)
    running = launch(watched)
    running.pause()
    running.policy()
    report(running)
    for tab in range(1, 6):
        running.view._tabs.selected_index = tab
        running.step()
    running.resume()
    running.wait()
    assert watched.fingerprint() == alone


def test_headless_training_is_the_same_too():
    alone, _ = plain(updates=6)
    ours = trainer(6)
    launch(ours)
    assert ours.fingerprint() == alone


def test_pictures_take_the_place_of_the_widgets(handle):
    running = launch(trainer(4))
    running.wait()
    first, second = handle.shown[-2:]  # in place of the widgets, and of the hidden picture after them
    assert set(first) == set(second) == {"image/png", "text/plain"}
    assert "256 of 256 steps" in first["text/plain"]
    kinds = ["image/png" if "image/png" in bundle else "text/markdown" for bundle in handle.below]
    assert kinds == ["image/png", "text/markdown", "text/markdown"]  # inside; health, journal


def test_a_notebook_saved_while_it_trains_has_a_picture(handle, monkeypatch):
    monkeypatch.setattr(dashboard, "TWIN_SECONDS", 0.0)
    running = launch(trainer(1_000_000))
    while not handle.shown:
        running.policy()
    assert handle.shown[0]["text/plain"].startswith("during training: ")
    running.stop()


def test_the_dashboard_can_be_shown_again(handle):
    running = launch(trainer(1_000_000))
    running.dashboard()  # in another cell
    running.policy()
    running.stop()
    assert len(handle.shown) >= 4  # two pictures in both
    below = len(handle.below)
    running.dashboard()
    assert len(handle.below) == 2 * below + 2  # static pictures instead of widgets


def test_an_error_in_the_background_is_raised_by_wait():
    ours = trainer(1000)
    ours.envs.step = lambda action: 1 / 0
    running = background(ours)
    with pytest.raises(ZeroDivisionError):
        running.wait()
    with pytest.raises(ZeroDivisionError):
        running.wait()
    assert not running.running
    assert "failed" in repr(running)


def test_an_error_headless_is_raised_by_launch(capsys):
    ours = trainer(5)
    ours.envs.step = lambda action: 1 / 0
    with pytest.raises(ZeroDivisionError):
        launch(ours)
    assert "failed at 0 of 320 steps" in capsys.readouterr().out


def test_an_interrupt_stops_at_an_update_and_training_goes_on(capsys):
    alone, _ = plain(updates=8)
    ours = trainer(8)
    step, calls = ours.envs.step, []

    def interrupted_step(action):
        calls.append(1)
        if len(calls) == 2 * 16 + 5:  # in the middle of the third rollout
            signal.raise_signal(signal.SIGINT)
        return step(action)

    ours.envs.step = interrupted_step
    stopped = launch(ours)
    assert not stopped.running
    assert ours.state.global_step == 3 * 64
    assert list(stopped.history["update"]) == [1, 2, 3]
    assert "stopped at 192 of 512 steps" in capsys.readouterr().out
    again = launch(ours)
    assert list(again.history["update"]) == list(range(1, 9))
    assert ours.fingerprint() == alone


def test_an_interrupted_wait_stops(monkeypatch):
    running = background(trainer(1_000_000))
    monkeypatch.setattr(running._training, "done", InterruptedOnce(running._training.done))
    running.wait()
    assert not running.running


class InterruptedOnce:
    """An event whose first `wait` is interrupted."""

    def __init__(self, event):
        self.event, self.waits = event, 0

    def wait(self):
        self.waits += 1
        if self.waits == 1:
            raise KeyboardInterrupt
        self.event.wait()

    def set(self):
        self.event.set()

    def is_set(self):
        return self.event.is_set()


def test_there_is_one_session_at_a_time(handle):
    first, second = trainer(1_000_000), trainer(1_000_000)
    old = launch(first)
    new = launch(second)
    assert not old.running
    assert new.running
    steps = first.state.global_step
    new.policy()
    assert first.state.global_step == steps
    assert [thread.name for thread in threading.enumerate()].count("ppo_lab training") == 1


def test_launching_again_goes_on_in_the_same_picture(handle):
    ours = trainer(1_000_000)
    old = launch(ours)
    old.policy()  # at least one update is done
    new = launch(ours)
    new.policy()
    new.stop()
    assert list(new.history["update"]) == list(range(1, ours.state.update + 1))


def test_paused_nothing_moves():
    running = background(trainer(1_000_000))
    running.pause()
    running.policy()  # runs at a boundary, where the session then pauses
    steps = running.trainer.state.global_step
    assert running.paused
    for _ in range(3):
        running.policy()
    assert running.trainer.state.global_step == steps
    running.resume()
    while running.trainer.state.global_step == steps:
        running.policy()
    running.stop()
    assert "done" in repr(running)


def test_a_paused_session_can_be_stopped():
    running = background(trainer(1_000_000))
    running.pause()
    running.stop()
    assert not running.running


def test_a_change_is_pending_until_the_trainer_takes_it():
    running = background(trainer(1_000_000))
    running.pause()
    running.policy()
    running.set(learning_rate=1e-3, clip_coef=0.1)
    assert running.pending == {"learning_rate": 1e-3, "clip_coef": 0.1}
    running.resume()
    while running.pending:
        running.policy()
    assert running.trainer.state.live["learning_rate"].value == 1e-3
    running.policy()
    running.stop()
    assert running.history["update/learning_rate"][-1] == 1e-3
    assert running.history["update/clip_coef"][-1] == 0.1


def test_a_change_made_past_the_session_does_not_leave_it_pending():
    running = background(trainer(1_000_000))
    running.pause()
    running.policy()
    running.set(clip_coef=0.1)
    running.trainer.set(clip_coef=0.3)  # from another cell, before the first was applied
    running.resume()
    while running.pending:
        running.policy()
    running.stop()
    assert running.trainer.state.live["clip_coef"].value == 0.3


def test_a_refused_change_is_not_pending():
    running = background(trainer(1_000_000))
    with pytest.raises(ConfigError, match="clip_coef"):
        running.set(clip_coef=-1.0)
    assert running.pending == {}
    running.stop()


def test_the_policy_is_the_one_of_a_boundary():
    running = background(trainer(1_000_000))
    first = running.policy()
    weights = [parameter.clone() for parameter in first.model.parameters()]
    running.policy()
    running.stop()
    assert all((a == b).all() for a, b in zip(weights, first.model.parameters(), strict=True))  # a copy: unchanged
    after = running.policy()  # training is over: runs in this thread
    now = running.trainer.state.model.parameters()
    assert all((a == b).all() for a, b in zip(after.model.parameters(), now, strict=True))


def test_what_is_asked_for_may_raise():
    running = background(trainer(1_000_000))
    with pytest.raises(ZeroDivisionError):
        running.at_boundary(lambda: 1 // 0)
    assert running.running
    running.stop()


def test_a_broken_view_does_not_end_training(capsys):
    class Broken(Silent):
        def refresh(self, session, force=False):
            raise RuntimeError("no picture today")

    ours = trainer(5)
    running = Session(ours)
    running.train_here(Broken())
    assert ours.finished
    assert capsys.readouterr().err.count("no picture today") == 1  # not at every update


def test_a_broken_panel_costs_neither_the_others_nor_the_pictures(handle, monkeypatch):
    def broken(*_):
        raise RuntimeError("no picture today")

    monkeypatch.setattr(contents, "learning_figure", broken)
    running = launch(trainer(1_000_000))
    running.pause()
    running.policy()
    assert "Learning: RuntimeError: no picture today" in running.view._controls._message.value
    before = running.view._controls.status.value
    running.step(2)
    running.policy()
    running.view._controls.write()
    assert running.view._controls.status.value != before  # the rest still updates
    running.stop()
    first, second = handle.shown[-2:]
    assert "no picture today" in first["text/plain"]
    assert "image/png" in second


def test_a_dashboard_that_cannot_be_made_leaves_no_session_behind(handle, monkeypatch):
    def broken(*_):
        raise RuntimeError("no dashboard today")

    with monkeypatch.context() as patch:
        patch.setattr(dashboard, "Dashboard", broken)
        with pytest.raises(RuntimeError, match="no dashboard today"):
            launch(trainer(4))
    running = launch(trainer(4))
    running.wait()


def test_a_session_that_never_trained_can_be_stopped_and_waited_for():
    session = Session(trainer(4))
    assert not session.running
    session.stop()
    session.wait()


def test_launching_a_forked_trainer_goes_on_with_the_fork_every_time(handle, tmp_path):
    settings = {"run.root": str(tmp_path), "run.tensorboard": False, "run.checkpoint_every": 0}
    first = trainer(1_000_000, **settings)
    running = launch(first)
    running.fork()
    for _ in range(3):
        running = launch(first)
        assert running.trainer is not first
        running.fork()
    running.stop()
    assert len(running.others) == 4
    with pytest.raises(RunError, match="this trainer is closed"):
        next(iter(first))
    running.trainer.close()


def test_after_a_failure_there_is_no_picture_of_two_updates_mixed():
    ours = trainer(1_000)
    step, calls = ours.envs.step, []

    def fails_in_the_fourth_rollout(action):
        calls.append(1)
        return 1 / 0 if len(calls) == 3 * 16 + 8 else step(action)

    ours.envs.step = fails_in_the_fourth_rollout
    running = Session(ours)
    with pytest.raises(ZeroDivisionError):
        running.train_here(Silent())
    assert running.last_update() is None


def test_a_trainer_that_was_left_between_two_events_can_be_launched():
    ours = trainer(4, **{"model.normalize_obs": True})
    next(ours.events())  # the rollout is collected
    running = launch(ours)
    assert running.last_update() is not None
    assert running.trainer.finished


def test_a_step_raises_what_training_raised():
    ours = trainer(1_000)
    running = Session(ours)
    running.pause()
    running.train_in_background(Silent())
    start._current = running
    running.policy()
    ours.envs.step = lambda action: 1 / 0
    with pytest.raises(ZeroDivisionError):
        running.step(3)


def test_what_is_asked_for_while_the_last_pictures_are_drawn_is_done_before_training_is_over():
    order = []

    class Slow(Silent):
        def finish(self, session):
            thread = threading.Thread(target=lambda: session.at_boundary(lambda: order.append("asked")))
            thread.start()
            while session._training.boundary._calls.empty():
                pass
            self.thread = thread

    view = Slow()
    running = Session(trainer(4))
    running.train_in_background(view)
    running.wait()
    order.append("over")
    view.thread.join()
    assert order == ["asked", "over"]


def test_lines_come_now_and_then(capsys, monkeypatch):
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(static, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    Session(trainer(30)).train_here(static.Lines(seconds=10.0))
    lines = capsys.readouterr().out.splitlines()
    assert 3 <= len(lines) <= 12
    assert lines[-1].startswith("done: 1,920 of 1,920 steps")


@pytest.mark.parametrize(
    ("forced", "stdin", "expected"), [(None, True, True), (None, False, False), ("0", True, False), ("1", False, True)]
)
def test_a_person_is_who_can_answer_input(monkeypatch, forced, stdin, expected):
    shell = types.SimpleNamespace(kernel=object(), get_parent=lambda: {"content": {"allow_stdin": stdin}})
    monkeypatch.setattr(start, "get_ipython", lambda: shell)
    monkeypatch.delenv("PPO_LAB_UI") if forced is None else monkeypatch.setenv("PPO_LAB_UI", forced)
    assert ui_attached() is expected


def test_without_ipython_nobody_is_there(monkeypatch):
    monkeypatch.delenv("PPO_LAB_UI")
    assert ui_attached() is False
