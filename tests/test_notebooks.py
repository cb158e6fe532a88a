"""The committed notebooks: fresh, light, readable, and free of what belongs to one machine."""

import base64
import json
import re
import statistics
from pathlib import Path

import pytest

from ppo_lab.notebook.headless.committed import STAMP, source_sha256

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
MACHINE = re.compile(r"/(home|root|Users|tmp|work|usr|opt|var)/|[A-Z]:\\\\|\b(localhost|127\.0\.0\.1)\b")
WORDS = {"simply", "obviously"}  # nothing is, to somebody


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell["outputs"]]


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_outputs_belong_to_these_sources(notebook):
    stamp = notebook["metadata"].get(STAMP, {}).get("source_sha256")
    assert stamp == source_sha256(notebook), "the sources changed since it was executed: run `make notebooks`"


def test_it_was_run_from_top_to_bottom_without_an_error(notebook):
    assert [cell["execution_count"] for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert not [output for output in outputs(notebook) if output["output_type"] == "error"]
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]


def test_nothing_of_a_machine_or_a_session_is_in_it(notebook):
    assert set(notebook["metadata"]) == {"kernelspec", "language_info", STAMP}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])
    for output in outputs(notebook):
        texts = [output.get("text", ""), *(text for kind, text in output.get("data", {}).items() if "text" in kind)]
        assert not MACHINE.search("".join("".join(text) for text in texts))
        assert not any("widget" in kind for kind in output.get("data", {}))


def test_it_is_light(path, notebook):
    assert path.stat().st_size < 600_000
    pictures = [output["data"]["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert pictures
    for picture in pictures:
        png = base64.b64decode("".join(picture))
        assert png.startswith(b"\x89PNG")
        assert len(png) < 300_000


def test_cells_are_short(notebook):
    lines = [len("".join(cell["source"]).splitlines()) for cell in code(notebook)]
    assert max(lines) <= 25
    assert statistics.median(lines) <= 6
    assert len(lines) <= 30
    prose = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    assert all(len("".join(cell["source"]).split()) <= 160 for cell in prose)


def test_its_parameters_are_in_one_tagged_cell(notebook):
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in notebook["cells"]) == 1


def test_it_asks_the_environments_how_many_they_are(notebook):
    """config.env.num_envs may be "auto"."""
    assert not [cell for cell in code(notebook) if re.search(r"\w\.env\.num_envs", "".join(cell["source"]))]


def test_it_begins_with_a_question_and_does_not_talk_down(notebook):
    first = "".join(notebook["cells"][0]["source"])
    assert first.startswith("# ")
    assert first.splitlines()[0].endswith("?")
    text = " ".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    assert not WORDS & set(re.findall(r"[a-z]+", text.lower()))
