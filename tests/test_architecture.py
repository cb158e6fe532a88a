"""The house stays as it was drawn: imports run downwards, files and functions stay readable."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the ground up; a module imports from floors below its own, or within its own folder.
FLOORS = [
    ["errors", "trees", "clip", "private_names"],
    ["yaml_text", "flat_spaces"],
    ["config"],
    ["config_file", "networks", "interrupts", "space_text", "process"],
    ["distributions", "advantages", "losses", "schedules", "runs"],
    ["adapters", "envs", "wrappers"],
    ["continuity"],
    ["actor_critic", "episodes", "diagnostics"],
    ["plain_mlp", "flat_parameters"],
    ["numpy_rollout"],
    ["rollout", "export", "optimizer", "evaluation"],
    ["batches", "reward_scaling"],
    ["mlp_layers", "mlp_gradient"],
    ["train_state", "events", "gradient", "compiling", "beginning"],
    ["memory_plan"],
    ["threads"],
    ["mailbox", "added_metrics", "continuing", "converting", "recording", "adapting"],
    ["trainer"],
    ["replaying", "selfplay", "scale", "lateral"],
    ["notebook"],
    ["cli", "cli_flags", "cli_lateral", "cli_tables", "cli_training", "__main__"],
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
SPACES_ALLOWED = (
    "ppo_lab/distributions/",
    "ppo_lab/envs/spaces.py",
    "ppo_lab/envs/space_text.py",
    "ppo_lab/models/networks/observation.py",
    "ppo_lab/envs/making.py",
    "ppo_lab/envs/wrappers.py",
    "ppo_lab/adapters/",
)
SOURCES = sorted([*ROOT.glob("ppo_lab/**/*.py"), *ROOT.glob("environment/**/*.py")])


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST, inside_functions: bool) -> set[str]:
    """Dotted names of what is imported; without those inside functions, which are how a wing is asked for lazily."""
    nodes = ast.walk(tree) if inside_functions else _outside_functions(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _outside_functions(node: ast.AST):
    yield node
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not typing_only:
            yield from _outside_functions(child)


@pytest.mark.parametrize("path", [p for p in SOURCES if name(p).startswith("ppo_lab/")], ids=name)
def test_imports_run_downwards(path):
    own = path.relative_to(ROOT / "ppo_lab").parts[0].removesuffix(".py")
    if own == "__init__":
        return  # the table of contents
    assert own in FLOOR, f"{own} has no floor yet: give it one in FLOORS"
    for module in imports(ast.parse(path.read_text()), inside_functions=False):
        parts = module.split(".")
        if own == "lateral" and module.startswith("environment.lateral"):
            continue  # the one wing that is about one environment
        assert parts[0] not in ("environment", "notebooks", "tests", "benchmarks"), f"{name(path)} imports {module}"
        if parts[0] == "ppo_lab" and len(parts) > 1 and parts[1] != own:
            assert FLOOR[parts[1]] <= FLOOR[own], f"{name(path)} imports {module} from a floor above"


@pytest.mark.parametrize("path", [p for p in SOURCES if name(p).startswith("environment/")], ids=name)
def test_environments_stand_on_the_protocol_alone(path):
    ours = {m for m in imports(ast.parse(path.read_text()), inside_functions=True) if m.startswith("ppo_lab")}
    assert ours <= {"ppo_lab.envs", "ppo_lab.errors"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_and_functions_stay_readable(path):
    text = path.read_text()
    assert text.count("\n") <= 330
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 50, f"{node.name} has {node.end_lineno - node.lineno + 1} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_spaces_are_looked_at_where_they_come_in_and_nowhere_else(path):
    if not name(path).startswith((*SPACES_ALLOWED, "environment/")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                asked = ast.unparse(node.args[1])
                assert not any(space in asked for space in ("spaces.", "Box", "Discrete")), f"line {node.lineno}"


def test_only_the_notebook_wing_knows_jupyter():
    for path in SOURCES:
        if "ppo_lab/notebook/" not in name(path):
            found = imports(ast.parse(path.read_text()), inside_functions=True)
            assert not {m.split(".")[0] for m in found} & {"IPython", "ipywidgets", "papermill", "matplotlib"}, name(
                path
            )


def test_files_without_a_home_do_not_exist():
    homeless = {"utils", "common", "base", "helpers", "misc", "core", "types"}
    assert not homeless & {path.stem for path in SOURCES}


def test_the_readme_names_every_room():
    text = (ROOT / "README.md").read_text()
    for path in [*ROOT.glob("ppo_lab/*.py"), *ROOT.glob("environment/*.py"), *ROOT.glob("notebooks/*.ipynb")]:
        if path.stem != "__init__":
            assert path.name in text, f"README's file tree lacks {path.name}"


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
