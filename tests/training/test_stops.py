"""Stopped in any phase: soon there is a checkpoint that loads, and the run goes on as if it had never been stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from environment.cartpole import CartPole
from ppo_lab import Trainer, load_config
from ppo_lab.cli import training
from ppo_lab.notebook.live.session import Session
from ppo_lab.ppo import update as updates
from ppo_lab.runs import files
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.metrics import read_rows
from ppo_lab.runs.run import find_checkpoint
from ppo_lab.training import recorder
from tests import slow_envs

BASE = {
    "env.id": "tests.slow_envs:Slow-v0", "env.allow_import": True, "env.num_envs": 2, "model.hidden_sizes": [8],
    "ppo.num_steps": 24, "ppo.total_timesteps": 144, "ppo.update_epochs": 2, "ppo.num_minibatches": 4,
    "run.checkpoint_every": 0, "run.tensorboard": False, "run.name": "one",
}  # fmt: skip
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    for name in ("SLOW_MAKE", "SLOW_STEP", "SLOW_NOTES"):
        monkeypatch.delenv(name, raising=False)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def undisturbed():
    """The fingerprint of BASE to its end."""
    trainer = Trainer(load_config(overrides={**BASE, "run.root": None}))
    list(trainer)
    trainer.close()
    return trainer.fingerprint()


def settings(folder, **more):
    return load_config(overrides={**BASE, "run.root": str(folder), **more})


def start(root, folder, **slow):
    """`python -m ppo_lab train` with BASE in a process of its own."""
    flags = [text for key, value in BASE.items() for text in (f"--{key}", str(value))]
    environment = {**os.environ, "SLOW_NOTES": str(folder / "notes"), **{k: str(v) for k, v in slow.items()}}
    return subprocess.Popen(
        [sys.executable, "-m", "ppo_lab", "train", "--run.root", str(folder), *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env=environment,
    )  # fmt: skip


def notes(folder):
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


def wait_until(true, process=None):
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def goes_on(folder, undisturbed):
    """The newest checkpoint loads, and a resumed run ends where one comes that was never stopped."""
    path, passed = find_checkpoint(folder / "one")
    assert not passed
    assert load_checkpoint(path)["about"]["exact_resume"] is True
    trainer = Trainer.resume(folder / "one")
    list(trainer)
    trainer.close()
    return trainer.fingerprint() == undisturbed


@pytest.mark.slow
@SIGNALS
def test_in_the_middle_of_a_slow_rollout(number, root, tmp_path, undisturbed):
    process = start(root, tmp_path, SLOW_STEP=0.2)
    wait_until(lambda: (tmp_path / "one").exists() and len(notes(tmp_path)) > 0, process)
    made = len(notes(tmp_path))
    wait_until(lambda: len(notes(tmp_path)) > made + 6 and notes(tmp_path)[-6:] == ["step"] * 6, process)
    time.sleep(1.0)  # it is a slow one by now
    process.send_signal(number)
    before = len(notes(tmp_path))
    out, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert f"stopped by {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'}: 0 of 144 steps" in out
    assert len(notes(tmp_path)) - before <= 4  # of two environments
    assert goes_on(tmp_path, undisturbed)


@pytest.mark.slow
@SIGNALS
def test_while_environments_are_made(number, root, tmp_path, undisturbed):
    process = start(root, tmp_path, SLOW_MAKE=0.5)
    wait_until(lambda: "make" in notes(tmp_path), process)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert "0 of 144 steps" in out
    assert goes_on(tmp_path, undisturbed)


class Pressed:
    """Sends SIGINT to this process once, when called; later calls do nothing."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        if self.times == 1:
            os.kill(os.getpid(), signal.SIGINT)


def slow_rollout(monkeypatch, press, at=20):
    """Environments whose step `at` takes a while, and during which somebody presses Ctrl-C."""
    steps, plain = [0], slow_envs.Slow.step

    def step(self, action):
        steps[0] += 1
        if steps[0] == at:
            time.sleep(0.6)
            press()
        return plain(self, action)

    monkeypatch.setattr(slow_envs.Slow, "step", step)
    return steps


