"""An exercise: a function that the reader writes, compared with the right one and with known mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Solution = Callable[..., Any]
FACTORS = {2.0: "a factor of 1/2", 0.5: "a factor of 2", -1.0: "a minus sign"}


@dataclass(frozen=True)
class Exercise:
    """A function to write: the inputs to try, a function that is right, and functions with known mistakes."""

    name: str
    right: Solution
    praise: str
    cases: tuple[tuple[str, tuple[Any, ...]], ...]  # (description, arguments), the simplest first
    mistakes: tuple[tuple[str, Solution], ...]  # (message, function that makes the mistake)
    gradient: bool = False  # the answer must have a gradient with respect to the first argument

    def diagnose(self, solution: Solution) -> str:
        """Run the solution on all cases. Return one line: right, not yet, or what is wrong in the first wrong case.

        Exceptions of `solution` are not caught.
        """
        for case, arguments in self.cases:
            given = tuple(a.clone() if isinstance(a, Tensor) else a for a in arguments)
            if self.gradient:
                given[0].requires_grad_()
            answer = solution(*given)
            if answer is None:
                return f"not yet: {self.name} returns nothing"
            problem = self._problem(case, arguments, given, answer)
            if problem is not None:
                return f"not right yet: {problem}"
        return f"right: {self.praise}"

    def _problem(self, case: str, arguments: tuple[Any, ...], given: tuple[Any, ...], answer: Any) -> str | None:
        """Return what is wrong with an answer; None if it is right."""
        expected = self.right(*arguments)
        if not isinstance(answer, Tensor):
            return f"expected a tensor, got {type(answer).__name__}"
        if answer.shape != expected.shape:
            return f"wrong shape: expected {tuple(expected.shape)}, got {tuple(answer.shape)}"
        if any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in zip(arguments, given, strict=True)):
            return "it changes its arguments in place: write into a new tensor"
        if _close(answer, expected):
            if self.gradient and not answer.requires_grad:
                return "the number is right, but it has no gradient: do not use .item(), .detach() or no_grad"
            return None
        for message, mistake in self.mistakes:
            if _close(answer, mistake(*arguments)):
                return message
        return _difference(case, answer, expected)


def _close(one: Tensor, other: Tensor) -> bool:
    wide = one.detach().double(), other.detach().double()
    return one.shape == other.shape and torch.allclose(*wide, rtol=1e-4, atol=1e-5, equal_nan=True)


def _difference(case: str, answer: Tensor, expected: Tensor) -> str:
    """Describe a mistake that is not in the list: a wrong factor, or else the first wrong element."""
    got, want = answer.detach().double(), expected.double()
    for factor, missing in FACTORS.items():
        if _close(got, factor * want):
            return f"{factor:g} times the expected value: {missing}?"
    wrong = ~torch.isclose(got, want, rtol=1e-4, atol=1e-5)
    place = tuple(wrong.nonzero()[0].tolist())
    where = f" at {list(place)}" if place else ""
    return f"{case}:{where} expected {want[place].item():.4g}, got {got[place].item():.4g}"
