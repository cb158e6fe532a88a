"""Environments in subprocesses give what they give in this process, and outlive or report what happens to a worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import gymnasium
import pytest
import torch

from ppo_lab.config import Config, EnvConfig
from ppo_lab.envs.adapters.loop import episode_seed
from ppo_lab.envs.adapters.maker import Maker
from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.adapters.workers import WorkerEnvs
from ppo_lab.envs.making import make_envs
from ppo_lab.errors import EnvError, NonFiniteError
from tests.scripted_envs import ScriptedEnv, SeededEnv, seeded_spec

N = 5
FAULTS = {11: "raise", 12: "nan reward", 13: "nan obs", 14: "shape", 15: "slow", 16: "exit"}  # run seed -> what
KWARGS = {  # ... environment 3 does in step 2 of its first episode
    "faults": (
        *((episode_seed(run_seed, 3, 0), 2, kind) for run_seed, kind in FAULTS.items()),
        *((episode_seed(18, n, 0), 2, "raise") for n in (4, 1)),
    )
}


def history(envs, seed: int, steps: int) -> list[list]:
    """All that comes out of `steps` steps."""
    obs = envs.reset(seed)
    low, n = int(getattr(envs.action_space, "start", 0)), int(getattr(envs.action_space, "n", 0))
    rows = [obs.tolist()]
    for t in range(steps):
        action = (
            low + (torch.arange(envs.num_envs) + t) % n if n else torch.sin(torch.arange(envs.num_envs) + t)[:, None]
        )
        rows.append([part.tolist() for part in envs.step(action)])
    return rows


@pytest.fixture(scope="module")
def envs() -> Iterator[WorkerEnvs]:
    """Five environments in two workers, known to this process's registry alone."""
    gymnasium.register("test/Seeded-v0", entry_point="tests.scripted_envs:SeededEnv", max_episode_steps=20)
    made = make_envs(Config(env=EnvConfig(id="test/Seeded-v0", kwargs=KWARGS, num_envs=N, workers=2)))
    yield made
    del gymnasium.registry["test/Seeded-v0"]
    made.close()


@pytest.fixture(scope="module")
def here() -> SingleEnvs:
    """The same environments in this process."""
    return SingleEnvs([SeededEnv(**KWARGS) for _ in range(N)])


def pids(envs: WorkerEnvs) -> list[int]:
    return [worker.process.pid for worker in envs._workers]