def test_ctrl_c_in_a_script_leaves_a_checkpoint_and_the_loop_can_go_on(tmp_path, monkeypatch, undisturbed):
    trainer = Trainer(settings(tmp_path))  # before the steps are counted: it tries the environment out
    steps = slow_rollout(monkeypatch, Pressed())
    with pytest.raises(KeyboardInterrupt):
        list(trainer)
    assert steps[0] == 20  # the step under way and no more
    about = load_checkpoint(find_checkpoint(tmp_path / "one")[0])
    assert (about["update"], about["global_step"]) == (0, 0)
    list(trainer)
    trainer.close()
    assert trainer.fingerprint() == undisturbed


def test_ctrl_c_in_a_quick_update_saves_its_end(tmp_path, monkeypatch, undisturbed):
    trainer, press = Trainer(settings(tmp_path)), Pressed()
    plain = updates.batches

    def pressed(*arguments):
        for batch in plain(*arguments):
            if trainer.state.update == 1:
                press()
            yield batch

    monkeypatch.setattr(updates, "batches", pressed)
    seen = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(trainer.events())
    assert press.times == 8  # the update was done to its end
    assert find_checkpoint(tmp_path / "one")[0].name == "96"
    seen = [type(event).__name__ for event in trainer.events()]
    assert seen[:8] == ["MinibatchStepped"] * 8  # those that were kept back come now
    assert seen[8] == "Update"
    trainer.close()
    assert trainer.fingerprint() == undisturbed


def test_in_the_middle_of_slow_learning(tmp_path, monkeypatch, undisturbed):
    trainer, learned = Trainer(settings(tmp_path)), []
    plain = updates.batches

    def slow(*arguments):
        for number, batch in enumerate(plain(*arguments)):
            learned.append(number)
            if len(learned) == 3:
                time.sleep(0.6)
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    monkeypatch.setattr(updates, "batches", slow)
    with pytest.raises(KeyboardInterrupt):
        list(trainer)
    assert len(learned) == 3
    assert load_checkpoint(find_checkpoint(tmp_path / "one")[0])["global_step"] == 0  # nothing of it was learned
    list(trainer)  # the update goes on where it was
    trainer.close()
    assert trainer.fingerprint() == undisturbed
    resumed = Trainer.resume(tmp_path / "one")
    assert resumed.state.global_step == 144
    resumed.close()


def test_while_a_checkpoint_is_written(tmp_path, monkeypatch, undisturbed):
    press, sync = Pressed(), files.sync

    def slow(path):
        if threading.current_thread() is threading.main_thread():
            press()
        sync(path)

    trainer = Trainer(settings(tmp_path, **{"run.checkpoint_every": 48}))
    monkeypatch.setattr(files, "sync", slow)
    monkeypatch.setattr("ppo_lab.runs.checkpoint.sync", slow)
    with pytest.raises(KeyboardInterrupt):
        list(trainer)
    assert press.times > 1
    trainer.close()
    monkeypatch.undo()
    assert goes_on(tmp_path, undisturbed)


@pytest.mark.parametrize("slow", [False, True])
def test_the_stop_of_a_session(slow, tmp_path, monkeypatch, undisturbed):
    trainer = Trainer(settings(tmp_path))
    session = Session(trainer)
    steps = slow_rollout(monkeypatch, lambda: session.stop(wait=False), at=20 if slow else 10**9)
    if not slow:
        monkeypatch.setattr(session, "_refresh", lambda force: session.stop(wait=False))
    session.train_here(Quiet())
    assert steps[0] == (20 if slow else 48)
    assert find_checkpoint(tmp_path / "one")[0].name == ("0" if slow else "48")
    trainer.close()
    monkeypatch.undo()
    assert goes_on(tmp_path, undisturbed)


class Quiet:
    def refresh(self, session, force=False):
        pass

    def finish(self, session):
        pass

    def show(self, session):
        pass


HEADLESS = """
import sys
from ppo_lab import Trainer, load_config
from ppo_lab.notebook import launch
from tests.training.test_stops import settings
from pathlib import Path
launch(Trainer(settings(Path(sys.argv[1]))))
raise AssertionError("not reached")
"""


@pytest.mark.slow
def test_sigterm_in_a_headless_notebook(root, tmp_path, undisturbed):
    environment = {**os.environ, "SLOW_NOTES": str(tmp_path / "notes"), "SLOW_STEP": "0.2", "PPO_LAB_UI": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", HEADLESS, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env=environment,
    )  # fmt: skip
    wait_until(lambda: (tmp_path / "one").exists(), process)
    made = len(notes(tmp_path))
    wait_until(lambda: len(notes(tmp_path)) > made + 6 and notes(tmp_path)[-6:] == ["step"] * 6, process)
    time.sleep(1.0)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM, error
    assert goes_on(tmp_path, undisturbed)


