"""Exercises of notebooks 06 to 08: right solutions pass, and each known mistake has its own message."""

import json
import re

import pytest
import torch
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from ppo_lab.models.distributions import Categorical
from ppo_lab.models.distributions.masks import forbid
from ppo_lab.notebook.course import check_models as check

EXERCISES = (check.GAUSSIAN_LOG_PROB, check.SQUASHED_LOG_PROB, check.MASKED, check.POOLED, check.REMEMBERED)
MISTAKES = [(exercise, message, mistake) for exercise in EXERCISES for message, mistake in exercise.mistakes]
CALLS = {
    "my_gaussian_log_prob": check.gaussian_log_prob,
    "my_squashed_log_prob": check.squashed_log_prob,
    "my_masked": check.masked,
    "my_pooled": check.pooled,
    "my_remembered": check.remembered,
}
NOTEBOOKS = {
    "06_continuous_control": ("my_gaussian_log_prob", "my_squashed_log_prob"),
    "07_pixels_and_entities": ("my_masked", "my_pooled"),
    "08_memory": ("my_remembered",),
}


def with_torch(action, mean, std):
    return Normal(mean, std).log_prob(action).sum(-1)


def squashed(z, log_prob):
    """Compute it with torch: the ratio of the densities of tanh(z) and z does not depend on the distribution of z."""
    plain = Normal(torch.zeros_like(z), 1.0)
    bent = TransformedDistribution(plain, TanhTransform(cache_size=1))
    a = bent.transforms[0](z)
    return log_prob + (bent.log_prob(a) - plain.log_prob(z)).sum(-1)


def legal_only(logits, mask):
    """Mask with the function of the library."""
    return Categorical(forbid(logits, mask)).log_probs.exp()


def row_by_row(features, present):
    rows = [x[there].mean(0) if there.any() else torch.zeros(x.shape[-1]) for x, there in zip(features, present)]  # noqa: B905
    return torch.stack(rows)


def one_by_one(seen, starts):
    memory = torch.zeros_like(seen)
    for n in range(seen.shape[1]):
        before = 0.0
        for t in range(len(seen)):
            before = seen[t, n] + (0.0 if starts[t, n] else check.KEPT * before)
            memory[t, n] = before
    return memory


RIGHT = {
    "my_gaussian_log_prob": with_torch,
    "my_squashed_log_prob": squashed,
    "my_masked": legal_only,
    "my_pooled": row_by_row,
    "my_remembered": one_by_one,
}


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


def test_the_slope_of_tanh_is_not_looked_up_in_the_wrong_place():
    assert "wrong shape" in check.SQUASHED_LOG_PROB.diagnose(lambda z, p: p[:, None] - (1 - z.tanh() ** 2).log())


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_the_folded_solutions_pass(stem, root, capsys):
    cells = json.loads((root / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8"))["cells"]
    (folded,) = ("".join(cell["source"]) for cell in cells if "<details>" in "".join(cell["source"]))
    names = {"torch": torch}
    exec(re.search(r"```python\n(.*?)```", folded, re.DOTALL).group(1), names)
    for name in NOTEBOOKS[stem]:
        CALLS[name](names[name])
        assert capsys.readouterr().out.startswith("right: "), name