def alive(pid: int) -> bool:
    """A process that runs, or a zombie that nobody waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_workers_equal_none(envs, here):
    assert [worker.count for worker in envs._workers] == [3, 2]
    assert history(envs, 1, 60) == history(here, 1, 60)
    assert history(envs, 2, 5) == history(here, 2, 5) != history(here, 1, 5)
    assert isinstance(envs.observation_space, gymnasium.spaces.Box)
    assert envs.reset(1).dtype == torch.float32


@pytest.mark.parametrize(("env_id", "workers", "num_envs"), [("CartPole-v1", 3, 4), ("Pendulum-v1", 9, 1)])
def test_any_number_of_workers_equals_none(env_id, workers, num_envs):
    histories = []
    for count in (0, workers):
        made = make_envs(Config(env=EnvConfig(id=env_id, num_envs=num_envs, workers=count)))
        assert len(getattr(made, "_workers", [])) == min(count, num_envs)
        histories.append(history(made, 3, 210))  # Pendulum's time limit is 200
        for worker in getattr(made, "_workers", []):
            worker.pipe.close()  # what the kernel does with it when this process is gone: then a worker ends by itself
            worker.process.join(10)
            assert worker.process.exitcode == 0
        made.close()
    assert histories[0] == histories[1]


def test_the_stop_button_does_not_reach_the_workers(envs, here):
    envs.reset(1)
    before = pids(envs)
    for pid in before:
        os.kill(pid, signal.SIGINT)
    assert history(envs, 1, 20) == history(here, 1, 20)
    assert pids(envs) == before


@pytest.mark.parametrize("run_seed", [11, 12, 13, 14])
def test_a_failure_is_the_same_as_in_this_process(envs, here, run_seed):
    caught = []
    for made in (envs, here):
        made.reset(run_seed)
        made.step(torch.full((N,), 6))
        with pytest.raises((EnvError, NonFiniteError)) as error:
            made.step(torch.full((N,), 6))
        caught.append(error.value)
        with pytest.raises(EnvError, match=r"call reset\(\) before the first step"):
            made.step(torch.full((N,), 6))
    there, local = caught
    assert (type(there), str(there)) == (type(local), str(local))
    assert "environment 3 " in str(there)
    assert "at its step 2 (action 6, episode seed " in str(there)
    if FAULTS[run_seed] == "raise":
        assert "in faulty" in there.__notes__[0]  # the worker's traceback
        assert "ZeroDivisionError: a wheel\n came off" in there.__notes__[0]
    before = pids(envs)
    assert history(envs, 1, 5) == history(here, 1, 5)
    assert pids(envs) == before  # a failure costs no worker


def test_of_two_failures_the_first_environment_is_named(envs, here):
    for made in (envs, here):
        made.reset(18)
        made.step(torch.full((N,), 6))
        with pytest.raises(EnvError, match=r"^environment 1 raised"):
            made.step(torch.full((N,), 6))


def test_an_interrupted_step_costs_a_reset_and_no_more(envs, here):
    envs.reset(15)
    envs.step(torch.full((N,), 6))
    before = pids(envs)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        envs.step(torch.full((N,), 6))  # environment 3 sleeps for a second
    with pytest.raises(EnvError, match=r"call reset\(\) before the first step"):
        envs.step(torch.full((N,), 6))
    assert history(envs, 1, 20) == history(here, 1, 20)
    assert not any(alive(pid) for pid in before)


def test_a_killed_worker_is_named_at_once_and_a_reset_goes_on(envs, here):
    envs.reset(1)
    before = pids(envs)
    os.kill(before[1], signal.SIGKILL)
    with pytest.raises(EnvError, match=r"^worker 1 \(environments 3 to 4\) died \(exit code -9, Killed.*\)$"):
        [envs.step(torch.full((N,), 6)) for _ in range(10**6)]
    assert not any(alive(pid) for pid in before)
    with pytest.raises(EnvError, match=r"call reset\(\) before the first step"):
        envs.step(torch.full((N,), 6))
    assert history(envs, 1, 20) == history(here, 1, 20)


def test_a_worker_whose_environment_ends_the_process(envs):
    envs.reset(16)
    envs.step(torch.full((N,), 6))
    before = pids(envs)
    with pytest.raises(EnvError, match=r"^worker 1 \(environments 3 to 4\) died \(exit code 7\)$"):
        envs.step(torch.full((N,), 6))
    assert not any(alive(pid) for pid in before)


def test_close_ends_all_workers_also_one_that_is_stuck(monkeypatch):
    monkeypatch.setattr("ppo_lab.envs.adapters.workers.PATIENCE", 0.2)
    made = WorkerEnvs(Maker(seeded_spec(), {"faults": ((episode_seed(17, 0, 0), 1, "stuck"),)}), 1, 1)
    made.reset(17)
    made._action[...] = 6
    worker = made._workers[0]
    pid = worker.process.pid
    worker.pipe.send(("step", 0))
    time.sleep(0.1)
    assert worker.process.daemon
    made.close()
    made.close()
    assert not alive(pid)
    assert pid not in [child.pid for child in multiprocessing.active_children()]
    with pytest.raises(EnvError, match=r"reset\(\)"):
        made.step(torch.full((1,), 6))
    with pytest.raises(EnvError, match=r"closed"):
        made.reset(1)


def test_an_environment_without_an_importable_name_is_refused(monkeypatch):
    spec = gymnasium.envs.registration.EnvSpec("test/Lambda-v0", entry_point=lambda: ScriptedEnv(0, ("T",)))
    children = multiprocessing.active_children()
    with pytest.raises(EnvError, match=r"^test/Lambda-v0: .*; a worker process imports the environment: ") as caught:
        WorkerEnvs(Maker(spec), 2, 2)
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == children

    class Cell(SeededEnv):  # as a class that was typed into a notebook
        __module__, __qualname__ = "__main__", "Cell"

    monkeypatch.setattr(sys.modules["__main__"], "Cell", Cell, raising=False)
    spec = gymnasium.envs.registration.EnvSpec("test/Cell-v0", entry_point=Cell)
    with pytest.raises(
        EnvError, match=r"^test/Cell-v0 in a worker: AttributeError: .*; a worker process imports the environment: "
    ):
        WorkerEnvs(Maker(spec), 2, 1)
    assert multiprocessing.active_children() == children


def test_the_worker_side_does_without_torch(root):
    """A worker is up in a fraction of a second, unless ppo_lab/__init__.py or the environment itself needs torch."""
    code = """
import sys, types
sys.modules["ppo_lab"] = package = types.ModuleType("ppo_lab")
package.__path__ = [sys.argv[1]]
import ppo_lab.envs.adapters.worker_process
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code, str(root / "ppo_lab")], check=False).returncode == 0


def test_a_script_that_leaves_its_workers_open_ends(root):
    code = "from ppo_lab import Config, make_envs, override; kept = make_envs(override(Config(), {'env.workers': 2}))"
    script = f"if __name__ == '__main__':\n    {code}\n"
    done = subprocess.run([sys.executable, "-c", script], cwd=root, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