FAILS = {"steps": 0, "at": 0}  # no attribute of an environment: a simulator's own trouble is not put back


class Broken(slow_envs.Slow):
    """Fails once, in the step number FAILS["at"] of all."""

    def step(self, action):
        FAILS["steps"] += 1
        if FAILS["steps"] == FAILS["at"]:
            raise ConnectionError("the simulator does not answer")
        return super().step(action)


@pytest.mark.parametrize("fails", [1, 30, 49, 100])
def test_an_environment_that_raises_costs_no_update(fails, tmp_path, undisturbed):
    FAILS.update(steps=0, at=0)
    trainer = Trainer(settings(tmp_path), envs=lambda i: Broken())
    FAILS.update(steps=0, at=fails)
    with pytest.raises(Exception, match=r"does not answer.*; saved at step \d+: Trainer.resume\('.*one'\) continues"):
        list(trainer)
    step = 48 * ((fails - 1) // 48)
    assert find_checkpoint(tmp_path / "one")[0].name == str(step)
    list(trainer)  # and in this process it simply goes on
    assert trainer.fingerprint() == undisturbed
    trainer.close()
    Path(tmp_path / "one" / "checkpoints" / "144").rename(tmp_path / "end")
    resumed = Trainer.resume(tmp_path / "one", envs=lambda i: Broken())
    assert resumed.state.global_step == step
    list(resumed)
    assert resumed.fingerprint() == undisturbed
    resumed.close()


def test_an_environment_that_stays_broken_says_so_each_time(tmp_path):
    class Dead(slow_envs.Slow):
        dead = False

        def reset(self, **how):
            if self.dead:
                raise ConnectionError("gone for good")
            return super().reset(**how)

    trainer = Trainer(settings(tmp_path), envs=lambda i: Dead())
    Dead.dead = True
    for _ in range(3):
        with pytest.raises(Exception, match="gone for good"):
            list(trainer)
    trainer.close()


ENDLESS = {"env.kwargs": {"length": 10**9}, "run.eval_every": 48, "run.eval_max_steps": 10**9}


def press_while_evaluating(monkeypatch, press):
    """Somebody presses after some steps of an evaluation that would never end."""
    plain, evaluate = slow_envs.Slow.step, recorder.evaluate
    under_way, steps = [False], [0]

    def step(self, action):
        steps[0] += under_way[0]
        if steps[0] == 30:
            press()
        return plain(self, action)

    def evaluating(*arguments, **more):
        under_way[0] = True
        try:
            return evaluate(*arguments, **more)
        finally:
            under_way[0] = False

    monkeypatch.setattr(slow_envs.Slow, "step", step)
    monkeypatch.setattr(recorder, "evaluate", evaluating)
    return steps


@pytest.mark.parametrize("how", ["Ctrl-C in a script", "Ctrl-C", "SIGTERM", "Stop"])
def test_in_an_evaluation_without_an_end(how, tmp_path, monkeypatch, capsys):
    trainer = Trainer(settings(tmp_path, **ENDLESS))
    session = Session(trainer)
    number = signal.SIGTERM if how == "SIGTERM" else signal.SIGINT
    stop = (lambda: session.stop(wait=False)) if how == "Stop" else (lambda: os.kill(os.getpid(), number))
    steps = press_while_evaluating(monkeypatch, stop)
    if how == "Ctrl-C in a script":
        with pytest.raises(KeyboardInterrupt):
            list(trainer)
    elif how == "Stop":
        session.train_here(Quiet())
    else:
        assert training.train(lambda: trainer) == 128 + number
        assert "48 of 144 steps" in capsys.readouterr().out
    assert steps[0] < 50  # two environments or ten, and not one more step of each
    saved = load_checkpoint(find_checkpoint(tmp_path / "one")[0])
    assert (saved["update"], saved["global_step"]) == (1, 48)
    assert [row["update"] for row in read_rows(tmp_path / "one")] == [1]  # the update counts, without the evaluation
    trainer.close()
    monkeypatch.undo()
    resumed = Trainer.resume(tmp_path / "one")
    assert resumed.fingerprint() == trainer.fingerprint()
    resumed.close()


def test_pause_ends_the_loop_after_a_quick_update(tmp_path, undisturbed):
    trainer = Trainer(settings(tmp_path))
    for turn in range(1, 4):
        seen = []
        for event in trainer.events():
            seen.append(type(event).__name__)
            trainer.pause()
        assert seen[-1] == "Update"
        assert trainer.state.update == turn
    trainer.close()
    assert trainer.fingerprint() == undisturbed


def test_saving_by_hand_after_an_error_saves_where_the_update_began(tmp_path):
    FAILS.update(steps=0, at=0)
    trainer = Trainer(settings(tmp_path), envs=lambda i: Broken())
    FAILS.update(steps=0, at=60)
    with pytest.raises(Exception, match="does not answer"):
        list(trainer)
    assert trainer.save().name == "48"
    trainer.close()


def test_saving_from_another_thread_in_a_slow_update_saves_its_beginning_now(tmp_path, monkeypatch, undisturbed):
    trainer, saved = Trainer(settings(tmp_path)), []
    plain = updates.batches

    def slow(*arguments):
        for number, batch in enumerate(plain(*arguments)):
            if trainer.state.update == 0 and number == 2:
                time.sleep(0.6)
            yield batch

    monkeypatch.setattr(updates, "batches", slow)
    for event in trainer.events():
        if trainer.state.update == 0 and type(event).__name__ == "MinibatchStepped":
            saver = threading.Thread(target=lambda: saved.append(trainer.save()))
            saver.start()
            saver.join()
    assert [path and path.name for path in saved] == [None, None, *["0"] * 6]
    trainer.close()
    assert trainer.fingerprint() == undisturbed


def test_an_update_that_is_suddenly_slow_is_left_too(tmp_path, monkeypatch):
    trainer = Trainer(settings(tmp_path))
    steps = slow_rollout(monkeypatch, Pressed(), at=100)  # in the third update; the ones before were quick
    with pytest.raises(KeyboardInterrupt):
        list(trainer)
    assert steps[0] == 100
    saved = load_checkpoint(find_checkpoint(tmp_path / "one")[0])
    assert saved["global_step"] == 96
    assert "its memory of earlier episodes was not saved" in saved["about"]["inexact_because"]
    trainer.close()


def test_an_evaluation_that_fails_costs_no_line(tmp_path, monkeypatch, undisturbed):
    trainer = Trainer(settings(tmp_path, **{"run.eval_every": 48}))

    def fail(*_, **__):
        raise ValueError("no")

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "evaluate", fail)
        with pytest.raises(ValueError, match="no"):
            list(trainer)
    assert find_checkpoint(tmp_path / "one")[0].name == "48"
    list(trainer)
    assert [row["update"] for row in read_rows(tmp_path / "one")] == [1, 2, 3]
    assert trainer.fingerprint() == undisturbed
    trainer.close()


