"""The documents: every code block runs, and every name, path and link leads to something that exists."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from ppo_lab.cli import flags
from ppo_lab.cli.main import _parse, main
from ppo_lab.config import Config
from ppo_lab.config.loading import load_config, override
from ppo_lab.config.yaml_text import parse_yaml
from ppo_lab.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
DETAILS = (ROOT / "docs" / "implementation_details.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

# `<!-- not run: REASON -->` above a block; a reason that is not here fails.
REASONS = {
    "needs the challenge's network and segments",
    "needs a clone of the challenge",
}
LANGUAGES = {"python", "bash", "yaml", "text"}  # text: pictures in characters, such as the tree of a folder
FENCE = re.compile(r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)

# What a page supposes: the runs it names, with a policy that has hardly learned anything.
PREPARED = {
    "cartpole-1": ("cartpole", {"env.num_envs": 2, "ppo.num_steps": 64, "ppo.total_timesteps": 256}),
    "lateral-1": ("lateral", {"env.num_envs": 2, "ppo.num_steps": 40, "ppo.total_timesteps": 160}),
}
QUICK = {"runs", "show", "replay", "evaluate", "export-csv", "export-controller"}  # run, not only parsed


class Block(NamedTuple):
    page: Path
    line: int  # of its first line of code, counted from 1
    language: str
    code: str
    reason: str | None  # why it is not run

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("code")) + 1, found["language"], found["code"], found["reason"])
        for found in FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def file_name(path: Path) -> str:
    return path.name


def chosen(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and block.reason is None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with config.yaml and the runs of PREPARED."""
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copy(ROOT / "config.yaml", folder)
    for name, (preset, settings) in PREPARED.items():
        run = {**settings, "run.root": str(folder / "runs"), "run.name": name, "run.tensorboard": False}
        trainer = Trainer(load_config(folder / "config.yaml", preset, run))
        for _ in trainer:
            pass
        trainer.close()
    return folder


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of the prepared folder, as the working directory."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_script(page: Path, blocks: list[Block]) -> str:
    """Return the Python blocks of a page as one script, each line with the number that it has on the page."""
    lines = [""] * len(page.read_text(encoding="utf-8").splitlines())
    for block in blocks:
        code = block.code.splitlines()
        lines[block.line - 1 : block.line - 1 + len(code)] = code
    return "\n".join(lines) + "\n"


def commands_of(block: Block) -> list[list[str]]:
    """Return the words of each command of a block, without comments; a line that ends in a backslash continues."""
    lines = block.code.replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split("&&")]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


# ---- code blocks ----------------------------------------------------------------------------------------------------


