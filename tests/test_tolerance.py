"""What rounding may cost is enough for two right ways, and not for a mistake."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tolerance import rounding


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [4, 64, 1000])
def test_sums_in_any_order_are_within_it_and_a_missing_term_is_not(dtype, n):
    random = np.random.default_rng(n)
    for _ in range(50):
        numbers = random.standard_normal(n).astype(dtype)
        forth, back, pairs = numbers.cumsum()[-1], numbers[::-1].cumsum()[-1], numbers.sum()
        limit = rounding(dtype, n, float(np.abs(numbers.cumsum()).max()))
        assert max(abs(forth - back), abs(forth - pairs)) <= limit
        assert abs(forth - (forth - numbers[np.abs(numbers).argmax()])) > limit


def test_layers_in_two_libraries_are_within_it():
    x, weight = torch.randn(7, 32), torch.randn(32, 16) / 32**0.5
    ours, theirs = np.tanh(x.numpy() @ weight.numpy()), (x @ weight).tanh().numpy()
    np.testing.assert_allclose(
        ours, theirs, rtol=0.0, atol=rounding(torch.float32, 33, (x @ weight).abs().max().item())
    )
    assert rounding(torch.float32, 33, 4.0) < 1e-4
