"""Exercises: a right solution passes however it is written, and each known mistake has its own message."""

import json
import re

import pytest
import torch

from ppo_lab.notebook.course import check
from ppo_lab.notebook.course.exercise import Exercise

EXERCISES = (check.GAE, check.RATIO, check.CLIPPED_SURROGATE, check.NORMALIZED)
MISTAKES = [(exercise, message, mistake) for exercise in EXERCISES for message, mistake in exercise.mistakes]
CALLS = {"my_gae": check.gae, "my_ratio": check.ratio, "my_normalized": check.normalized}
CALLS["my_clipped_surrogate"] = check.clipped_surrogate


def my_gae(
    reward, value, next_value, terminated, done, gamma, gae_lambda,
    bootstrap=lambda terminated, done: not terminated, trace=lambda terminated, done: not done,
):  # fmt: skip
    """Compute GAE element by element, as a reader might. bootstrap, trace: whether to use next_value, the trace."""
    T, N = reward.shape
    advantage = torch.zeros(T, N)
    for n in range(N):
        later = 0.0
        for t in reversed(range(T)):
            flags = bool(terminated[t, n]), bool(done[t, n])
            delta = reward[t, n] - value[t, n] + (gamma * next_value[t, n] if bootstrap(*flags) else 0.0)
            later = delta + (gamma * gae_lambda * later if trace(*flags) else 0.0)
            advantage[t, n] = later
    return advantage


def always(terminated, done):
    return True


def rows(log_prob, old_log_prob):
    return torch.stack([torch.exp(new) / torch.exp(old) for new, old in zip(log_prob, old_log_prob, strict=True)])


def six_cases(ratio, advantage, clip_coef):
    """Compute the clipped surrogate row by row: the ratio is clipped only in the direction of the advantage."""
    total = 0.0
    for r, a in zip(ratio, advantage, strict=True):
        passed = (a > 0 and r > 1 + clip_coef) or (a < 0 and r < 1 - clip_coef)
        total = total + (a * (1 + clip_coef if a > 0 else 1 - clip_coef) + 0 * r if passed else a * r)
    return -total / len(ratio)


def with_a_small_number(advantage):
    return (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)


RIGHT = {"my_gae": my_gae, "my_ratio": rows, "my_clipped_surrogate": six_cases, "my_normalized": with_a_small_number}


@pytest.mark.parametrize("name", CALLS)
def test_a_right_solution_passes(name, capsys):
    CALLS[name](RIGHT[name])
    assert capsys.readouterr().out.startswith("right: ")


@pytest.mark.parametrize("name", CALLS)
def test_an_exercise_nobody_has_begun_is_not_yet(name, capsys):
    CALLS[name](lambda *arguments: None)
    assert capsys.readouterr().out == f"not yet: {name} returns nothing\n"


