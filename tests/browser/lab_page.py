"""Drive a notebook in JupyterLab through a browser: run, drag, click, read, reload, save.

Nothing here waits for a fixed time: `wait` polls a condition. Sliders and buttons are found by their labels, so that
tests read as a user's steps.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from tests.browser.lab_server import LabServer

if TYPE_CHECKING:  # collecting these tests needs neither a browser nor Playwright
    from playwright.sync_api import Browser, Locator

T = TypeVar("T")
SECONDS = 120.0  # generous: a slow machine must not fail
VIEWPORT = {"width": 1400, "height": 1500}
LOST_SECONDS = 15.0
PANEL = "window.jupyterapp.shell.currentWidget"
KERNEL = f"{PANEL}.sessionContext.session.kernel"
READY = f"""async () => {{
    if (!window.jupyterapp) return false;
    const late = new Promise(resolve => setTimeout(() => resolve('late'), 1000));
    if (await Promise.race([window.jupyterapp.restored, late]) === 'late') return false;
    const panel = {PANEL}, session = panel?.sessionContext;
    if (!panel?.context?.isReady || !panel.content?.widgets?.length || !session?.isReady) return false;
    const kernel = session.session?.kernel;
    return kernel?.connectionStatus === 'connected' && ['idle', 'busy'].includes(kernel.status);
}}"""
CELLS = f"""() => {PANEL}.content.widgets.map(cell => {{
    const model = cell.model.sharedModel.toJSON();
    return {{type: model.cell_type, source: [model.source].flat().join(''), outputs: model.outputs ?? [],
             prompt: cell.node.querySelector('.jp-InputPrompt')?.innerText ?? ''}};
}})"""
RUN = f"""([command, index]) => {{
    const panel = {PANEL}, runs = (window.labRuns ??= []);
    if (index !== null) {{
        panel.content.activeCellIndex = index;
        panel.content.deselectAll();
    }}
    const number = runs.push('running') - 1;
    window.jupyterapp.commands.execute(command).then(
        fine => {{ runs[number] = fine === false ? 'failed' : 'fine'; }}, () => {{ runs[number] = 'failed'; }});
    return number;
}}"""


class LabPage:
    """A browser tab with one notebook."""

    def __init__(self, browser: Browser, server: LabServer, notebook: str, shots: Path | None) -> None:
        self._server, self._notebook, self._shots = server, notebook, shots
        self._context = browser.new_context(viewport=VIEWPORT)
        self._context.set_default_timeout(SECONDS * 1000)
        self.page = self._context.new_page()
        self.errors: list[str] = []  # of the page's own scripts
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: dialog.accept())  # "leave this page?"
        self.released = 0.0  # when the mouse released a slider, in time.time(), comparable with mtimes
        self.area: Locator = self.page.locator("body")  # where widgets are searched
        self.open()

    def open(self) -> None:
        """Open the notebook in a fresh workspace."""
        self.page.goto(self._server.url(f"lab/workspaces/{uuid4().hex[:8]}/tree/{self._notebook}"))
        self._wait_until_ready()
        if self.page.locator("#jp-left-stack").is_visible():
            self.command("application:toggle-left-area")

    def close(self) -> None:
        """Close the tab and discard its cookies."""
        self._context.close()

    def _wait_until_ready(self) -> None:
        # A kernel's first answer is sometimes lost, and JupyterLab waits for it for ever; a reload helps.
        for _ in range(3):
            try:
                self.wait("the notebook is open and has a kernel", lambda: self.page.evaluate(READY), SECONDS / 3)
                return
            except AssertionError:
                self.page.reload()
        self.wait("the notebook is open and has a kernel", lambda: self.page.evaluate(READY))

    # ---- waiting -----------------------------------------------------------------------------------------------------

    def wait(self, what: str, predicate: Callable[[], T], seconds: float = SECONDS) -> T:
        """Poll `predicate` until its result is true, and return it; AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            answer = predicate()
            if answer:
                return answer
            if time.monotonic() > deadline:
                self.screenshot("timeout")
                raise AssertionError(f"waited {seconds:g} s in vain until {what}\n{self._situation()}")
            self.page.wait_for_timeout(30)

    def _situation(self) -> str:
        try:
            cells = [f"{cell['prompt']} {cell['source'][:60]!r}: {kinds(cell)}" for cell in self.cells()]
        except Exception as error:
            cells = [str(error)]
        log = self._server.log.read_text(errors="replace")[-1500:]
        return "\n".join(["cells:", *cells, "in the page:", self.text()[:1500], *self.errors, "server:", log])

    # ---- cells -------------------------------------------------------------------------------------------------------

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Start one of JupyterLab's commands."""
        self.page.evaluate(
            "([name, given]) => { window.jupyterapp.commands.execute(name, given); }", [name, arguments or {}]
        )

    def cells(self) -> list[dict[str, Any]]:
        """Return all cells: type, source, outputs, prompt."""
        found: list[dict[str, Any]] = self.page.evaluate(CELLS)
        return found

    def index(self, text: str) -> int:
        """Return the index of the cell with this in its code."""
        cells = self.cells()
        return next(i for i, cell in enumerate(cells) if cell["type"] == "code" and text in cell["source"])

    def cell(self, text: str) -> dict[str, Any]:
        """Return the cell with this in its code."""
        return self.cells()[self.index(text)]

    def start(self, text: str) -> int:
        """Start the cell with this in its code; return a number to pass to `outcome`."""
        return self._start("notebook:run-cell", self.index(text))

    def start_all(self) -> int:
        """Start all cells, one after the other."""
        return self._start("notebook:run-all-cells")

    def _start(self, command: str, index: int | None = None) -> int:
        number: int = self.page.evaluate(RUN, [command, index])
        return number

    def outcome(self, number: int) -> str:
        """Return the state of a start: "running", "fine" or "failed"."""
        answer: str = self.page.evaluate("number => window.labRuns[number]", number)
        return answer

    def ended(self, number: int) -> str:
        """Wait until a start has ended; return "fine" or "failed".

        ipykernel before 7.4 may leave a request unread that arrives while it answers another, until a client connects
        (ipython/ipykernel#1554): the cell shows its star, the kernel is idle. The remedy is Kernel, Reconnect.
        """
        idle_since = time.monotonic()

        def over() -> bool:
            nonlocal idle_since
            now = time.monotonic()
            if self.page.evaluate(f"() => {KERNEL}.status") != "idle":
                idle_since = now
            elif now - idle_since > LOST_SECONDS:
                print("reconnected: the kernel is idle and a cell waits")
                self.page.evaluate(f"() => {{ {KERNEL}.reconnect(); }}")
                idle_since = now
            return self.outcome(number) != "running"

        self.wait("the cells have run", over)
        return self.outcome(number)

    def run(self, *texts: str) -> None:
        """Run cells one after the other; each must end without an error."""
        for text in texts:
            assert self.ended(self.start(text)) == "fine", f"{text!r} failed\n{self._situation()}"

    def python(self, code: str) -> str:
        """Run code in a new cell at the end; return what it printed."""
        self.add_cell(code)
        number = self._start("notebook:run-cell", len(self.cells()) - 1)
        assert self.ended(number) == "fine", f"{code!r} failed\n{self._situation()}"
        return "".join("".join(output.get("text", "")) for output in self.cells()[-1]["outputs"]).strip()

    def add_cell(self, code: str) -> None:
        """Add a cell at the end."""
        self.page.evaluate(
            f"""code => {{
                const model = {PANEL}.content.model.sharedModel;
                model.insertCell(model.cells.length, {{cell_type: 'code', source: code}});
            }}""",
            code,
        )

    # ---- reading the page --------------------------------------------------------------------------------------------

    def code_cell(self, text: str) -> Locator:
        """Return the page element of the cell with this in its code."""
        code = self.page.locator(".jp-InputArea", has_text=text)
        return self.page.locator(".jp-CodeCell", has=code).first

    def text(self) -> str:
        """Return the text of all outputs of the notebook."""
        return "\n".join(self.page.locator(".jp-Cell-outputArea").all_inner_texts())

    def screenshot(self, name: str, cell: str | None = None) -> None:
        """Save a picture of the page if PPO_LAB_SHOTS names a folder; scroll `cell` to the top before."""
        if self._shots is not None:
            self._shots.mkdir(parents=True, exist_ok=True)
            if cell is not None:
                self.code_cell(cell).evaluate("cell => cell.scrollIntoView()")
            self.page.screenshot(path=self._shots / f"{name}.png")

    def theme(self, name: str) -> None:
        """Switch to "JupyterLab Light" or "JupyterLab Dark"."""
        self.command("apputils:change-theme", {"theme": name})
        light = "false" if "Dark" in name else "true"
        self.page.locator(f'body[data-jp-theme-light="{light}"]').wait_for(state="attached")

    # ---- widgets -----------------------------------------------------------------------------------------------------

    def slider(self, name: str) -> Locator:
        """Find a slider by its label."""
        label = self.page.locator(".widget-label", has_text=re.compile(rf"^\s*{re.escape(name)}\s*$"))
        return self.area.locator(".widget-hslider", has=label).filter(visible=True).first

    def shown(self, name: str) -> str:
        """Return the value shown next to a slider."""
        return self.slider(name).locator(".widget-readout").inner_text()

    def note(self, name: str) -> str:
        """Return the text below a slider: "in force: 0.2", "pending: 0.3; in force: 0.2"."""
        return self.slider(name).locator("xpath=..").locator(".widget-html-content").inner_text()

    def drag(self, name: str, fraction: float) -> str:
        """Drag a slider to a fraction of its range; return the value it then shows."""
        slider = self.slider(name)
        self.wait(f"the handle of {name} is held", lambda: self._hold(slider))
        track, handle = slider.locator(".noUi-base").bounding_box(), slider.locator(".noUi-handle").bounding_box()
        assert track is not None
        assert handle is not None
        mouse = self.page.mouse
        mouse.move(track["x"] + track["width"] * fraction, handle["y"] + handle["height"] / 2, steps=10)
        self.released = time.time()
        mouse.up()
        return self.shown(name)

    def _hold(self, slider: Locator) -> bool:
        """Press the mouse on a slider's handle; return False if the page moved meanwhile and the press missed."""
        handle = slider.locator(".noUi-handle")
        handle.hover()  # waits until it stands still
        self.page.mouse.down()
        held = "noUi-active" in (handle.get_attribute("class") or "")
        if not held:
            self.page.mouse.up()
        return held

    def button(self, name: str) -> Locator:
        """Find a button by its text."""
        text = re.compile(rf"^\s*{re.escape(name)}\s*$")
        return self.area.locator("button.jupyter-button", has_text=text).filter(visible=True).first

    def choose(self, name: str, option: str) -> None:
        """Choose an option of the drop-down list with this label."""
        label = self.page.locator(".widget-label", has_text=re.compile(rf"^\s*{re.escape(name)}\s*$"))
        lists = self.area.locator(".widget-dropdown", has=label).filter(visible=True)
        lists.first.locator("select").select_option(label=option)

    def click(self, name: str) -> None:
        """Click a button by its text."""
        self.button(name).click()

    def tab(self, title: str) -> Locator:
        """Select a tab by its title; return the element of its panel."""
        tabs = self.area.locator(".jupyter-widget-tab, .widget-tab").filter(visible=True).first
        name = re.compile(rf"^\s*{re.escape(title)}( \(\d+\))?\s*$")
        tabs.locator(".lm-TabBar-tabLabel", has_text=name).click()
        return tabs.locator(".widget-tab-contents").first

    # ---- kernel and file ---------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Interrupt the kernel, as the toolbar button does."""
        self.command("notebook:interrupt-kernel")

    def restart_kernel(self) -> None:
        """Restart the kernel, and confirm the dialog."""
        self.command("notebook:restart-kernel")
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")

    def save(self) -> None:
        """Save the notebook and wait until it is on disk."""
        self.page.evaluate(f"async () => {{ await {PANEL}.context.save(); }}")

    def reload(self) -> None:
        """Reload the page."""
        self.page.reload()
        self._wait_until_ready()


def kinds(cell: dict[str, Any]) -> list[str]:
    """Return the kinds of output a cell has: "image/png", "stdout", "ZeroDivisionError", ..."""
    found: list[str] = []
    for output in cell["outputs"]:
        found += output.get("data", {}) or [output.get("name") or output.get("ename") or "?"]
    return found
