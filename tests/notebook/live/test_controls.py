"""The buttons and sliders do what their labels say, report the result, and do nothing unasked."""

import threading

import gymnasium
import pytest

from ppo_lab.config import LIVE, Config
from ppo_lab.config.loading import override
from ppo_lab.envs.making import make_envs
from ppo_lab.notebook.live import controls as controls_module
from ppo_lab.notebook.live.controls import Controls
from ppo_lab.notebook.live.session import Session
from ppo_lab.runs import read_journal
from ppo_lab.training.trainer import Trainer
from tests.notebook.fakes import Silent, trainer


class Watched(Silent):
    """A view that keeps the controls up to date."""

    controls = None

    def refresh(self, session, force=False):
        if self.controls is not None:
            self.controls.write()


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Yield a paused session on disk and its controls."""
    monkeypatch.setattr(controls_module, "LIST_SECONDS", 0.0)
    settings = {"run.root": str(tmp_path), "run.name": "mine", "run.tensorboard": False, "run.checkpoint_every": 0}
    session, view = Session(trainer(1_000_000, **settings)), Watched()
    view.controls = Controls(session)
    session.pause()
    session.train_in_background(view)
    session.policy()
    yield session, view.controls
    session.stop()
    session.trainer.close()


def button(controls, text):
    return next(part for part in controls._parts if getattr(part, "description", None) == text)


def slider(controls, key):
    return next(slider for slider in controls._sliders if slider.key == key).slider


def message(session, controls):
    session.policy()  # returns after all earlier calls are done
    return controls._message.value


def test_there_is_a_slider_for_every_live_setting(stage):
    _, controls = stage
    assert {slider.key for slider in controls._sliders} == set(LIVE)


def test_looking_at_it_changes_nothing(stage, tmp_path):
    session, controls = stage
    for slider in controls._sliders:
        slider.slider.send_state()
    session.step(3)
    assert session.pending == {}
    assert read_journal(tmp_path / "mine") == []


def test_run_and_pause(stage):
    session, controls = stage
    held = session.trainer.state.update
    button(controls, "Run").click()
    while session.trainer.state.update == held:
        session.policy()
    button(controls, "Pause").click()
    session.policy()
    held = session.trainer.state.update
    session.policy()
    assert session.trainer.state.update == held
    session.resume()  # from a cell: the button follows
    session.policy()
    controls.write()
    assert button(controls, "Pause")


def test_one_update_is_one(stage):
    session, controls = stage
    held = session.trainer.state.update
    button(controls, "One update").click()
    while session.at_boundary(lambda: session.trainer.state.update) == held:
        pass
    session.policy()
    assert session.trainer.state.update == held + 1
    assert controls.status.value.startswith("paused: ")


def test_a_run_that_cannot_be_resumed_exactly_says_so_and_why(stage):
    session, controls = stage
    assert "exact" not in controls.status.value
    session.trainer.recorder.inexact = "because <it> is so"
    controls.write()
    assert "exact resume: no" in controls.status.value
    assert 'title="because &lt;it&gt; is so"' in controls.status.value


def test_it_says_which_engine_computes(stage):
    session, controls = stage
    assert session.trainer.engine_line in controls._engine.value
    assert "acting: " in controls._engine.value
    session.trainer.recorder.engine_line = "acting: torch (a <hook>)"  # as after a save in which it was found
    controls.write()
    assert "acting: torch (a &lt;hook&gt;)" in controls._engine.value


def test_stop(stage):
    session, controls = stage
    button(controls, "Stop").click()
    session.wait()
    assert not session.running


def test_a_slider_is_a_line_in_the_journal_and_undo_another(stage, tmp_path):
    session, controls = stage
    assert button(controls, "Undo").disabled
    slider(controls, "gae_lambda").value = 0.5
    note = next(each.note.value for each in controls._sliders if each.key == "gae_lambda")
    assert "pending: 0.5" in note
    session.step()
    button(controls, "Undo").click()
    assert slider(controls, "gae_lambda").value == 0.95
    assert "undone: gae_lambda returns to 0.95" in controls._message.value
    session.step()
    lines = [(change.key, change.old, change.new, change.source) for change in read_journal(tmp_path / "mine")]
    assert lines == [("gae_lambda", 0.95, 0.5, "dashboard"), ("gae_lambda", 0.5, 0.95, "dashboard")]
    assert button(controls, "Undo").disabled


def test_save_says_where(stage, tmp_path):
    session, controls = stage
    assert button(controls, "Rewind").disabled
    button(controls, "Save").click()
    step = session.at_boundary(lambda: session.trainer.state.global_step)
    assert f"checkpoints/{step}" in message(session, controls)
    assert controls._places.options == ((f"step {step:,}", step),)
    assert controls._places.value == step  # chosen, not nothing
    assert not button(controls, "Rewind").disabled


def test_fork_goes_on_in_another_run(stage, tmp_path):
    session, controls = stage
    old = session.trainer
    button(controls, "Fork").click()
    assert "mine stays unchanged" in message(session, controls)
    assert session.trainer is not old
    assert session.trainer.run.name in message(session, controls)


def test_rewind_goes_back_to_the_chosen_checkpoint(stage):
    session, controls = stage
    places = []
    for _ in range(3):
        places.append(int(session.save().name))
        session.step(2)
    controls.write()
    controls._places.value = places[1]
    session.save()
    controls.write()
    assert controls._places.value == places[1]  # a new checkpoint does not change the selection
    button(controls, "Rewind").click()
    assert f"from step {places[1]:,}" in message(session, controls)
    assert session.trainer.state.global_step == places[1]


def test_a_second_click_waits_for_the_first(stage):
    session, controls = stage
    release = threading.Event()
    session.soon(release.wait)  # a long update
    button(controls, "Fork").click()
    assert button(controls, "Fork").disabled
    assert button(controls, "Rewind").disabled
    release.set()
    session.policy()
    assert not button(controls, "Fork").disabled


def test_what_a_factory_makes_can_be_forked_with_a_button_and_rewound(tmp_path):
    made = []

    def make(index):
        made.append(index)
        return gymnasium.make("CartPole-v1")

    settings = {"run.root": str(tmp_path), "run.tensorboard": False, "env.num_envs": 2, "ppo.num_steps": 16}
    ours = Trainer(override(Config(), {**settings, "ppo.num_minibatches": 2}), make)
    session = Session(ours)
    next(iter(ours))
    controls = Controls(session)
    assert not button(controls, "Fork").disabled
    before = len(made)
    button(controls, "Fork").click()
    assert session.trainer is not ours
    assert session.trainer.env_factory is make
    assert len(made) >= before + 2
    back = session.trainer.rewind("latest")
    assert back.env_factory is make
    back.close()
    session.trainer.close()
    controls.close()


def test_given_environments_cannot_be_forked_with_a_button(tmp_path):
    given = make_envs(override(Config(), {"env.id": "ppo_lab/CartPole-v1", "env.num_envs": 2}))
    settings = override(Config(), {"run.root": str(tmp_path), "run.tensorboard": False, "ppo.num_minibatches": 1})
    ours = Trainer(settings, given)
    controls = Controls(Session(ours))
    assert button(controls, "Fork").disabled
    assert "envs=" in button(controls, "Fork").tooltip
    assert not button(controls, "Save").disabled
    ours.close()


def test_without_a_folder_what_needs_one_is_off():
    session = Session(trainer(2))
    controls = Controls(session)
    for text in ("Save", "Fork", "Rewind"):
        assert button(controls, text).disabled
        assert "run.root is null" in button(controls, text).tooltip


def test_what_went_wrong_is_said(stage, monkeypatch):
    session, controls = stage
    monkeypatch.setattr(session.trainer, "save", lambda: 1 // 0)
    button(controls, "Save").click()
    assert message(session, controls) == "<b>ZeroDivisionError: integer division or modulo by zero</b>"
    assert session.running


def test_sliders_keep_what_was_configured_exactly():
    session = Session(trainer(2, **{"ppo.learning_rate": 3.1415e-4, "ppo.clip_coef": 0.2}))
    controls = Controls(session)
    assert slider(controls, "learning_rate").value == 3.1415e-4
    assert slider(controls, "clip_coef").value == 0.2