@pytest.mark.parametrize(("exercise", "message", "mistake"), MISTAKES, ids=[message[:30] for _, message, _ in MISTAKES])
def test_every_known_mistake_has_its_own_message(exercise, message, mistake):
    assert exercise.diagnose(mistake) == f"not right yet: {message}"
    assert sum(message == other for _, other, _ in MISTAKES) == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"trace": always}, "ignores `done`: the trace continues past the end of an episode"),
        ({"bootstrap": always}, "ignores `terminated`"),
        ({"trace": always, "bootstrap": always}, "neither `terminated` nor `done`"),
        ({"bootstrap": lambda terminated, done: not done}, "a truncation is treated as a termination"),
        ({"trace": lambda terminated, done: not terminated}, "continues past a truncation"),
        (
            {"bootstrap": lambda terminated, done: not done, "trace": lambda terminated, done: not terminated},
            "are swapped",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_mistakes_with_the_ends_of_episodes(flags, says):
    assert says in check.GAE.diagnose(lambda *arguments: my_gae(*arguments, **flags))


def test_mistakes_with_the_numbers_of_gae():
    def without_discounted_trace(reward, value, next_value, terminated, done, gamma, gae_lambda):
        return my_gae(reward, value, gamma * next_value, terminated, done, 1.0, gae_lambda)

    def forwards(reward, value, next_value, terminated, done, gamma, gae_lambda):
        advantage, running = torch.zeros_like(reward), torch.zeros(reward.shape[1])
        for t in range(len(reward)):
            delta = reward[t] + gamma * next_value[t] * ~terminated[t] - value[t]
            running = advantage[t] = delta + gamma * gae_lambda * ~done[t] * running
        return advantage

    def value_of_the_next_row(reward, value, next_value, terminated, done, gamma, gae_lambda):
        shifted = torch.cat([value[1:], next_value[-1:]])
        return my_gae(reward, value, shifted, terminated, done, gamma, gae_lambda)

    def returns(reward, value, *rest):
        return my_gae(reward, value, *rest) + value

    assert "gamma is missing in the trace" in check.GAE.diagnose(without_discounted_trace)
    assert "walked forwards" in check.GAE.diagnose(forwards)
    assert "value[t + 1] is not next_value[t]" in check.GAE.diagnose(value_of_the_next_row)
    assert "these are the returns" in check.GAE.diagnose(returns)


def test_mistakes_on_the_leash():
    diagnose = check.CLIPPED_SURROGATE.diagnose
    assert "minus is missing" in diagnose(lambda *arguments: -six_cases(*arguments))
    assert "sum instead of a mean" in diagnose(lambda r, *rest: six_cases(r, *rest) * len(r))
    assert "nothing is clipped" in diagnose(lambda r, a, eps: -(r * a).mean())
    assert "only the clipped term" in diagnose(lambda r, a, eps: -(r.clip(1 - eps, 1 + eps) * a).mean())
    assert "maximum" in diagnose(lambda r, a, eps: -torch.maximum(r * a, r.clip(1 - eps, 1 + eps) * a).mean())
    assert "exp() is missing" in check.RATIO.diagnose(lambda new, old: new - old)
    assert "upside down" in check.RATIO.diagnose(lambda new, old: old.exp() / new.exp())


def test_mistakes_of_normalisation():
    diagnose = check.NORMALIZED.diagnose
    assert "n - 1" in diagnose(lambda a: (a - a.mean()) / (a.std() + 1e-8))
    assert "std is 0" in diagnose(lambda a: (a - a.mean()) / a.std(correction=0))
    assert "division by the std is missing" in diagnose(lambda a: a - a.mean())


@pytest.mark.parametrize(
    ("solution", "says"),
    [
        (lambda *arguments: 2 * my_gae(*arguments), "2 times the expected value: a factor of 1/2?"),
        (lambda *arguments: my_gae(*arguments) / 2, "0.5 times the expected value: a factor of 2?"),
        (lambda *arguments: -my_gae(*arguments), "-1 times the expected value: a minus sign?"),
        (lambda *arguments: my_gae(*arguments)[:, 0], "wrong shape: expected (6, 2), got (6,)"),
        (lambda *arguments: my_gae(*arguments).tolist(), "expected a tensor, got list"),
        (lambda reward, *rest: my_gae(reward.add_(1), *rest), "changes its arguments in place"),
    ],
    ids=["twice", "half", "sign", "shape", "type", "in place"],
)
def test_what_can_be_said_without_knowing_the_mistake(solution, says):
    assert check.GAE.diagnose(solution) == f"not right yet: {says}" or says in check.GAE.diagnose(solution)


def test_an_unknown_mistake_is_shown_at_its_first_place():
    def one_off(*arguments):
        advantage = my_gae(*arguments)
        advantage[4, 1] += 1.0
        return advantage

    arguments = check.GAE.cases[0][1]
    right = my_gae(*arguments)[4, 1].item()
    message = f"not right yet: in the middle of an episode: at [4, 1] expected {right:.4g}, got {right + 1:.4g}"
    assert check.GAE.diagnose(one_off) == message
    assert "expected" in check.CLIPPED_SURROGATE.diagnose(lambda r, a, eps: r.mean() * 7)


def test_a_nan_is_never_right():
    assert "got nan" in check.GAE.diagnose(lambda reward, *rest: reward * float("nan"))


@pytest.mark.parametrize(
    ("exercise", "solution"),
    [
        (check.RATIO, lambda new, old: (new.detach() - old).exp()),
        (check.CLIPPED_SURROGATE, torch.no_grad()(six_cases)),
    ],
    ids=["ratio", "surrogate"],
)
def test_a_number_without_a_gradient_teaches_nothing(exercise, solution):
    assert "no gradient" in exercise.diagnose(solution)


def test_what_the_reader_raises_arrives():
    def broken(*arguments):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        check.gae(broken)


def test_the_cases_are_the_same_every_time_and_stay_as_they_are():
    before = [
        [argument.clone() if isinstance(argument, torch.Tensor) else argument for argument in arguments]
        for _, arguments in check.GAE.cases
    ]
    check.GAE.diagnose(lambda reward, *rest: my_gae(reward.mul_(3), *rest))
    for (_, arguments), known in zip(check.GAE.cases, before, strict=True):
        for now, then in zip(arguments, known, strict=True):
            assert torch.equal(now, then) if isinstance(now, torch.Tensor) else now == then


def test_shapes_are_told_before_mistakes():
    exercise = Exercise("my_sum", torch.sum, "yes", (("for three", (torch.ones(3),)),), ())
    assert exercise.diagnose(lambda x: x) == "not right yet: wrong shape: expected (), got (3,)"
    assert exercise.diagnose(lambda x: x[0] + x[1] + x[2]) == "right: yes"


def test_the_folded_solutions_of_the_walkthrough_pass(root, capsys):
    cells = json.loads((root / "notebooks" / "02_ppo_explained.ipynb").read_text(encoding="utf-8"))["cells"]
    (folded,) = ("".join(cell["source"]) for cell in cells if "<details>" in "".join(cell["source"]))
    names = {"torch": torch}
    exec(re.search(r"```python\n(.*?)```", folded, re.DOTALL).group(1), names)
    for name, call in CALLS.items():
        call(names[name])
        assert capsys.readouterr().out.startswith("right: "), name