@pytest.mark.parametrize("slow", [True, False])
def test_learning_that_is_broken_off_goes_back_or_says_so(slow, tmp_path, monkeypatch, undisturbed):
    trainer = Trainer(settings(tmp_path))
    plain, breaks = updates.batches, [True]

    def broken(*arguments):
        for number, batch in enumerate(plain(*arguments)):
            if number == 3 and breaks[0] and (slow or trainer.state.update == 1):
                breaks[0] = False
                raise MemoryError("out of it")
            yield batch

    monkeypatch.setattr(updates, "batches", broken)
    with pytest.raises(MemoryError):
        list(trainer)
    list(trainer)
    assert (trainer.fingerprint() == undisturbed) == slow == (trainer.inexact is None)
    trainer.close()


def test_what_environments_hand_over_as_their_state_may_change_with_the_next_step(tmp_path, monkeypatch):
    class Live(CartPole):
        def state_dict(self):
            return {**super().state_dict(), "own": self.own}

        def load_state_dict(self, state):
            super().load_state_dict({key: value for key, value in state.items() if key != "own"})
            self.own = state["own"].clone()

        def reset(self, seed):
            self.own = torch.zeros(2)
            return super().reset(seed)

        def step(self, action):
            self.own += 1
            if int(self.own[0]) == 10:
                time.sleep(0.6)
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(action)

    config = settings(tmp_path, **{"env.id": "ppo_lab/CartPole-v1", "ppo.total_timesteps": 48})
    trainer = Trainer(config, envs=Live(2))
    with pytest.raises(KeyboardInterrupt):
        list(trainer)
    saved = load_checkpoint(find_checkpoint(tmp_path / "one")[0])
    assert saved["envs"]["own"].tolist() == [0, 0]
    trainer.close()
