"""Fixtures: a browser, a JupyterLab server and a project folder. Without a browser these tests are skipped."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.lab_server import LabServer
from tests.browser.project import ENDLESS, Project

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.browser.lab_page import LabPage

HERE = Path(__file__).resolve().parent
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]  # stay local


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


def starts(path: str) -> bool:
    """Return whether a browser prints its version: Ubuntu's `chromium-browser` may be a script that asks for a snap."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


# Package scope, not session scope: while Playwright is active, its event loop runs on this thread, and tests elsewhere
# could not start one.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install -r tests/browser/requirements.txt")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser on the PATH ({', '.join(NAMES)}): apt-get install chromium")
    if not starts(path):
        pytest.skip(f"{path} is no browser that starts: `{path} --version` fails")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    place = tmp_path_factory.mktemp("lab")
    (place / "root").mkdir()
    server = LabServer(place / "root", place / "server")
    yield server
    server.stop()


@pytest.fixture
def project(lab: LabServer, root: Path, request: pytest.FixtureRequest) -> Project:
    """Create a project folder for this test alone."""
    return Project(root, lab.root / re.sub(r"\W+", "-", request.node.name))


@pytest.fixture
def opened(browser: Browser, lab: LabServer, project: Project) -> Iterator[Callable[..., LabPage]]:
    """Yield a function that opens a copy of a notebook in a new tab: opened("01_train", seed=2)."""
    from tests.browser.lab_page import LabPage

    shots = os.environ.get("PPO_LAB_SHOTS")
    pages: list[LabPage] = []

    def open_notebook(notebook: str = "01_train", copy: str | None = None, **parameters: Any) -> LabPage:
        path = project.add_notebook(notebook, copy or notebook, parameters)
        where = Path(shots) / project.folder.name if shots else None
        address = path.relative_to(lab.root).as_posix()
        lab.start_kernel(address)
        pages.append(LabPage(browser, lab, address, where))
        return pages[-1]

    yield open_notebook
    for page in pages:
        page.close()
    lab.shut_down_kernels()
    lab.forget_settings()


@pytest.fixture
def training(opened: Callable[..., LabPage], project: Project) -> LabPage:
    """Open a notebook and start training that continues until it is stopped."""
    page = opened(overrides=ENDLESS)
    page.run("preset =", "load_config", "launch(")
    page.wait("training is under way", lambda: len(project.rows()) > 2)
    return page
