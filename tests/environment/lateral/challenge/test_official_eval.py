"""The challenge's evaluation, in a stub of a clone that takes the same command and writes the same table."""

from __future__ import annotations

import pytest

from environment.lateral.challenge import export_controller, official_eval
from environment.lateral.challenge.official_eval import read_report
from ppo_lab.errors import RunError
from tests.environment.lateral.challenge.policies import make_policy

# Drives each controller once over a road of its own making and reports its mean command as its costs.
EVAL = """
import argparse, importlib, pathlib
from types import SimpleNamespace
parser = argparse.ArgumentParser()
for name in ("model_path", "data_path", "num_segs", "test_controller", "baseline_controller"):
    parser.add_argument("--" + name, required=True)
given = parser.parse_args()
assert pathlib.Path(given.model_path).is_file() and pathlib.Path(given.data_path).is_dir()
rows = []
for name, controller in (("baseline", given.baseline_controller), ("test", given.test_controller)):
    car = importlib.import_module("controllers." + controller).Controller()
    state, plan = SimpleNamespace(roll_lataccel=0, v_ego=20, a_ego=0), SimpleNamespace(
        lataccel=[], roll_lataccel=[], v_ego=[], a_ego=[])
    first = car.update(1.62, 0.0, state, plan)
    cells = "".join("<td>%s</td>" % cell for cell in (name, round(first, 3), given.num_segs, 84.85))
    rows.append("<tr>\\n      " + cells + "</tr>")
head = "".join("<th>%s</th>" % cell for cell in ("controller", "lataccel_cost", "jerk_cost", "total_cost"))
table = '<table border="1" class="dataframe">\\n<thead><tr style="text-align: right;">' + head + "</tr></thead><tbody>"
pathlib.Path("report.html").write_text("<h1>Report</h1><img src='x'>" + table + "\\n".join(rows) + "</tbody></table>")
"""
PID = """
from . import BaseController
class Controller(BaseController):
    def update(self, target_lataccel, current_lataccel, state, future_plan):
        return 0.5
"""


@pytest.fixture
def clone(tmp_path):
    place = tmp_path / "clone"
    for folder in ("controllers", "models", "data"):
        (place / folder).mkdir(parents=True)
    (place / "eval.py").write_text(EVAL)
    (place / "models" / "tinyphysics.onnx").write_text("")
    (place / "controllers" / "__init__.py").write_text("class BaseController:\n    pass\n")
    (place / "controllers" / "pid.py").write_text(PID)
    return place


@pytest.fixture
def file(tmp_path):
    return export_controller(make_policy(), tmp_path / "mine.py")


def test_the_table_of_the_report_comes_back(clone, file):
    for _ in range(2):  # the second time our own file is there already
        costs = official_eval(file, clone, num_segments=3)
        assert costs == {
            "baseline": {"lataccel_cost": 0.5, "jerk_cost": 3.0, "total_cost": 84.85},
            "test": {"lataccel_cost": 1.0, "jerk_cost": 3.0, "total_cost": 84.85},
        }


@pytest.mark.parametrize("part", ["eval.py", "models/tinyphysics.onnx"])
def test_a_clone_that_is_not_whole_is_one_line(part, clone, file):
    (clone / part).unlink()
    with pytest.raises(RunError, match=f"not a complete clone of the challenge: {part} is missing"):
        official_eval(file, clone)


def test_the_challenge_s_own_controllers_stay(clone, file):
    with pytest.raises(RunError, match=r"pid\.py exists and was not exported by ppo_lab"):
        official_eval(file.rename(file.with_name("pid.py")), clone)
    assert (clone / "controllers" / "pid.py").read_text() == PID


def test_a_name_that_cannot_be_imported_is_one_line(clone, file):
    with pytest.raises(RunError, match=r"my-ppo\.py: the challenge imports controllers by name"):
        official_eval(file.rename(file.with_name("my-ppo.py")), clone)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise ValueError('no such segment')", r"ended with code 1: ValueError: no such segment"),
        ("", r"ended with code 0: it wrote no report"),
        ("open('report.html', 'w').write('<table><tr><td>1</td></tr></table>')", r"has no table with controller"),
    ],
)
def test_an_evaluation_that_fails_is_one_line(program, message, clone, file):
    (clone / "report.html").write_text("an old one")
    (clone / "eval.py").write_text(program)
    with pytest.raises(RunError, match=message):
        official_eval(file, clone)


def test_a_report_without_a_table_is_one_line(tmp_path):
    (tmp_path / "report.html").write_text("<p>nothing</p>")
    with pytest.raises(RunError, match="has no table"):
        read_report(tmp_path / "report.html")
