"""Parameters side by side in one tensor, so that one operation does for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

LINE = 16  # numbers in 64 bytes: torch lets a tensor begin there, and so does every part, or products round otherwise


class FlatParameters:
    """Parameters and their gradients as views of two tensors (P,), in float32 on a CPU; in gaps are zeros."""

    def __init__(self, parameters: Iterable[nn.Parameter], together: Sequence[nn.Parameter] = ()) -> None:
        """together: some of them, in the order in which they are to lie side by side."""
        self.parameters = list({id(each): each for each in (*together, *parameters)}.values())
        self._places: dict[int, int] = {}  # by id: its first number
        size = 0
        for each in self.parameters:
            self._places[id(each)] = size
            size += _room(each)
        self.value, self.grad = torch.zeros(size), torch.zeros(size)
        views = zip(self.parameters, self.parts(self.value), self.parts(self.grad), strict=True)
        self._views = [(parameter, value.data_ptr(), value, grad) for parameter, value, grad in views]
        self._moments: Moments | None = None
        self.hold()

    def part(self, flat: Tensor, parameter: Tensor) -> Tensor:
        """The view of `flat` (P,) in the place and shape of a parameter."""
        return self.stack(flat, [parameter])[0]

    def stack(self, flat: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The parts of K parameters of one shape that lie side by side in `flat` (P,), as one view (K, *shape)."""
        first, like = self._places[id(parameters[0])], parameters[0]
        return flat.as_strided((len(parameters), *like.shape), (_room(like), *like.stride()), first)

    def parts(self, flat: Tensor) -> list[Tensor]:
        """That of every parameter."""
        return [self.part(flat, each) for each in self.parameters]

    def hold(self) -> None:
        """Make parameters and gradients views again where somebody put another tensor in the place of one."""
        for parameter, address, value, grad in self._views:
            if parameter.data_ptr() != address:
                value.copy_(parameter.data)
                parameter.data = value
            if parameter.grad is not grad:
                parameter.grad = grad

    def moments(self, optimizer: torch.optim.Optimizer) -> Moments | None:
        """Those of an Adam or AdamW, which it has as views from now on; None where it has other parameters."""
        known = self._moments
        if known is None or known.state is not optimizer.state or len(known.state) < len(self.parameters):
            theirs = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            if {id(each) for each in theirs} != self._places.keys():
                return None
            with torch.inference_mode(False):  # others may change them too
                known = self._moments = Moments(self, optimizer.state, theirs)
        return known


class Moments:
    """Adam's moments of flat parameters, side by side too, and their steps; zeros where it has none yet."""

    def __init__(self, flat: FlatParameters, state: dict[Tensor, Any], order: list[nn.Parameter]) -> None:
        """state: the optimizer's, which `load_state_dict` replaces by another; new parameters come in this order."""
        self.state = state
        self.mean, self.square = torch.zeros_like(flat.value), torch.zeros_like(flat.value)  # (P,)
        self.steps = torch.zeros(len(flat.parameters))
        parts = zip(self.steps.unbind(), flat.parts(self.mean), flat.parts(self.square), strict=True)
        views = dict(zip(map(id, flat.parameters), parts, strict=True))
        for parameter in order:
            known = state[parameter]
            for name, view in zip(("step", "exp_avg", "exp_avg_sq"), views[id(parameter)], strict=True):
                if name in known:
                    view.copy_(known[name])
                known[name] = view
        self.alike = bool((self.steps == self.steps[0]).all())  # a fork may begin with moments of some


def _room(parameter: Tensor) -> int:
    return -(-parameter.numel() // LINE) * LINE
