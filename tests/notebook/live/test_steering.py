"""Steering a session while it trains: steps, forks, undo, inspecting the last update. None of it disturbs training."""

import numpy as np
import pytest
import torch

from ppo_lab.errors import ConfigError, RunError
from ppo_lab.notebook.data import last_update
from ppo_lab.notebook.data.distribution_summary import action_parts
from ppo_lab.notebook.live.controls import Controls
from ppo_lab.notebook.live.session import Session
from ppo_lab.notebook.live.sliders import slider_label
from ppo_lab.notebook.plots import inside_figure
from ppo_lab.ppo.batches import whole
from ppo_lab.ppo.events import AdvantagesEstimated, MinibatchStepped, RolloutCollected, Update
from ppo_lab.runs import read_journal
from ppo_lab.training.replay import replay
from ppo_lab.trees import at
from tests.notebook.fakes import Silent, trainer
from tests.notebook.plots import layout


@pytest.fixture
def start():
    sessions = []

    def begin(ours, view=None, paused=False):
        session = Session(ours)
        sessions.append(session)
        if paused:
            session.pause()  # it holds after its first update
        session.train_in_background(view or Silent())
        return session

    yield begin
    for session in sessions:
        session.stop()
        session.trainer.close()


def on_disk(tmp_path, updates=1_000_000, **overrides):
    disk = {"run.root": str(tmp_path), "run.name": "mine", "run.tensorboard": False, "run.checkpoint_every": 0}
    return trainer(updates, **{**disk, **overrides})


# ---- steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_a_step_is_that_many_updates(start, count):
    session = start(trainer(1_000_000))
    session.pause()
    before = session.at_boundary(lambda: session.trainer.state.update)
    session.step(count)
    assert session.trainer.state.update == before + count
    assert session.paused
    session.policy()  # still there
    assert session.trainer.state.update == before + count


def test_a_step_of_a_running_session_holds_it(start):
    session = start(trainer(1_000_000))
    session.step(2)
    held = session.trainer.state.update
    session.policy()
    assert session.trainer.state.update == held
    session.resume()
    while session.trainer.state.update == held:
        session.policy()


def test_a_step_past_the_end_ends(start):
    session = start(trainer(8))
    session.step(100)
    assert not session.running
    assert session.trainer.finished
    with pytest.raises(RunError, match="training is over"):
        session.step()


def test_a_step_is_at_least_one_update(start):
    with pytest.raises(ConfigError, match="updates must be at least 1, got 0"):
        start(trainer(1_000_000)).step(0)


def test_stepping_changes_nothing(start):
    alone = trainer(12)
    list(alone)
    session = start(trainer(12), paused=True)
    while session.running:
        session.step(2)
    assert session.trainer.fingerprint() == alone.fingerprint()


# ---- undo ----------------------------------------------------------------------------------------------------------


def ruling(session, key):
    live = session.trainer.state.live
    return live[key].value if key in live else getattr(session.trainer.config.ppo, key)


def test_undo_goes_back_one_change_after_the_other(start):
    session = start(trainer(1_000_000))
    session.pause()
    session.set(clip_coef=0.3)
    session.step()
    session.set(clip_coef=0.4, gamma=0.9)
    session.step()
    assert session.can_undo
    assert session.undo() == {"clip_coef": 0.3, "gamma": 0.99}
    session.step()
    assert (ruling(session, "clip_coef"), ruling(session, "gamma")) == (0.3, 0.99)
    assert session.undo() == {"clip_coef": 0.2}
    session.step()
    assert ruling(session, "clip_coef") == 0.2
    assert not session.can_undo
    assert session.undo() == {}


def test_undoing_what_is_pending_leaves_no_line_in_the_journal(start, tmp_path):
    session = start(on_disk(tmp_path))
    session.pause()
    session.step()
    session.set(clip_coef=0.4)
    session.undo()
    assert session.pending == {"clip_coef": 0.2}
    session.step(2)
    assert session.pending == {}
    assert read_journal(tmp_path / "mine") == []
    session.set(clip_coef=0.3)
    session.set(clip_coef=0.4)
    session.undo()
    session.step()
    assert [(change.old, change.new) for change in read_journal(tmp_path / "mine")] == [(0.2, 0.3)]


def test_undo_of_a_scheduled_setting_goes_back_to_the_schedule(start):
    settings = {"ppo.learning_rate_schedule": "linear", "ppo.total_timesteps": 64 * 40}
    alone = trainer(40, **settings)
    rates = [update.metrics["update/learning_rate"] for update in alone]
    session = start(trainer(40, **settings), paused=True)
    first = session.at_boundary(lambda: len(session.records))
    session.set(learning_rate=1e-2)
    session.step(2)
    session.undo()
    session.resume()
    session.wait()
    ours = session.history["update/learning_rate"]
    assert ours[first] > 9e-3
    np.testing.assert_allclose(ours[first + 2 :], rates[first + 2 :], rtol=1e-9)


