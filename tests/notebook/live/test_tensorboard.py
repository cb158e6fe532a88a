"""TensorBoard in a cell: started only interactively, on loopback, and ended with the kernel."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from ppo_lab.errors import RunError

board = importlib.import_module("ppo_lab.notebook.live.tensorboard")  # the function of the same name hides the module


@pytest.fixture
def shown(monkeypatch):
    """Yield the list of displayed frames of an interactive notebook; stop every server afterwards."""
    monkeypatch.setenv("PPO_LAB_UI", "1")
    frames = []
    monkeypatch.setattr(board, "display", frames.append)
    monkeypatch.setattr(board, "_servers", {})
    yield frames
    for server in board._servers.values():
        server.stop()


def test_headless_it_says_what_it_would_do_and_does_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PPO_LAB_UI", "0")
    monkeypatch.setattr(board, "Server", None)
    board.tensorboard(tmp_path / "runs")
    assert capsys.readouterr().out.count("\n") == 1


def test_a_missing_folder_is_one_line(tmp_path, shown):
    with pytest.raises(RunError, match=r"no folder .*runs: train a run first") as error:
        board.tensorboard(tmp_path / "runs")
    assert "\n" not in str(error.value)
    assert not shown


def test_it_serves_the_folder_on_loopback_and_a_second_call_shows_the_same(tmp_path, shown, capsys):
    board.tensorboard(tmp_path)
    board.tensorboard(str(tmp_path))
    first, second = (frame.src for frame in shown)
    assert first == second
    assert first.startswith("http://127.0.0.1:")
    assert first in capsys.readouterr().out
    with urllib.request.urlopen(f"{first}data/environment", timeout=20) as answer:
        assert str(tmp_path).encode() in answer.read()
    (server,) = board._servers.values()
    server.stop()  # as if it had died
    board.tensorboard(tmp_path)
    assert board._servers[(tmp_path.resolve(), None)].running


def test_a_port_that_is_taken_is_one_line(tmp_path, shown):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RunError, match=r"did not start: .*port.*in use") as error:
            board.tensorboard(tmp_path, port=taken.getsockname()[1])
    assert "\n" not in str(error.value)
    assert not board._servers


def test_one_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "SERVER", "import time; time.sleep(600)")
    monkeypatch.setattr(board, "SECONDS", 0.3)
    with pytest.raises(RunError, match=r"did not start: no answer in 0.3 s"):
        board.Server(tmp_path, None)


KERNEL = """
import importlib, sys, time
board = importlib.import_module("ppo_lab.notebook.live.tensorboard")
print(board.Server(sys.argv[1], None)._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_kernel_however_that_ends(tmp_path, end):
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        pid = int(kernel.stdout.readline())
        assert _alive(pid)
        assert os.getpgid(pid) != os.getpgid(kernel.pid), "the interrupt button reaches all of the kernel's group"
        kernel.send_signal(end)
        kernel.wait()
    finally:
        kernel.kill()
        kernel.communicate()
    for _ in range(200):
        if not _alive(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("it was left running")


def _alive(pid):
    """Return whether a process runs; a zombie, which is still in the process table, does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")
