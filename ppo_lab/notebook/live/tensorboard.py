"""Show TensorBoard in a cell: optional, on the loopback interface only; it ends with the kernel."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from IPython.display import IFrame, display

from ppo_lab.errors import RunError
from ppo_lab.notebook.live.start import ui_attached

SECONDS = 60.0  # to wait for the server's address: the first import after an installation can be slow
HEIGHT = 720  # pixels
# A separate process, so that it takes no time from training. It prints its address, then waits until its stdin closes,
# which happens when the kernel ends in any way, even when killed: no process is left running.
SERVER = """
import sys
from tensorboard import default, program
server = program.TensorBoard(plugins=default.get_plugins())
server.configure(argv=[None, "--logdir", sys.argv[1], "--host", "127.0.0.1", "--port", sys.argv[2]])
print(server.launch(), flush=True)
sys.stdin.read()
"""
_servers: dict[tuple[Path, int | None], Server] = {}  # reused when a cell is run again


class Server:
    """A TensorBoard process."""

    def __init__(self, folder: Path, port: int | None) -> None:
        """Start the process and wait for its address. Raises RunError if it does not start."""
        with tempfile.TemporaryFile("w+") as complaints:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(folder), str(port or 0)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                start_new_session=True,  # else the interrupt button would reach it too
            )
            self.url = self._read_address()
            if not self.url:
                self.stop()
                complaints.seek(0)
                said = [line.strip() for line in complaints if line.strip()]
                reason = said[-1].rpartition("Error: ")[2] if said else f"no answer in {SECONDS:g} s"
                raise RunError(f"TensorBoard did not start: {reason}")

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Kill the process, and wait until it has ended."""
        self._process.kill()
        self._process.communicate()

    def _read_address(self) -> str:
        """Return the first line it prints; "" if it ends before, or takes too long."""
        output = self._process.stdout
        assert output is not None  # stdout=PIPE
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.append(output.readline()), daemon=True)
        reader.start()
        reader.join(SECONDS)
        if reader.is_alive():
            self._process.kill()  # closes the pipe, so the reader ends
            reader.join()
        return lines[0].strip() if lines else ""


def tensorboard(root: str | Path = "runs", port: int | None = None) -> None:
    """Show TensorBoard for a folder of runs in this cell, on a free port of 127.0.0.1, or on `port`.

    It shows what runs with `run.tensorboard: true` write, including runs in progress, and ends with the kernel. If
    Jupyter runs on another machine than the browser, forward the port. Headless, it prints one line instead.
    Raises RunError if there is no such folder or it does not start.
    """
    if not ui_attached():
        print(f"TensorBoard: not started in a headless run; in JupyterLab this cell shows the runs in {root}")
        return
    if not Path(root).is_dir():
        raise RunError(f"no folder {root}: train a run first, or pass the folder that contains your runs")
    key = (Path(root).resolve(), port)
    if key not in _servers or not _servers[key].running:
        _servers[key] = Server(*key)
    display(IFrame(_servers[key].url, width="100%", height=HEIGHT))
    print(f"TensorBoard: {_servers[key].url}")
