"""How far apart two right answers may be: what rounding costs, from the number type and the length of the sums."""

from __future__ import annotations

import numpy as np
import torch


def rounding(dtype: torch.dtype | type, terms: int, size: float = 1.0) -> float:
    """Return the bound 2 terms u size on the difference of two ways to compute the same number.

    Bits are equal on one machine, by one program, for one shape. Another kernel (as for another batch size, processor,
    number of threads or library) adds the same numbers in another order, fuses a product with a sum, or has another
    `exp`. Each of `terms` operations, one after the other, is off by at most one unit in the last place, u = `eps` of
    the type (half of that where rounding is to nearest, a whole one in `exp`, `tanh` and their like), relative to the
    largest number on the way, `size`: so one way is off from the exact number by at most terms u size (Higham 2002,
    "Accuracy and Stability of Numerical Algorithms", 3.1: n u / (1 - n u) for a sum of n), and two ways from each
    other by twice that.

    terms: sums count with the length of the longest, n for n products that are added up; a layer on n inputs takes
    n + 1, and layers one after the other add up. Where numbers cancel, `size` is that of what was subtracted: use the
    result as an absolute tolerance. Errors of independent signs grow with the square root only, so that this is
    generous by a factor of a few, and still a thousand times below what a mistake would make.
    """
    eps = torch.finfo(dtype).eps if isinstance(dtype, torch.dtype) else float(np.finfo(dtype).eps)
    return 2.0 * terms * eps * size
