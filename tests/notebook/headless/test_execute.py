"""Notebooks run from a terminal: a summary on success, one line on an error."""

import ast
import json
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from papermill.translators import PythonTranslator

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.notebook.headless.committed import KERNEL, LANGUAGE, clean, regenerate, source_sha256
from ppo_lab.notebook.headless.execute import Progress, main, with_tuples

SMALL = "{ppo.total_timesteps: 4_096, run.tensorboard: false}"


@pytest.fixture
def project(tmp_path, root, monkeypatch):
    """Create a folder with copies of this project's config.yaml and notebooks, and change to it."""
    shutil.copy(root / "config.yaml", tmp_path)
    shutil.copytree(root / "notebooks", tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    for name in ("PPO_LAB_FAST", "PPO_LAB_UI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def execute(*arguments):
    command = [sys.executable, "-m", "ppo_lab.notebook.headless.execute", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def written(path, *cells):
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata={**KERNEL, **LANGUAGE})
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, path)
    return str(path)


@pytest.mark.slow
def test_it_tells_where_the_agent_got_to(project):
    done = execute("notebooks/01_train.ipynb", "-p", "run_name", "mine", "-p", "overrides", SMALL, "-p", "seed", "3")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.replace("mean return", "return").splitlines())
    assert "95 % interval" in lines["return"]
    assert lines["env"] == "steps    4,096 of 4,096"
    assert "steps per second" in lines["time"]
    assert lines["run"] == "runs/mine"
    assert lines["notebook"] == "runs/mine/notebook.ipynb"
    assert "4.10k/4.10k" in done.stderr  # the bar followed the run to its end
    assert "Traceback" not in done.stderr

    summary = json.loads((project / "runs/mine/summary.json").read_text())
    assert summary["global_step"] == 4096
    executed = nbformat.read(project / "runs/mine/notebook.ipynb", as_version=4)
    assert "widgets" not in executed.metadata
    outputs = [output for cell in executed.cells for output in cell.get("outputs", ())]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert pictures == 4  # learning, dials, inside the update; the agent
    assert {"seed = 3", 'run_name = "mine"'} <= set("\n".join(cell.source for cell in executed.cells).splitlines())


def test_an_error_of_the_notebook_is_one_line(project, capfd):
    assert main(["notebooks/01_train.ipynb", "-p", "preset", "cartpool"]) == 1
    out, err = capfd.readouterr()
    last = err.splitlines()[-1]
    assert last.startswith("error: ConfigError: no preset 'cartpool'")
    assert "did you mean 'cartpole'?" in last
    assert "Traceback" not in out + err
    assert not (project / "runs").exists()


@pytest.mark.slow
def test_what_an_error_leaves_is_kept(project):
    path = written(
        project / "broken.ipynb",
        "import ppo_lab",
        "trainer = ppo_lab.Trainer(ppo_lab.load_config(preset='debug', overrides={'run.name': 'half'}))",
        "ppo_lab.notebook.launch(trainer)\n1 / 0",
    )
    done = execute(path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ZeroDivisionError: division by zero (cell [3] of ")
    assert last.endswith("partly executed notebook: runs/half/notebook.ipynb)")
    assert (project / "runs/half/notebook.ipynb").exists()
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["notebooks/01_train.ipynb", "-p", "presett", "cartpole"], "no parameter 'presett'; parameters: preset, seed"),
        (["notebooks/nothing.ipynb"], "no notebook (.ipynb file) at notebooks/nothing.ipynb"),
        (["config.yaml"], "no notebook (.ipynb file) at config.yaml"),
        (["empty.ipynb"], "empty.ipynb is not a notebook"),
    ],
)
def test_wrong_arguments_are_one_line(project, capsys, arguments, says):
    (project / "empty.ipynb").write_text("")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error


def test_the_bar_follows_the_metrics(tmp_path):
    announced, run = tmp_path / "run.json", tmp_path / "run"
    run.mkdir()
    with Progress(announced) as progress:
        (run / "metrics.jsonl").write_text(
            '{"global_step": 100}\n{"global_step": 200, "episode/return_mean": 7}\n{"glo'
        )
        announced.write_text(json.dumps({"run": str(run), "total_timesteps": 1000}))
        while progress.run is None:
            pass
    assert progress._bar.n == 200  # an incomplete line is read later
    assert "return 7.0" in progress._bar.postfix


def test_regenerating_stamps_and_leaves_nothing_behind(project):
    path = project / "notebooks" / "tiny.ipynb"
    written(path, "import os\nprint(os.path.basename(os.getcwd()) != 'notebooks')", "open('litter', 'w').close()")
    regenerate(path)
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata["ppo_lab"]["source_sha256"] == source_sha256(notebook)
    assert notebook.cells[0].outputs[0].text == "True\n"
    assert [cell.execution_count for cell in notebook.cells] == [1, 2]
    assert not list(project.rglob("litter"))
    first = path.read_bytes()
    regenerate(path)
    assert path.read_bytes() == first


def test_the_stamp_is_over_the_sources_alone():
    notebook = new_notebook(cells=[new_code_cell("x = 1", id="a")], metadata={"papermill": {"duration": 3}})
    stamp = source_sha256(notebook)
    notebook.cells[0].metadata = {"execution": {"t": 1}, "tags": ["parameters"]}
    clean(notebook)
    assert notebook.cells[0].metadata == {"tags": ["parameters"]}
    assert "papermill" not in notebook.metadata
    assert source_sha256(notebook) == stamp
    notebook.cells[0].source = "x = 2"
    assert source_sha256(notebook) != stamp


def test_tuples_reach_a_notebook_as_yaml():
    wrappers = [{"ReshapeObservation": {"shape": (4, 1)}}]
    for given in ({"env.wrappers": wrappers, "ppo.gamma": 0.5}, {"env": {"wrappers": wrappers}, "ppo": {"gamma": 0.5}}):
        source = PythonTranslator.codify({"overrides": with_tuples(given)})
        text = source.partition("overrides = ")[2]
        config = override(Config(), ast.literal_eval(text))
        assert (config.env.wrappers, config.ppo.gamma) == (tuple(wrappers), 0.5)
    assert with_tuples({"anything": [1]}) == {"anything": [1]}
