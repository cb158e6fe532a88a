"""Every control of the dashboard does what its label says, operated with the mouse."""

from __future__ import annotations

from statistics import median

import ppo_lab
from ppo_lab.config import LIVE
from ppo_lab.runs.run import read_lineage
from tests.browser.project import ENDLESS


def hold(page):
    """Press Pause, and return when the current update is done."""
    page.click("Pause")
    page.wait("the page says so", lambda: "paused" in page.area.inner_text())
    page.python("session.at_boundary(lambda: None)")


def test_a_dragged_slider_reaches_journal_and_metrics(training, project):
    shown = float(training.drag("clip_coef", 0.7))
    assert shown != 0.2
    change = training.wait("the journal has it", project.journal)[0]
    assert (change.key, change.old, change.new, change.source) == ("clip_coef", 0.2, shown, "dashboard")
    training.wait("an update used it", lambda: project.rows()[-1]["update/clip_coef"] == shown)
    used = {row["update"]: row["update/clip_coef"] for row in project.rows()}
    assert all(value == (0.2 if update < change.update else shown) for update, value in used.items())
    training.wait("the page says so", lambda: training.note("clip_coef") == f"in force: {shown:g}")


def test_every_live_setting_has_a_slider(training, project):
    for count, key in enumerate(LIVE):
        training.drag(key, 0.6)
        training.wait("the journal has it", lambda n=count: len(project.journal()) > n)
    assert [change.key for change in project.journal()] == list(LIVE)


def test_a_slider_says_pending_until_its_value_is_taken(training, project):
    hold(training)
    shown = training.drag("ent_coef", 0.5)
    training.wait("it is pending", lambda: training.note("ent_coef") == f"pending: {shown}; in force: 0")
    assert project.journal() == []
    training.click("Run")
    training.wait("it is in force", lambda: training.note("ent_coef") == f"in force: {shown}")
    assert [change.new for change in project.journal()] == [float(shown)]


def test_drawing_the_sliders_changes_nothing(opened, project):
    # values off every grid: one that a slider rounded and sent back would show
    values = {"ppo.learning_rate": 3.3e-4, "ppo.clip_coef": 0.123, "ppo.ent_coef": 0.0123, "ppo.gamma": 0.9876}
    page = opened(overrides={**ENDLESS, **values})
    page.run("preset =", "load_config", "launch(")
    for key in ("learning_rate", "clip_coef", "ent_coef"):
        page.slider(key).hover()
    page.theme("JupyterLab Dark")
    page.run("launch(")
    page.slider("clip_coef").hover()
    done = len(project.rows())
    page.wait("ten updates more", lambda: len(project.rows()) > done + 10)
    assert project.journal() == []
    assert {row["update/clip_coef"] for row in project.rows()} == {0.123}


def test_pause_holds_and_run_goes_on(training, project):
    hold(training)
    done, step = len(project.rows()), training.python("print(session.trainer.state.global_step)")
    training.page.wait_for_timeout(1000)  # while it would do ten updates
    assert len(project.rows()) == done
    assert training.python("print(session.trainer.state.global_step)") == step
    assert f"paused: {int(step):,} of" in training.text()
    training.click("Run")
    training.wait("it goes on", lambda: len(project.rows()) > done + 2)


def test_one_update_is_one_and_step_is_as_many_as_asked(training, project):
    hold(training)
    done = len(project.rows())
    for count in range(1, 4):
        training.click("One update")
        training.wait("it is done", lambda n=done + count: len(project.rows()) >= n)
    training.page.wait_for_timeout(500)  # another would come now
    assert len(project.rows()) == done + 3
    training.python("session.step(2)")
    assert len(project.rows()) == done + 5


def test_save_makes_a_checkpoint(training, project):
    assert project.checkpoints() == []
    training.click("Save")
    training.wait("there is one", project.checkpoints)


