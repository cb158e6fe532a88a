"""Our environments are found by id wherever they are asked for, also beside a user's own `environment.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from ppo_lab.envs.registry import BATCHED, ENTRIES, our_module

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["--env.num-envs", "2", "--ppo.num-steps", "16", "--ppo.total-timesteps", "32", "--run.tensorboard", "false"]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in another folder, with the checkout on its path after that folder, as an installation is."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, text=True, capture_output=True, timeout=240
    )


@pytest.fixture
def beside(tmp_path) -> Path:
    """A folder with a user's own environment.py, which nobody asked to import."""
    (tmp_path / "environment.py").write_text("raise RuntimeError('this is my own file')\n")
    return tmp_path


def test_ids_are_looked_up():
    assert list(BATCHED) == list(ENTRIES)
    assert len(BATCHED) == len(ENTRIES)
    assert "ppo_lab/CartPole-v1" in BATCHED
    assert "CartPole-v1" not in BATCHED
    assert BATCHED["ppo_lab/CartPoleNoVelocity-v1"](3).observation_space.shape == (2,)
    assert our_module("cartpole").__name__ == "environment.cartpole"
    for env_id in ENTRIES:
        assert env_id in gymnasium.registry


@pytest.mark.parametrize("env_id", ["ppo_lab/CartPole-v1", "CartPole-v1"])
def test_a_users_environment_py_breaks_no_training(beside, env_id):
    done = python(beside, "-m", "ppo_lab", "train", "--env.id", env_id, "--run.name", "one", *SHORT)
    assert done.returncode == 0, done.stderr
    shown = python(beside, "-m", "ppo_lab", "evaluate", "runs/one", "--episodes", "2")
    assert shown.returncode == 0, shown.stderr
    assert "my own file" not in done.stderr + shown.stderr


def test_nor_what_a_notebook_beside_it_does(beside):
    code = (
        "import ppo_lab, gymnasium\n"
        "from ppo_lab.envs.registry import our_module\n"
        "assert our_module('cartpole').CartPole(2).num_envs == 2\n"
        "assert gymnasium.make('ppo_lab/Catch-v0').reset(seed=1)[0] is not None\n"
        "assert gymnasium.make_vec('ppo_lab/Recall-v0', num_envs=2).num_envs == 2\n"
        "print(our_module('cartpole').__name__)\n"
    )
    done = python(beside, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "ppo_lab_environment.cartpole"


def test_the_users_own_module_stays_theirs(tmp_path):
    (tmp_path / "environment.py").write_text("VALUE = 42\n")
    code = (
        "import environment, ppo_lab\n"
        "trainer = ppo_lab.Trainer(ppo_lab.override(ppo_lab.Config(), {'env.id': 'ppo_lab/CartPole-v1', "
        "'env.num_envs': 2, 'ppo.num_steps': 8, 'ppo.total_timesteps': 16, 'run.root': None}))\n"
        "assert len(list(trainer)) == 1\n"
        "import environment as again\n"
        "assert again.VALUE == 42\n"
    )
    done = python(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_tools_of_one_environment_work_beside_it(beside):
    """The table of LateralControl, and its exported controller, come from the package `environment` too."""
    train = ["train", "--env.id", "ppo_lab/LateralControl-v0", "--run.name", "one", *SHORT]
    for arguments in (train, ["evaluate", "runs/one", "--segments", "2"], ["export-controller", "runs/one", "my.py"]):
        done = python(beside, "-m", "ppo_lab", *arguments)
        assert done.returncode == 0, done.stderr
    assert not re.search(r"^\s*(from|import) (environment|ppo_lab)", (beside / "my.py").read_text(), re.MULTILINE)
