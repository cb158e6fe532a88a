"""The layout stays as it was drawn: imports run downwards, without circles; each thing is in its package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from ppo_lab.envs.registry import ENTRIES, REWARD_THRESHOLDS, our_module

ROOT = Path(__file__).resolve().parent.parent
# From the bottom to the top; a package imports from those below it. docs/architecture.md says what each is for.
PACKAGES = [
    "errors trees interrupts",
    "config",
    "runs",
    "envs",
    "models",
    "ppo evaluation",
    "engine",
    "training",
    "cli notebook",
    "__main__",
]
FOR_ALL = set(PACKAGES[0].split())
LEVEL = {name: i for i, names in enumerate(PACKAGES) for name in names.split()}
BELOW_ENVIRONMENTS = {"envs", "errors", "evaluation", "selfplay"}  # what our environments may use
BELOW_CHALLENGE = {*BELOW_ENVIRONMENTS, "models", "runs"}  # it writes a trained run as a controller of one file
ENTRIES_ALLOWED, LEVELS_ALLOWED = 22, 12  # what a reader can hold in the head
LONG_FILE, LONG_FUNCTION = 300, 45  # lines; of a function without its docstring
SPACES_ALLOWED = (
    "ppo_lab/envs/checks.py",
    "ppo_lab/envs/spaces.py",
    "ppo_lab/envs/space_text.py",
    "ppo_lab/envs/making.py",
    "ppo_lab/envs/wrappers.py",
    "ppo_lab/envs/adapters/",
    "ppo_lab/models/distributions/",
    "ppo_lab/models/networks/observation.py",
    "environment/",
)
SOURCES = sorted([*ROOT.glob("ppo_lab/**/*.py"), *ROOT.glob("environment/**/*.py")])


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """Return the dotted name of a source file; a package has that of its folder."""
    return name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(path): path for path in SOURCES}


def imports(path: Path) -> set[str]:
    """Return the dotted names of all that a file imports, also inside functions and under TYPE_CHECKING.

    `from a import b` is `a.b` where that is a module of ours, else `a`.
    """
    parts = module_of(path).split(".")
    package = parts if path.name == "__init__.py" else parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            dotted = [f"{base}.{alias.name}" for alias in node.names]
            found |= {one if one in MODULES else base for one in dotted}
    return found


@cache
def graph() -> dict[str, set[str]]:
    """Return each module of ours with those that it imports."""
    return {module: imports(path) & MODULES.keys() - {module} for module, path in MODULES.items()}


def package_of(module: str) -> str:
    """Return `training` for `ppo_lab.training.trainer`, `environment` for all of our environments."""
    first, *rest = module.split(".")
    return rest[0] if first == "ppo_lab" and rest else first


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Return the members of a circle, or [] if there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def between_packages() -> dict[str, set[str]]:
    """Return each package with those that it imports; `ppo_lab/__init__.py`, the table of contents, is left out."""
    edges: dict[str, set[str]] = {}
    for module, used in graph().items():
        if module != "ppo_lab":
            others = {package_of(one) for one in used} - {package_of(module), "ppo_lab"}
            edges.setdefault(package_of(module), set()).update(others)
    return edges


def test_what_counts_as_an_import(tmp_path):
    path = ROOT / "ppo_lab" / "ppo" / "update.py"  # only its place counts
    file = tmp_path / "x.py"
    file.write_text(
        "from __future__ import annotations\nif TYPE_CHECKING:\n    from ppo_lab.runs import run\n"
        "def f():\n    from . import losses\n    from ..engine.choose import choose_engine\n"
    )

    class Placed(type(path)):
        def read_text(self, **_):
            return file.read_text()

    found = imports(Placed(path))
    assert found == {"__future__", "ppo_lab.runs.run", "ppo_lab.ppo.losses", "ppo_lab.engine.choose"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b"}, "b": {"c"}})


def test_no_import_circles():
    assert not circle(graph())
    assert not circle(between_packages())


def test_imports_run_downwards():
    for package, used in between_packages().items():
        if package == "environment":
            continue
        assert package in LEVEL, f"{package} has no level yet: give it one in PACKAGES and in docs/architecture.md"
        above = {one for one in used if LEVEL.get(one, len(PACKAGES)) >= LEVEL[package]}
        assert not above, f"ppo_lab/{package} imports from above: {sorted(above)}"


def test_the_drawing_shows_every_import():
    """docs/architecture.md draws each package with those that it imports; any may import `FOR_ALL`."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = dict(re.findall(r"^  (\w+)/ .*?(?:--> (.*))?$", text.partition("```text\n")[2].partition("```")[0], re.M))
    edges = {package: used - FOR_ALL for package, used in between_packages().items()}
    assert {package: set(used.split()) for package, used in drawn.items()} == {
        package: used for package, used in edges.items() if package not in FOR_ALL | {"__main__"}
    }
    places = [LEVEL.get(package, -1) for package in drawn]
    assert places == sorted(places, reverse=True)