def test_fork_goes_on_in_a_new_run(training, project):
    (old,) = project.runs
    training.click("Fork")
    (new,) = training.wait("there is a new run", lambda: project.forks)
    assert read_lineage(new)["parent"] == old.name
    training.wait("it trains", lambda: len(project.rows(new)) > 2)
    assert project.rows(new)[0]["global_step"] > read_lineage(new)["step"]
    before = len(project.rows(old))
    shown = float(training.drag("clip_coef", 0.7))
    training.wait("its sliders work", lambda: project.journal(new))
    assert [change.new for change in project.journal(new)] == [shown]
    training.run("launch(")  # with the trainer that was forked: the fork continues
    done = len(project.rows(new))
    training.wait("the fork goes on", lambda: len(project.rows(new)) > done + 2)
    assert project.journal(old) == []
    assert len(project.rows(old)) == before


def test_rewind_goes_back_to_a_checkpoint(training, project):
    training.click("Save")
    step = training.wait("there is a checkpoint", project.checkpoints)[0]
    training.wait("training goes on", lambda: project.rows()[-1]["global_step"] > step + 10_000)
    (old,) = project.runs
    training.choose("checkpoint", f"step {step:,}")
    training.click("Rewind")
    (new,) = training.wait("there is a new run", lambda: project.forks)
    assert read_lineage(new)["step"] == step
    training.wait("it trains", lambda: len(project.rows(new)) > 2)
    assert project.rows(new)[0]["global_step"] < project.rows(old)[-1]["global_step"]


def test_undo_takes_the_last_change_back(training, project):
    assert training.button("Undo").is_disabled()
    shown = float(training.drag("clip_coef", 0.7))
    training.wait("the journal has it", project.journal)
    training.click("Undo")
    training.wait("the journal has that too", lambda: len(project.journal()) == 2)
    assert [(change.old, change.new) for change in project.journal()] == [(0.2, shown), (shown, 0.2)]
    training.wait("the slider is back", lambda: training.shown("clip_coef") == "0.2")
    training.wait("there is nothing left to undo", lambda: training.button("Undo").is_disabled())
    assert len(project.journal()) == 2  # moving the slider back is not another change


def test_stop_leaves_a_picture_and_launching_goes_on(training, project):
    training.click("Stop")
    training.wait("it has stopped", lambda: "stopped at" in training.code_cell("launch(").inner_text())
    assert training.page.locator(".noUi-target").count() == 0
    done = len(project.rows())
    training.run("launch(")
    training.wait("it goes on", lambda: len(project.rows()) > done + 2)
    assert [row["update"] for row in project.rows()] == list(range(1, len(project.rows()) + 1))


def test_a_run_steered_by_hand_is_replayed_to_the_same_fingerprint(training, project):
    for key, fraction in (("learning_rate", 0.6), ("clip_coef", 0.8), ("ent_coef", 0.2), ("clip_coef", 0.3)):
        changes = len(project.journal())
        training.drag(key, fraction)
        training.wait("it is taken", lambda n=changes: len(project.journal()) > n)
    training.click("Undo")
    training.wait("it is undone", lambda: len(project.journal()) == 5)
    hold(training)
    training.drag("ent_coef", 0.4)
    training.click("One update")
    training.wait("it is taken", lambda: len(project.journal()) == 6)
    training.click("Run")
    done = len(project.rows())
    training.wait("three updates more", lambda: len(project.rows()) > done + 3)
    training.click("Save")
    training.wait("it is saved", project.checkpoints)
    training.click("Stop")
    training.wait("it has stopped", lambda: "stopped at" in training.text())
    (run,) = project.runs
    result = ppo_lab.replay(run)
    assert result.equal, result
    assert result.update > project.journal()[-1].update


def test_how_long_a_slider_takes(training, project, capsys):
    """Print the latency from slider to journal; nothing is asserted about it."""
    seconds = []
    for count in range(10):
        training.drag("clip_coef", 0.3 if count % 2 else 0.8)
        training.wait("the journal has it", lambda n=count: len(project.journal()) > n)
        (run,) = project.runs
        seconds.append((run / "journal.jsonl").stat().st_mtime - training.released)
    with capsys.disabled():
        print(f"\nslider to journal: median {median(seconds):.3f} s, longest {max(seconds):.3f} s")