def test_setting_what_rules_already_is_no_change(start, tmp_path):
    session = start(on_disk(tmp_path))
    session.set(clip_coef=0.2)
    session.step(2)
    assert read_journal(tmp_path / "mine") == []
    assert session.trainer.changes == []


# ---- saving, forking, rewinding ------------------------------------------------------------------------------------


def test_save_is_a_checkpoint_of_a_boundary(start, tmp_path):
    session = start(on_disk(tmp_path))
    path = session.save()
    assert path is not None
    assert path.is_dir()
    assert int(path.name) % 64 == 0


def test_without_a_run_folder_there_is_nothing_to_save_or_fork(start):
    session = start(trainer(1_000_000))
    with pytest.raises(RunError, match=r"run\.root is null"):
        session.save()
    with pytest.raises(RunError, match=r"run\.root is null"):
        session.fork()
    assert session.running


def test_a_fork_takes_over_here_and_now(start, tmp_path):
    session = start(on_disk(tmp_path))
    session.set(clip_coef=0.3)
    session.step(3)
    old, step = session.trainer, session.trainer.state.global_step
    name = session.fork(learning_rate=1e-3)
    new = session.trainer
    assert name == new.run.name != "mine"
    assert new.state.global_step == step
    assert new.config.ppo.learning_rate == 1e-3
    assert [change.key for change in new.changes] == ["clip_coef"]
    assert len(session.others["mine"]["update"]) == old.state.update
    assert list(session.history["update"]) == list(range(1, old.state.update + 1))
    assert session.succeeds(old)
    assert session.succeeds(new)
    session.step(2)
    assert new.state.update == old.state.update + 2
    assert list(session.history["update"]) == list(range(1, new.state.update + 1))