def test_few_entries_and_few_levels():
    entries = [path for path in (ROOT / "ppo_lab").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= ENTRIES_ALLOWED
    edges = between_packages()
    levels: dict[str, int] = {}
    for package in TopologicalSorter(edges).static_order():
        levels[package] = 1 + max((levels[one] for one in edges.get(package, ())), default=0)
    assert max(levels.values()) <= LEVELS_ALLOWED


@pytest.mark.parametrize("path", [p for p in SOURCES if name(p).startswith("environment/")], ids=name)
def test_environments_stand_on_ppo_lab_envs(path):
    used = imports(path)
    allowed = BELOW_CHALLENGE if name(path).startswith("environment/lateral/challenge/") else BELOW_ENVIRONMENTS
    assert {package_of(one) for one in used if one.split(".")[0] == "ppo_lab"} <= allowed
    text = path.read_text(encoding="utf-8")
    assert "from environment" not in text, "relative imports only: the package may be imported under another name"


def test_our_environments_are_reached_through_the_registry_alone():
    """Modules of the package `environment` are named as strings there and imported by no other file."""
    outside = {"environment", "notebooks", "tests", "benchmarks"}
    for module, path in MODULES.items():
        if module.split(".")[0] == "ppo_lab":
            assert not {one.split(".")[0] for one in imports(path)} & outside, name(path)
    for place, _ in ENTRIES.values():
        file, _, made = place.partition(":")
        assert hasattr(our_module(file), made)
    assert REWARD_THRESHOLDS.keys() <= ENTRIES.keys()


def test_every_probe_is_registered():
    registered = {made for file, _, made in (place.partition(":") for place, _ in ENTRIES.values()) if file == "probes"}
    assert registered == {probe.__name__ for probe in our_module("probes").PROBES}


def test_functions_stay_readable():
    """A long function is a failure; a long file is shown, and may have its reason: files are split by idea."""
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                text = ast.get_docstring(node, clean=False)
                lines = node.end_lineno - node.lineno - (0 if text is None else text.count("\n") + 1)
                assert lines <= LONG_FUNCTION, f"{name(path)}: {node.name} has {lines} lines"


def test_long_files_are_shown():
    long = {name(path): path.read_text(encoding="utf-8").count("\n") for path in SOURCES}
    long = {file: lines for file, lines in long.items() if lines > LONG_FILE}
    if long:
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # shown in pytest's summary, and no failure
            warnings.warn(f"longer than {LONG_FILE} lines, one idea or two? {long}", stacklevel=1)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_spaces_are_looked_at_where_they_come_in_and_nowhere_else(path):
    if not name(path).startswith(SPACES_ALLOWED):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                asked = ast.unparse(node.args[1])
                assert not any(space in asked for space in ("spaces.", "Box", "Discrete")), f"line {node.lineno}"


def written_attributes(source: str, owner: str) -> list[int]:
    """Return the lines that assign to an attribute of something called `owner` (also `x.owner.attribute = ...`)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            inside = node.value
            while isinstance(inside, ast.Attribute) and inside.attr != owner:
                inside = inside.value
            if getattr(inside, "attr", getattr(inside, "id", None)) == owner:
                found.append(node.lineno)
    return found


def test_nothing_outside_writes_a_trainers_attributes():
    assert written_attributes("trainer.x = 1\nself.trainer.y += 1\na.trainer.state.z = 2\n", "trainer") == [1, 2, 3]
    assert written_attributes("self.trainer = trainer\nx = trainer.y\ntrainer.set(y=1)\n", "trainer") == []
    for path in SOURCES:
        assert not written_attributes(path.read_text(encoding="utf-8"), "trainer"), name(path)


def test_only_the_package_notebook_knows_jupyter():
    jupyter = {"IPython", "ipywidgets", "papermill", "nbformat", "matplotlib"}
    for path in SOURCES:
        if not name(path).startswith("ppo_lab/notebook/"):
            assert not {one.split(".")[0] for one in imports(path)} & jupyter, name(path)


def test_files_without_a_home_do_not_exist():
    homeless = {"utils", "common", "base", "helpers", "misc", "core", "types"}
    assert not homeless & {path.stem for path in SOURCES}


def test_the_readme_names_every_package():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    packages = [path.parent for path in ROOT.glob("ppo_lab/*/__init__.py")]
    files = [*ROOT.glob("environment/*.py"), *ROOT.glob("notebooks/*.ipynb")]
    wanted = [*(f"{path.name}/" for path in packages), *(path.name for path in files if path.stem != "__init__")]
    assert not [one for one in wanted if one not in text], "README's file tree lacks them"


def test_public_names_exist_and_type_checkers_know_them():
    import ppo_lab

    assert all(getattr(ppo_lab, public) is not None for public in ppo_lab.__all__)
    assert not [
        public for public in ppo_lab._HOMES if (ROOT / "ppo_lab" / f"{public}.py").exists()
    ]  # it would be shadowed
    text = (ROOT / "ppo_lab" / "__init__.py").read_text()
    assert all(f"import {public} as {public}" in text for public in ppo_lab.__all__ if public != "notebook")


def test_importing_the_package_is_cheap():
    code = "import sys, ppo_lab; assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Written by others with a leading underscore and meant to be used: IPython's protocol, a way out, what subclasses call.
MEANT_FOR_US = {"_replace", "_fields", "_asdict", "_exit", "_repr_mimebundle_", "_add_info"}


def private_names(tree: ast.AST) -> set[str]:
    """Attributes with a leading underscore that are read of something, and modules with one that are imported."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def names_given(tree: ast.AST) -> set[str]:
    """What a file defines: functions, classes, variables, attributes."""
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    stored = [node for node in ast.walk(tree) if isinstance(getattr(node, "ctx", None), ast.Store)]
    return found | {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in stored}


def test_private_names_of_others_are_looked_up_and_not_assumed():
    """Another version may not have them: `getattr` with a default, `private_names.holds`, or an import in a `try`."""
    trees = {name(path): ast.parse(path.read_text()) for path in SOURCES}
    ours = set().union(*map(names_given, trees.values())) | MEANT_FOR_US
    tried = {"_python_dispatch"}  # memory_plan.py
    used = {f"{file}: {one}" for file, tree in trees.items() for one in private_names(tree) - ours - tried}
    assert not used