def test_every_block_is_found_and_says_what_it_is():
    for page in PAGES:
        fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.M)
        assert len(fences) == 2 * len(blocks_of(page)), f"{page.name}: a block that is not closed, or indented"
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block}: ```{block.language}, expected one of {sorted(LANGUAGES)}"


def test_few_blocks_are_not_run_and_for_known_reasons():
    left_out = [block for block in BLOCKS if block.reason is not None]
    assert {block.reason for block in left_out} == REASONS
    assert len(left_out) <= 4
    marks = sum(page.read_text(encoding="utf-8").count("<!-- not run") for page in PAGES)
    assert marks == len(left_out), "a mark that does not stand right above its block"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.page == page for b in chosen("python"))], ids=file_name
)
def test_the_python_of_a_page_runs(page, folder):
    """The blocks run in the order of the page and share their variables; a traceback has the page's line numbers."""
    script = folder / f"{page.stem}.py"
    script.write_text(as_script(page, [b for b in chosen("python") if b.page == page]), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "PPO_LAB_UI": "0"}
    command = [sys.executable, "-W", "error", script.name]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.fail(f"{page.name} (line numbers are those of the page):\n{done.stderr[-3000:]}", pytrace=False)


@pytest.mark.parametrize("block", chosen("yaml"), ids=str)
def test_the_settings_of_a_block_exist(block):
    override(Config(), parse_yaml(block.code))


@pytest.mark.parametrize("block", chosen("bash"), ids=str)
def test_the_commands_of_a_block_exist(block, folder, capsys):
    for words in commands_of(block):
        check_command(words, f"{block}: {shlex.join(words)}")


def check_command(words: list[str], where: str) -> None:
    """Fail for a command that does not exist, or whose arguments do not. Commands of this program are parsed or run."""
    match words:
        case ["python", "-m", "ppo_lab", command, *arguments]:
            check_ours(command, arguments, where)
        case ["make", target, *variables]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{target}:", makefile, re.M), where
            for variable in variables:
                assert f"$(call given,{variable.partition('=')[0]})" in makefile, where
        case ["python", script, *options] if script.endswith(".py"):
            text = (ROOT / script).read_text(encoding="utf-8")
            for option in options:
                assert not option.startswith("--") or f'"{option}"' in text, where
        case ["pytest", "-m", expression]:
            known = {mark.partition(":")[0] for mark in project()["tool"]["pytest"]["ini_options"]["markers"]}
            assert set(re.findall(r"\w+", expression)) - {"not", "and", "or"} <= known, where
        case ["pip", "install", "-r", file]:
            assert (ROOT / file).is_file(), where
        case ["jupyter", "lab", notebook] | ["papermill", notebook, *_]:
            check_notebook(notebook, words, where)
        case ["python3", "-m", "venv", ".venv"] | [".", ".venv/bin/activate"]:
            pass
        case _:
            pytest.fail(f"{where}: a command that this test does not know")


def check_ours(command: str, arguments: list[str], where: str) -> None:
    """Parse the arguments of `python -m ppo_lab`, check the settings, and run the command if it takes little time."""
    given = _parse(flags.tidied([command, *arguments]))
    override(Config(), flags.given_settings(given))
    if getattr(given, "preset", None) is not None:
        load_config(ROOT / "config.yaml", given.preset)
    run = getattr(given, "run", None)
    if run is not None and run != "RUN":
        assert Path(run).name in PREPARED, f"{where}: prepare this run in tests/test_docs.py"
    if command in QUICK and run != "RUN" and getattr(given, "model", None) is None:
        assert main([command, *arguments]) == 0, where


def check_notebook(notebook: str, words: list[str], where: str) -> None:
    cells = json.loads((ROOT / notebook).read_text(encoding="utf-8"))["cells"]
    parameters = next("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
    for flag, name in pairwise(words):
        assert flag != "-p" or re.search(rf"^{name} = ", parameters, re.M), where


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", ["train", "resume", "fork", "replay", "evaluate", "runs", "show"])
def test_help_of_a_command(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m ppo_lab {command}" in capsys.readouterr().out


# ---- names, paths, links --------------------------------------------------------------------------------------------


SOURCES = {
    path.name for part in ("ppo_lab", "environment", "tests", "benchmarks") for path in ROOT.glob(f"{part}/**/*.py")
}
WRITTEN = {"ppo.py", "eval.py"}  # an exported controller, the challenge's own


def prose() -> dict[str, str]:
    """Return the texts that name files and modules: the pages but for the log, and the words of the notebooks."""
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES if page.name != "log.md"}
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path.name] = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return texts


@pytest.mark.parametrize(("page", "text"), prose().items(), ids=list(prose()))
def test_files_and_modules_that_a_page_names_exist(page, text):
    for path in re.findall(
        r"`((?:ppo_lab|environment|tests|benchmarks|notebooks|docs)/(?:[\w/]+\.\w+|[\w/]+/))`", text
    ):
        assert (ROOT / path).exists(), f"{page} names {path}"
    for path in re.findall(r"(?<![\w./-])((?:\w+/)+\w+\.py)\b", text):  # ppo/losses.py is short for one in ppo_lab/
        assert (ROOT / path).exists() or (ROOT / "ppo_lab" / path).exists(), f"{page} names {path}"
    for name in re.findall(r"`((?:ppo_lab|environment|tests)(?:\.\w+)+)(?:\(.*?\))?`", text):
        pkgutil.resolve_name(name)
    for file in re.findall(r"`(\w+\.py)`", text):
        assert file in SOURCES | WRITTEN, f"{page} names {file}"


def rows_below(heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading of the page on the architecture, without its header."""
    text = ARCHITECTURE.partition(f"## {heading}\n")[2]
    rows = [line.strip("|").split("|") for line in text.partition("\n|")[2].partition("\n\n")[0].splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_a_change_touches_at_most_three_files():
    rows = rows_below("Where to change what")
    assert len(rows) >= 10
    for change, files, _ in rows:
        assert len(re.findall(r"`[\w/]+(?:\.py|/)`", files)) <= 3, change


def test_the_calls_of_an_update_are_in_the_files_beside_them():
    text = ARCHITECTURE.partition("## The way of one update\n")[2].partition("## ")[0]
    calls = re.findall(r"^[| ]+(?:for .+ in )?([\w.]+) {2,}([\w/]+\.py)", text, re.M)
    assert len(calls) >= 25
    for call, file in calls:
        called = call.rpartition(".")[2]
        code = (ROOT / "ppo_lab" / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *(def|class) {called}\b", code, re.M), f"{file} does not define {called}"


def test_questions_are_answered_by_file_names():
    rows = rows_below("Questions that a new reader asks")
    assert len(rows) >= 15
    for question, answer in rows:
        files = re.findall(r"`([\w/]+\.py)`", answer)
        assert files, question
        assert all((ROOT / "ppo_lab" / file).is_file() for file in files), question


@pytest.mark.parametrize(("page", "text"), prose().items(), ids=list(prose()))
def test_commands_that_a_page_names_exist(page, text, folder, capsys):
    for command in re.findall(r"`((?:python -m ppo_lab|make|pytest) [^`]+|python benchmarks/[^`]+)`", text):
        if "COMMAND" not in command:
            check_command(shlex.split(command), f"{page}: {command}")


@pytest.mark.parametrize(("file", "name"), sorted(set(re.findall(r"`([\w/]+\.py)` `(\w+)`", DETAILS))))
def test_the_place_of_a_detail_exists(file, name):
    text = (ROOT / "ppo_lab" / file).read_text(encoding="utf-8")
    assert re.search(rf"^(def|class) {name}\b", text, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+\.py)`", DETAILS))))
def test_the_test_of_a_detail_exists(name):
    assert list((ROOT / "tests").rglob(name))


def test_links_between_files_of_the_project_lead_somewhere():
    for page in [*PAGES, *ROOT.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