def test_a_fork_alone_is_the_same_run(start, tmp_path):
    """Check that a fork without overrides continues exactly as the run itself would have."""
    alone = trainer(12)
    list(alone)
    session = start(on_disk(tmp_path, 12), paused=True)
    session.step(2)
    session.fork()
    session.resume()
    session.wait()
    assert session.trainer.state.update == 12
    assert [row == 0 for row in np.diff(session.history["update"]) - 1] == [True] * 11
    weights = zip(alone.state.model.parameters(), session.trainer.state.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_what_is_pending_goes_along_with_a_fork(start, tmp_path):
    session = start(on_disk(tmp_path), paused=True)
    session.policy()
    session.set(source="dashboard", clip_coef=0.3)
    session.fork()
    assert session.pending == {"clip_coef": 0.3}
    session.step()
    assert ruling(session, "clip_coef") == 0.3
    session.undo()
    session.step()
    assert ruling(session, "clip_coef") == 0.2


def test_rewinding_is_a_fork_from_a_checkpoint(start, tmp_path):
    session = start(on_disk(tmp_path))
    session.step(2)
    place = int(session.save().name)
    session.step(4)
    session.fork(at=place)
    assert session.trainer.state.global_step == place
    assert session.history["global_step"][-1] == place
    assert session.others["mine"]["global_step"][-1] > place


def test_a_fork_that_cannot_be_leaves_everything_as_it_is(start, tmp_path):
    session = start(on_disk(tmp_path))
    session.step(2)
    old = session.trainer
    with pytest.raises(RunError, match="7"):
        session.fork(at=7)
    with pytest.raises(ConfigError, match="clip_coef"):
        session.fork(clip_coef=-1.0)
    assert session.trainer is old
    session.step()
    assert [place.name for place in tmp_path.iterdir()] == ["mine"]


def test_a_steered_session_is_replayed(start, tmp_path):
    session = start(on_disk(tmp_path))
    session.step(2)
    session.set(source="dashboard", learning_rate=1e-3)
    session.step(2)
    session.undo(source="dashboard")
    session.step(1)
    session.save()
    session.stop()
    session.trainer.close()
    assert [change.source for change in read_journal(tmp_path / "mine")] == ["dashboard"] * 2
    assert replay(tmp_path / "mine").equal


# ---- a rate that adapts itself -------------------------------------------------------------------------------------

ADAPTIVE = {"ppo.learning_rate_schedule": "adaptive", "ppo.desired_kl": 1e-6, "ppo.learning_rate": 1e-3}


def test_a_change_of_an_adaptive_rate_is_a_new_start_and_undo_goes_back_to_where_it_was(start):
    session = start(trainer(40, **ADAPTIVE), paused=True)
    session.policy()
    session.step(4)
    adapted = session.trainer.state.adapted["learning_rate"][1]
    assert adapted < 0.5e-3  # the KL is far above desired_kl
    session.set(learning_rate=5e-3)
    session.step(1)
    assert session.records.last("update/learning_rate") == 5e-3
    session.step(1)
    assert session.records.last("update/learning_rate") == pytest.approx(5e-3 / 1.5)
    assert session.undo() == {"learning_rate": adapted}
    session.step(1)
    assert session.records.last("update/learning_rate") == adapted


def test_the_knob_of_an_adaptive_rate_stays_and_what_is_in_force_is_said(start):

    session = start(trainer(40, **ADAPTIVE), paused=True)
    session.policy()
    controls = Controls(session)
    slider = next(one for one in controls._sliders if one.key == "learning_rate")
    session.step(3)
    controls.write()
    assert slider.slider.value == 1e-3
    used = session.records.last("update/learning_rate")
    assert used < 0.9e-3
    assert slider.note.value == f"in force: {slider_label(float(f'{used:.3g}'))}"
    assert not session.trainer.changes  # no live change
    slider.slider.value = 2e-3
    session.step(1)
    controls.write()
    assert slider.note.value == "in force: 2e-3"
    assert [(change.key, change.new) for change in session.trainer.changes] == [("learning_rate", 2e-3)]
    controls.close()


# ---- looking inside ------------------------------------------------------------------------------------------------


def test_before_the_first_update_there_is_nothing_inside():
    assert Session(trainer(2)).last_update() is None


@pytest.mark.parametrize(
    "settings", [{}, {"model.normalize_obs": True}, {"env.id": "Pendulum-v1", "ppo.normalize_reward": True}]
)
def test_inside_is_what_the_update_saw(start, settings):
    """Compare with the events of a trainer with the same settings, driven by hand."""

    twin, ratios = trainer(5, **settings), []
    for event in twin.events():
        if isinstance(event, RolloutCollected):
            value = event.rollout.value.flatten().clone()
        elif isinstance(event, AdvantagesEstimated):
            advantage, returns = event.advantage.flatten().clone(), event.returns.flatten().clone()
        elif isinstance(event, MinibatchStepped):
            rollout, model = twin.rollout, twin.state.model  # statistics are refreshed after the last of these
            with torch.no_grad():
                log_prob, _, _ = model.evaluate(rollout.obs[:-1], rollout.action, None, rollout.starts)
            ratios = (log_prob - rollout.log_prob).exp().flatten()
        elif isinstance(event, Update) and event.update == 3:
            break
    session = start(trainer(5, **settings), paused=True)
    session.policy()
    session.step(2)
    last = session.last_update()
    assert (last.update, last.global_step, last.clip_coef) == (3, 192, 0.2)
    np.testing.assert_array_equal(last.value, value)
    np.testing.assert_array_equal(last.advantage, advantage)
    np.testing.assert_array_equal(last.returns, returns)
    np.testing.assert_allclose(last.ratio, ratios, rtol=1e-5)
    np.testing.assert_array_equal(last.clipped, np.abs(last.ratio - 1) > 0.2)
    np.testing.assert_allclose([last.normalized.mean(), last.normalized.std()], [0, 1], atol=1e-5)
    assert len(last.action) == len(last.done) == 16
    if last.probabilities is not None:
        np.testing.assert_allclose(last.probabilities.sum(-1), 1, rtol=1e-5)
        assert last.mean is None
    else:
        assert last.mean.shape == last.std.shape == last.action.shape == (16, 1)


SPACES = {"env.id": "ppo_lab/Spaces-v0"}
GRU = {"model.core": "gru", "model.core_size": 8, "ppo.chunk_length": 5}
MANY_WAYS = {
    "dict and masks": {**SPACES, "env.kwargs": {"observation": "dict", "masked": True}},
    "several choices": {**SPACES, "env.kwargs": {"action": "multidiscrete_start"}},
    "bits": {**SPACES, "env.kwargs": {"action": "multibinary"}},
    "hybrid": {**SPACES, "env.kwargs": {"action": "hybrid"}, "model.std": "state", "model.distribution": "squashed"},
    "beta": {**SPACES, "env.kwargs": {"action": "box_asymmetric"}, "model.distribution": "beta"},
    "gsde": {**SPACES, "env.kwargs": {"action": "box"}, "model.std": "gsde"},
    "gru": {**GRU, "model.normalize_obs": True},
    "lstm, shared": {"model.core": "lstm", "model.core_size": 8, "model.shared": True, "ppo.chunk_length": 6},
    "window, gsde, hybrid, frames": {
        **SPACES, "env.kwargs": {"action": "hybrid", "masked": True}, "model.core": "window", "model.core_size": 8,
        "model.std": "gsde", "env.frame_stack": 2, "env.time_aware": True, "model.normalize_value": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MANY_WAYS)
def test_inside_is_what_the_update_saw_whatever_the_model(start, name):
    """Compare likewise; `ratio` with the whole rollout evaluated as the loss does, after the last step."""

    twin = trainer(5, **MANY_WAYS[name])
    for event in twin.events():
        if isinstance(event, AdvantagesEstimated):
            advantage, value = event.advantage.flatten().clone(), twin.rollout.value.flatten().clone()
            rows = torch.arange(64.0).view(16, 4)
        elif isinstance(event, MinibatchStepped):
            batch, model = whole(twin.rollout, rows, rows), twin.state.model
            with torch.no_grad():
                log_prob, _, _ = model.evaluate(batch.obs, batch.action, batch.memory, batch.starts)
            order = batch.experience(batch.returns).flatten().long()
            ratios = batch.experience(log_prob - batch.log_prob).exp().flatten()
        elif isinstance(event, Update) and event.update == 3:
            break
    session = start(trainer(5, **MANY_WAYS[name]), paused=True)
    session.policy()
    session.step(2)
    last = session.last_update()
    assert sorted(order.tolist()) == list(range(64))
    np.testing.assert_array_equal(last.value, value[order])
    np.testing.assert_array_equal(last.advantage, advantage[order])
    np.testing.assert_allclose(last.ratio, ratios, rtol=1e-5)
    assert all(part.taken.shape[0] == 16 for part in last.parts)

    layout.check(inside_figure(last))


@pytest.mark.parametrize("name", ["gru", "window, gsde, hybrid, frames", "dict and masks"])
def test_the_course_is_that_of_environment_0_step_by_step(start, name):
    """Compare with the model evaluated step by step, with the memory stored at the start of each chunk."""

    settings = {**MANY_WAYS[name], "ppo.learning_rate": 0.0, "model.normalize_obs": False}
    session = start(trainer(5, **settings), paused=True)
    session.policy()
    last, ours = session.last_update(), session.trainer
    rollout, model, first = ours.rollout, ours.state.model, slice(0, 1)
    memory = None
    for t in range(16):
        if t % rollout.chunk_length == 0:
            memory = at(at(rollout.memory, t // rollout.chunk_length), first) or None
        with torch.no_grad():
            policy, memory = model.step(at(at(rollout.obs, t), first), memory, rollout.starts[t, first])
        parts = action_parts(model.actor_head, policy, rollout.action[t, first], drawn=True)
        for mine, other in zip(last.parts, parts, strict=True):
            np.testing.assert_allclose(mine.taken[t], other.taken[0], rtol=1e-5)
            for a, b in ((mine.probabilities, other.probabilities), (mine.mean, other.mean), (mine.std, other.std)):
                assert (a is None) == (b is None)
                if a is not None:
                    np.testing.assert_allclose(a[t], b[0], rtol=1e-4, atol=1e-6)


def test_few_of_many_chunks_are_shown_and_all_of_each(start, monkeypatch):

    monkeypatch.setattr(last_update, "MOST_SAMPLES", 20)
    session = start(trainer(5, **GRU), paused=True)
    session.policy()
    last = session.last_update()
    assert 4 <= len(last.ratio) <= 20
    assert len(last.ratio) == len(last.value) == len(last.advantage) == len(last.normalized)


def test_values_before_the_update_are_shown_where_the_critic_is_asked_again(start):
    settings = {"ppo.recompute_advantage": True, "ppo.learning_rate": 0.05}
    twin = trainer(5, **settings)
    events = twin.events()
    next(events)
    value = twin.rollout.value.flatten().clone()
    next(events)
    session = start(trainer(5, **settings), paused=True)
    session.policy()
    assert session.last_update().update == 1
    np.testing.assert_allclose(session.last_update().value, value, rtol=1e-4, atol=1e-5)
    assert not np.allclose(session.trainer.rollout.value.flatten(), value, atol=1e-2)


def test_looking_inside_changes_nothing(start):
    alone = trainer(12, **{"model.normalize_obs": True})
    list(alone)

    class Looks(Silent):
        def refresh(self, session, force=False):
            session.last_update()

    session = start(trainer(12, **{"model.normalize_obs": True}), Looks())
    session.wait()
    assert session.trainer.fingerprint() == alone.fingerprint()
