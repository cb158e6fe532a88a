"""An isolated JupyterLab server for the browser tests: on loopback, with a token; it ends with the tests."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

# The server ends when the pipe to its parent breaks, so also when the tests are killed and cannot stop it.
MAIN = """
import os, signal, sys, threading
def end_with_parent():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end_with_parent, daemon=True).start()
from jupyterlab.labapp import main
main()
"""
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},  # tests save explicitly
}
WARM_UP = "import ppo_lab.training.trainer, ppo_lab.notebook.live.dashboard, torch.utils.tensorboard"
START_SECONDS = 90
STOP_SECONDS = 20


class LabServer:
    """JupyterLab serving `root`; settings, runtime files and everything else it writes go to `place`."""

    def __init__(self, root: Path, place: Path) -> None:
        self.root = root
        self._place = place
        self._token = secrets.token_hex(16)
        self._port = free_port()
        self.log = place / "server.log"
        for name, text in {
            "settings/overrides.json": json.dumps(SETTINGS),
            "ipythondir/profile_default/startup/import.py": WARM_UP,
        }.items():
            (place / name).parent.mkdir(parents=True)
            (place / name).write_text(text)
        arguments = [
            f"--ServerApp.root_dir={root}",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self._port}",
            "--ServerApp.port_retries=0",
            "--ServerApp.open_browser=False",
            "--ServerApp.terminals_enabled=False",
            "--LabApp.extension_manager=readonly",
            f"--LabApp.app_settings_dir={place / 'settings'}",
            "--expose-app-in-browser",
            *(["--allow-root"] if os.geteuid() == 0 else []),
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", MAIN, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=place,
                env=self._environment(),
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _environment(self) -> dict[str, str]:
        """Return an environment isolated from the user's Jupyter files; kernels run the Python that runs the tests."""
        env = {
            name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "PPO_LAB_", "JPY_"))
        }
        own = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"]
        own += ["JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"]
        return {
            **env,
            **{name: str(self._place / name.lower()) for name in own},
            "JUPYTER_PREFER_ENV_PATH": "1",
            "JUPYTER_TOKEN": self._token,  # not an argument: every user of the machine can read those
            "PYTHONWARNINGS": "default",
        }

    def url(self, path: str) -> str:
        """Return the address of a page, token included."""
        return f"http://127.0.0.1:{self._port}/{path}?token={self._token}"

    def ask(self, path: str, method: str = "GET", content: Any = None) -> Any:
        """Send a request to the server's REST API, e.g. "api/sessions", and return the parsed answer."""
        address, headers = f"http://127.0.0.1:{self._port}/{path}", {"Authorization": f"token {self._token}"}
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(address, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def start_kernel(self, notebook: str) -> None:
        """Start the kernel to which a page with this notebook will connect."""
        session = {"path": notebook, "name": "", "type": "notebook", "kernel": {"name": "python3"}}
        self.ask("api/sessions", "POST", session)

    def forget_settings(self) -> None:
        """Reset user settings, such as the theme, to their defaults."""
        shutil.rmtree(self._place / "jupyterlab_settings_dir", ignore_errors=True)

    def shut_down_kernels(self) -> None:
        """Shut down every kernel and wait until it has ended."""
        for session in self.ask("api/sessions"):
            self.ask(f"api/sessions/{session['id']}", "DELETE")
        for kernel in self.ask("api/kernels"):
            self.ask(f"api/kernels/{kernel['id']}", "DELETE")

    def stop(self) -> None:
        """End the server and all processes that it started, whatever state they are in."""
        family = []
        if self._process.poll() is None:
            server = psutil.Process(self._process.pid)
            family = [*server.children(recursive=True), server]  # a kernel has its own process group
            self._process.send_signal(signal.SIGTERM)  # it shuts its kernels down
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        for process in family:
            if process.is_running():
                process.kill()
        psutil.wait_procs(family, timeout=STOP_SECONDS)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                self.ask("api/status")
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text(errors='replace')[-4000:]}")


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
