"""The tests are collected, and skipped with a reason, where a browser, Playwright or an optional package is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

EXTRAS = (
    "Box2D", "mujoco", "mujoco_py", "ale_py", "minigrid", "onnx", "onnxruntime", "imageio_ffmpeg", "pygame", "cv2",
    "stable_baselines3", "sb3_contrib", "optuna",
)  # fmt: skip


def run_pytest(root, *arguments, without=(), **environment):
    """(exit status, what it printed) of pytest in a process of its own, in which `without` cannot be imported."""
    told = {"PPO_LAB_WITHOUT": ",".join(without), "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-p", "tests.without", "-p", "no:cacheprovider", "-q", *arguments]
    ended = subprocess.run(command, cwd=root, env=os.environ | told | environment, capture_output=True, text=True)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("without", [("playwright",), ("playwright", *EXTRAS)], ids=["playwright", "all"])
def test_everything_is_collected_without(without, root):
    status, told = run_pytest(root, "--collect-only", without=without)
    assert status == 0, told[-2000:]
    assert re.search(r"\d{4} tests collected", told)


@pytest.fixture(params=["no browser", "one that does not start"])
def path(request, tmp_path):
    """A PATH with nothing on it but what might be a browser."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if request.param != "no browser":
        (folder / "chromium-browser").write_text("#!/bin/sh\nexit 1\n")
        (folder / "chromium-browser").chmod(0o755)
    return folder


@pytest.mark.parametrize("playwright", [False, True])
def test_browser_tests_are_skipped_for_a_reason(playwright, path, root, tmp_path):
    stub = tmp_path / "modules" / "playwright"  # in the place of one that is not installed; nothing gets to use it
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    modules = os.pathsep.join([str(stub.parent), os.environ.get("PYTHONPATH", "")])
    status, told = run_pytest(
        root, "-rs", "tests/browser", without=() if playwright else ("playwright",), PATH=str(path), PYTHONPATH=modules
    )
    assert status == 0, told[-2000:]
    assert re.search(r"^\d+ skipped in", told, re.MULTILINE), told[-2000:]
    has_browser = any(path.iterdir())
    reason = "is no browser that starts" if has_browser else "no browser on the PATH"
    assert (reason if playwright else "playwright is not installed: pip install") in told
