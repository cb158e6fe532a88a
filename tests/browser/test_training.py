"""A training notebook: run from top to bottom, interrupted, failing, run twice, restarted."""

from __future__ import annotations

from ppo_lab.runs.lock import is_locked
from tests.browser.lab_page import kinds
from tests.browser.project import ENDLESS

THREADS = "import threading; print(sum('ppo_lab training' in each.name for each in threading.enumerate()))"


def test_all_cells_run_from_top_to_bottom(opened, project):
    page = opened()
    assert page.ended(page.start_all()) == "fine"
    page.wait("there is a picture for the dashboard", lambda: "image/png" in kinds(page.cell("launch(")))
    assert "image/png" in kinds(page.cell("show_episode"))
    assert project.rows()[-1]["global_step"] >= 150_000
    assert page.errors == []
    page.screenshot("dashboard", "launch(")
    page.screenshot("episode", "show_episode")


def test_what_training_raises_stands_under_the_launch_cell(training):
    training.python("session.trainer.envs.step = lambda action: 1 / 0")
    launch = training.code_cell("launch(")
    training.wait("there is a traceback", lambda: "ZeroDivisionError" in kinds(training.cell("launch(")))
    assert "lambda action: 1 / 0" in launch.inner_text()  # the line that raised
    assert "failed at" in launch.inner_text()
    assert training.ended(training.start("session.wait()")) == "failed"
    assert "ZeroDivisionError" in kinds(training.cell("session.wait()"))
    training.screenshot("traceback", "launch(")


def test_launching_again_leaves_one_training_thread(training, project):
    for _ in range(3):
        training.start("launch(")
        training.run("launch(")  # as with two key presses: the second takes over from the first
        done = len(project.rows())
        training.wait("training goes on", lambda n=done: len(project.rows()) > n + 2)
        assert training.python(THREADS) == "1"
    updates = [row["update"] for row in project.rows()]
    assert updates == list(range(1, len(updates) + 1))  # none twice, none missing


def test_interrupt_ends_training_and_the_next_cells_run(opened, project):
    page = opened(overrides=ENDLESS)
    number = page.start_all()
    page.wait("training is under way", lambda: project.runs and len(project.rows()) > 2)
    page.wait("wait() waits", lambda: page.cell("session.wait()")["prompt"] == "[*]:")
    page.interrupt()
    assert page.ended(number) == "fine"
    # the model's outputs: a cell that is scrolled out of sight has no text on the page
    page.wait("it says where it stopped", lambda: "stopped at" in str(page.cell("launch(")["outputs"]))
    assert page.python("print(session.running)") == "False"


def test_a_restarted_kernel_can_train_again(training, project):
    (first,) = project.runs
    training.restart_kernel()
    training.run("preset =", "load_config", "launch(")
    training.wait(
        "a second run is under way", lambda: len(project.runs) == 2 and len(project.rows(project.runs[1])) > 2
    )
    assert training.python(THREADS) == "1"
    assert not is_locked(first)
    training.drag("clip_coef", 0.7)
    training.wait("its dashboard works", lambda: project.journal(project.runs[1]))


def test_two_notebooks_cannot_train_one_run(opened, project):
    first = opened(copy="first", run_name="mine", overrides=ENDLESS)
    first.run("preset =", "load_config", "launch(")
    second = opened(copy="second", run_name="mine", overrides=ENDLESS)
    second.run("preset =")
    assert second.ended(second.start("load_config")) == "failed"
    assert "RunError" in kinds(second.cell("load_config"))
    first.python("session.save()")
    second.python("try: ppo_lab.Trainer.resume('../runs/mine')\nexcept ppo_lab.RunError as error: print(error)")
    assert "is in use by process" in second.text()
