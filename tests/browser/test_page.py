"""Leaving the page: reloads, saved files, notebooks without their kernel."""

from __future__ import annotations

import json

import pytest

from tests.browser.lab_page import kinds

PICTURES = ("Learning", "Dials", "Inside the update", "Agent")  # tabs; WORDS: text on some of them after a drag
TABS = (*PICTURES, "Health", "Journal")
WORDS = {"Agent": "A separate environment", "Health": "wrong", "Journal": "clip_coef"}


def test_the_dashboard_can_be_shown_again_after_a_reload(training, project):
    training.reload()  # nothing was saved: all outputs are gone
    assert training.page.locator(".noUi-target").count() == 0
    training.python("session.dashboard()")
    training.area = training.code_cell("session.dashboard()")
    shown = float(training.drag("clip_coef", 0.7))
    assert [change.new for change in training.wait("the journal has it", project.journal)] == [shown]
    training.save()
    training.reload()  # the file now refers to widgets that still live in the kernel
    training.area = training.code_cell("session.dashboard()")
    training.click("Pause")
    training.wait("it holds", lambda: "paused" in training.area.inner_text())
    training.click("Run")


def test_a_saved_notebook_has_pictures_without_its_kernel(training, lab, project):
    training.click("Stop")
    training.wait("it has stopped", lambda: "stopped at" in training.text())
    training.screenshot("stopped", "launch(")
    training.save()
    lab.shut_down_kernels()
    path = project.folder / "notebooks" / "01_train.ipynb"
    saved = json.loads(path.read_text())
    assert path.stat().st_size < 1_000_000
    assert "widgets" not in saved["metadata"]
    training.open()
    picture = training.code_cell("launch(").locator(".jp-RenderedImage img").first
    training.wait("the picture is there", lambda: picture.evaluate("image => image.naturalWidth") > 300)
    assert "Error displaying widget" not in training.page.locator(".jp-Notebook").inner_text()
    assert not any("widget" in kind for kind in kinds(training.cell("launch(")))
    training.screenshot("reopened", "launch(")


def test_a_notebook_saved_while_it_trains_has_a_picture_too(training, lab):
    training.save()
    lab.shut_down_kernels()
    training.open()
    picture = training.code_cell("launch(").locator(".jp-RenderedImage img").filter(visible=True).first
    training.wait("the picture is there", lambda: picture.evaluate("image => image.naturalWidth") > 300)
    training.screenshot("reopened", "launch(")


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_every_tab_shows_its_panel(training, project, theme):
    training.theme(f"JupyterLab {theme}")
    training.drag("clip_coef", 0.7)
    training.wait("the journal has it", project.journal)
    for title in TABS:
        panel = training.tab(title)
        if title in PICTURES:
            image = panel.locator("img").filter(visible=True).first
            training.wait(f"{title} is drawn", lambda shown=image: shown.evaluate("image => image.naturalWidth") > 100)
        said = WORDS.get(title, "")
        training.wait(f"{title} says {said!r}", lambda shown=panel, text=said: text in shown.inner_text())
        training.screenshot(f"{theme} {title}", "launch(")
    assert "cannot show the agent" not in training.text()
    assert training.errors == []
