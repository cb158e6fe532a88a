"""Tests of `clip`: its gradient at a bound does not depend on torch's version."""

from __future__ import annotations

import pytest
import torch

from ppo_lab.models.clip import clip


@pytest.mark.parametrize("tensors", [False, True])
def test_values_are_those_of_clamp_and_slopes_one_up_to_the_bounds(tensors):
    low, high = (torch.tensor(end) if tensors else end for end in (-0.5, 0.25))
    x = torch.tensor([-2.0, -0.5, -0.25, 0.0, 0.25, 0.5, float("inf"), float("nan")], requires_grad=True)
    clipped = clip(x, low, high)
    torch.testing.assert_close(clipped, x.clamp(-0.5, 0.25), rtol=0, atol=0, equal_nan=True)
    clipped.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0, 0, 0]
