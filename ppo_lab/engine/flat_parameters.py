"""Parameters side by side in one tensor, so that one operation handles all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

NAMES = ("exp_avg", "exp_avg_sq", "step")  # of Adam's moments
LINE = 16  # numbers in 64 bytes: each part is aligned as torch aligns a tensor; otherwise products round differently


class FlatParameters:
    """Parameters and their gradients as views of two tensors (P,), in float32 on a CPU; the gaps are zero."""

    def __init__(self, parameters: Iterable[nn.Parameter], together: Sequence[nn.Parameter] = ()) -> None:
        """Flatten the parameters. together: those that have to be side by side, in this order."""
        self.parameters = list({id(each): each for each in (*together, *parameters)}.values())
        self._places: dict[int, int] = {}  # id of a parameter: index of its first number
        size = 0
        for each in self.parameters:
            self._places[id(each)] = size
            size += _room(each)
        self.value, self.grad = (torch.zeros(size, dtype=torch.float32, device="cpu") for _ in range(2))
        views = zip(self.parameters, self.parts(self.value), self.parts(self.grad), strict=True)
        self._views = [(parameter, value.data_ptr(), value, grad) for parameter, value, grad in views]
        self._moments: Moments | None = None
        self._looked = False
        self.hold()

    def part(self, flat: Tensor, parameter: Tensor) -> Tensor:
        """Return the view of `flat` (P,) with the position and shape of a parameter."""
        return self.stack(flat, [parameter])[0]

    def stack(self, flat: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return the parts of K parameters of one shape, side by side in `flat` (P,), as one view (K, *shape)."""
        first, like, count = self._places[id(parameters[0])], parameters[0], len(parameters)
        return flat[first : first + count * _room(like)].view(count, -1)[:, : like.numel()].view(count, *like.shape)

    def parts(self, flat: Tensor) -> list[Tensor]:
        """Return the view of `flat` (P,) for each parameter."""
        return [self.part(flat, each) for each in self.parameters]

    def hold(self) -> None:
        """Make parameters and gradients views again where other code replaced them; parameters keep their values."""
        for parameter, address, value, grad in self._views:
            if parameter.data_ptr() != address or not parameter.is_contiguous():
                value.copy_(parameter.data.clone())  # clone: it may be a view of the same memory
                parameter.data = value
            if parameter.grad is not grad:
                parameter.grad = grad

    def begin(self) -> None:
        """Begin an update: check the optimizer's state again at the next step."""
        self._looked = False

    def moments(self, optimizer: torch.optim.Optimizer) -> Moments | None:
        """Return the moments of an Adam or AdamW; None if the optimizer has other parameters.

        From then on the optimizer's state holds views of them.
        """
        known = self._moments
        if known is None or not known.is_held(optimizer, closely=not self._looked):
            theirs = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            if {id(each) for each in theirs} != self._places.keys():
                return None
            with torch.inference_mode(False):  # code outside inference mode may change them too
                known = self._moments = Moments(self, optimizer.state, theirs)
        self._looked = True
        return known


class Moments:
    """Adam's moments of flat parameters, also side by side, and its step counts; zero where Adam has none yet."""

    def __init__(self, flat: FlatParameters, state: dict[Tensor, Any], order: list[nn.Parameter]) -> None:
        """Collect the moments from the optimizer's state, and replace them there by views.

        state: the optimizer's, a dictionary that `load_state_dict` replaces. order: the parameters in the order in
        which new ones are added to it.
        """
        self.mean, self.square = torch.zeros_like(flat.value), torch.zeros_like(flat.value)  # (P,)
        self.steps = torch.zeros(len(flat.parameters), dtype=torch.float32)
        rows = (*(flat.parts(each) for each in (flat.value, flat.grad, self.mean, self.square)), self.steps.unbind())
        self._state, self._views = state, dict(zip(flat.parameters, zip(*rows, strict=True), strict=True))
        for parameter in order:
            known = state[parameter]
            for name, view in zip(NAMES, self._views[parameter][2:], strict=True):
                if name in known:
                    view.copy_(known[name])
                known[name] = view
        self.alike = self._alike()

    def is_held(self, optimizer: torch.optim.Optimizer, closely: bool) -> bool:
        """Return whether the optimizer still holds these moments, with none replaced or removed.

        closely: compare each tensor.
        """
        if self._state is not optimizer.state or len(self._state) < len(self._views):
            return False
        if not closely:
            return True
        self.alike = self._alike()
        rows = [(self._state.get(parameter, {}), views[2:]) for parameter, views in self._views.items()]
        return all(known.get(name) is view for known, mine in rows for name, view in zip(NAMES, mine, strict=True))

    def columns(self, parameters: Sequence[nn.Parameter]) -> list[list[Tensor]]:
        """Return five lists: the values, gradients, means, squares and steps of some parameters."""
        return [list(column) for column in zip(*(self._views[each] for each in parameters), strict=True)]

    def _alike(self) -> bool:
        """Return whether all have the same number of steps; a fork may start with the moments of some parameters."""
        return bool((self.steps == self.steps[0]).all())


def _room(parameter: Tensor) -> int:
    return -(-parameter.numel() // LINE) * LINE
