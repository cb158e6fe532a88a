"""Folders with spaces, another working directory, a home that cannot be written to, a Makefile without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

NO_HOME = "/dev/null/nobody"  # cannot be made, by root either


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "a b c"
    place.mkdir()
    return place


def ran(command, cwd, root, **environment):
    """A command in a process of its own, in `cwd`, as on a machine whose user has no home."""
    hidden = (
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "MPLCONFIGDIR",
        "IPYTHONDIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_CONFIG_DIR",
    )
    known = {key: value for key, value in os.environ.items() if key not in hidden and "MAKE" not in key}
    modules = os.pathsep.join([str(root), known.get("PYTHONPATH", "")])
    given = {"HOME": NO_HOME, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=known | given | environment, capture_output=True, text=True)


def test_training_from_another_folder_without_a_home(folder, root):
    shutil.copy(root / "config.yaml", folder)
    (folder / "below").mkdir()
    small = ["--ppo.total-timesteps", "64", "--ppo.num-steps", "8", "--ppo.num-minibatches", "2", "--run.name", "mine"]
    command = [sys.executable, "-W", "error", "-m", "ppo_lab", "train", "--preset", "cartpole", *small]
    ended = ran(command, folder / "below", root)
    assert ended.returncode == 0, ended.stderr
    assert (folder / "runs" / "mine" / "metrics.jsonl").is_file()
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    ended = ran(command, elsewhere, root)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: preset 'cartpole': no config.yaml was found in {elsewhere} or above it")
    assert ended.stderr.count("\n") == 1


def test_the_notebook_side_without_a_home(folder, root):
    code = (
        "import ppo_lab, matplotlib.pyplot, torch.utils.tensorboard; from ppo_lab import notebook; "
        "print(ppo_lab.load_config().ppo.gamma, notebook.plots.learning.__name__)"
    )
    ended = ran([sys.executable, "-W", "error", "-c", code], folder, root)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture
def checkout(folder, root):
    """What make needs, and a Python that writes down what it is asked for and cannot install anything."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "requirements.txt", "tests/browser/requirements.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, folder / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "bin").mkdir()
    for path, script in (
        (".venv/bin/python", 'echo "$@" >> asked; case "$*" in *" pip "*) exit 1;; esac'),
        ("bin/chromium", "exit 0"),
    ):
        (folder / path).write_text(f"#!/bin/sh\n{script}\n")
        (folder / path).chmod(0o755)
    (folder / ".venv" / ".installed").touch()
    return folder


@pytest.mark.parametrize("browser", [False, True])
def test_make_test_goes_on_without_a_browser_and_without_playwright(browser, checkout, root):
    path = f"{checkout / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin" if browser else os.environ["PATH"]
    if not browser and any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("there is a browser")
    ended = ran(["make", "test"], checkout, root, PATH=path)
    assert ended.returncode == 0, ended.stderr
    why = "no Playwright" if browser else "no Chromium on the PATH"
    assert f"{why}: the tests in tests/browser will be skipped" in ended.stdout
    asked = (checkout / "asked").read_text().splitlines()
    assert "-m pytest -q" in asked
    assert any("nbval" in line for line in asked)
    assert any("-m pip" in line for line in asked) == browser


@pytest.mark.parametrize("home", [True, False])
def test_make_keeps_things_in_the_environment_where_there_is_no_home(home, checkout, root):
    (checkout / "show.mk").write_text('show:\n\t@echo "$$JUPYTER_DATA_DIR|$$IPYTHONDIR|$$MPLCONFIGDIR"\n')
    ended = ran(
        ["make", "-f", "Makefile", "-f", "show.mk", "show"], checkout, root, HOME=str(checkout) if home else NO_HOME
    )
    inside = [f"{checkout}/.venv/home/{name}" for name in ("jupyter/data", "ipython", "matplotlib")]
    assert ended.stdout.strip().split("|") == (["", "", ""] if home else inside)
