"""Exercises of 09_lateral_control: right solutions pass, and each known mistake has its own message."""

import json
import re

import numpy as np
import pytest
import torch

from environment.lateral.controllers import PidController
from environment.lateral.rules import CONTROL_START, EPISODE_STEPS
from environment.lateral.rules import cost as official_cost
from ppo_lab.notebook.course import check_control as check

EXERCISES = (check.COST, check.PID)
MISTAKES = [(exercise, message, mistake) for exercise in EXERCISES for message, mistake in exercise.mistakes]
CALLS = {"my_cost": check.cost, "my_pid": check.pid}


def row_by_row(target, lataccel):
    T, N = target.shape
    total = torch.zeros(N)
    for n in range(N):
        for t in range(T):
            total[n] += 5000 / T * (target[t, n] - lataccel[t, n]) ** 2
        for t in range(1, T):
            total[n] += 10_000 / (T - 1) * (lataccel[t, n] - lataccel[t - 1, n]) ** 2
    return total


def with_a_controller(error, p, i, d):
    """Compute the commands with the PID controller of the library."""
    controller = PidController(p, i, d)
    return torch.stack([controller.update(row[None], None, None, None, torch.zeros_like(row)) for row in error])


RIGHT = {"my_cost": row_by_row, "my_pid": with_a_controller}


@pytest.mark.parametrize("name", CALLS)
def test_a_right_solution_passes_however_it_is_written(name, capsys):
    CALLS[name](RIGHT[name])
    assert capsys.readouterr().out.startswith("right: ")


@pytest.mark.parametrize("name", CALLS)
def test_an_exercise_nobody_has_begun_is_not_yet(name, capsys):
    CALLS[name](lambda *arguments: None)
    assert capsys.readouterr().out == f"not yet: {name} returns nothing\n"


@pytest.mark.parametrize(("exercise", "message", "mistake"), MISTAKES, ids=[message[:30] for _, message, _ in MISTAKES])
def test_every_known_mistake_has_its_own_message(exercise, message, mistake):
    assert exercise.diagnose(mistake) == f"not right yet: {message}"


def test_the_cost_is_that_of_the_challenge():
    rng = np.random.default_rng(0)
    target, lataccel = rng.normal(size=(2, CONTROL_START + EPISODE_STEPS, 3))
    driven = [torch.from_numpy(rows[CONTROL_START:]) for rows in (target, lataccel)]
    np.testing.assert_allclose(check.COST.right(*driven), official_cost(target, lataccel).total, rtol=1e-12)


def test_the_folded_solutions_pass(root, capsys):
    cells = json.loads((root / "notebooks" / "09_lateral_control.ipynb").read_text(encoding="utf-8"))["cells"]
    (folded,) = ("".join(cell["source"]) for cell in cells if "<details>" in "".join(cell["source"]))
    names = {"torch": torch}
    exec(re.search(r"```python\n(.*?)```", folded, re.DOTALL).group(1), names)
    for name, call in CALLS.items():
        call(names[name])
        assert capsys.readouterr().out.startswith("right: "), name
