"""The actions of Spaces-v0: for every kind of space, the right action for each of the four targets, and the scores.

An action consists of parts: a Discrete is one part, a MultiDiscrete or MultiBinary has one per number, a Box one per
dimension, a Dict the parts of its entries in the order of the keys.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from ppo_lab.envs import Action

Right = tuple[tuple[float, ...], ...]  # (4, parts): choices counted from 0; for a Box, places from 0 (low) to 1 (high)

_EACH: Right = ((0,), (1,), (2,), (3,))
_PAIR: Right = ((0, 0), (0, 1), (1, 2), (1, 0))  # (high, target), except for the last target: (high, 0)
_BITS: Right = ((0, 0, 1), (0, 1, 1), (1, 0, 0), (1, 1, 0))  # high, low, not high
_PLACE: Right = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))  # by high, by low

_CHOICE = (spaces.Discrete(4), _EACH)
_SWITCHES = (spaces.MultiBinary(3), _BITS)
_TURN = (spaces.Box(-1.0, 1.0, (2,), np.float32), _PLACE)
ACTIONS: dict[str, dict[str, tuple[Space, Right]]] = {  # name -> key -> space and right actions; key "": no Dict
    "discrete": {"": _CHOICE},
    "discrete_start": {"": (spaces.Discrete(4, start=5), _EACH)},
    "multidiscrete": {"": (spaces.MultiDiscrete([2, 3]), _PAIR)},
    "multidiscrete_start": {"": (spaces.MultiDiscrete([2, 3], start=[5, -1]), _PAIR)},
    "multibinary": {"": _SWITCHES},
    "box": {"": _TURN},
    "box_asymmetric": {"": (spaces.Box(300.0, 500.0, (2,), np.float32), _PLACE)},
    "hybrid": {"choice": _CHOICE, "switches": _SWITCHES, "turn": _TURN},
}


class Scorer:
    """Scores actions of the space ACTIONS[name].

    Attributes:
        space: The space of one action.
        sizes: Number of choices of each discrete part.
        num_places: Number of parts that are dimensions of a Box.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._entries = ACTIONS[name]
        parts = {key: space for key, (space, _) in self._entries.items()}
        self.space: Space = parts[""] if "" in parts else spaces.Dict(parts)
        discrete = [(s, right) for s, right in self._entries.values() if not isinstance(s, spaces.Box)]
        boxes = [(s, right) for s, right in self._entries.values() if isinstance(s, spaces.Box)]
        self.sizes = [n for space, _ in discrete for n in _sizes(space)]
        self.num_places = sum(space.shape[0] for space, _ in boxes)

        def side_by_side(rights: list[Right]) -> Tensor:
            rows = [[x for right in rights for x in right[target]] for target in range(4)]
            return torch.tensor(rows, dtype=torch.float32, device=device)  # (4, parts)

        self._starts = {
            key: torch.tensor(np.atleast_1d(getattr(space, "start", 0)), device=device) for key, space in parts.items()
        }
        self._choice = side_by_side([right for _, right in discrete]).long()
        self._place = side_by_side([right for _, right in boxes])
        widest = max(self.sizes, default=0)
        sizes = torch.tensor(self.sizes, dtype=torch.int64, device=device)
        self._exists = torch.arange(widest, device=device) < sizes[:, None]  # (parts, widest): rows are padded
        self._columns = self._exists.flatten().nonzero()[:, 0]  # indices of a mask's K numbers in the padded table

    def chance(self, masked: bool) -> float:
        """Compute the mean score of a uniform choice among the legal ones.

        A part of n choices gets 1 / n; `masked`, with each wrong choice legal half of the time,
            E[1 / (1 + k)] for k ~ Binomial(n - 1, 1/2)  =  2 (1 - 2^-n) / n.
        A place u* in {1/4, 3/4} gets 1 - 2 E|u - u*| = 3/8 for u uniform in [0, 1].
        """
        discrete = [2 * (1 - 2.0**-n) / n if masked else 1 / n for n in self.sizes]
        return float(np.mean([*discrete, *[3 / 8] * self.num_places]))

    def legal(self, target: Tensor, noise: Tensor) -> Tensor:
        """Return (N, parts, widest) bool: the right choice, and all others whose noise (N, K) in [0, 1) is < 1/2."""
        table = torch.zeros(len(target), self._exists.numel(), dtype=torch.bool, device=noise.device)
        table[:, self._columns] = noise < 0.5
        choices = torch.arange(self._exists.shape[1], device=noise.device)
        return table.view(-1, *self._exists.shape) | (choices == self._choice[target][:, :, None])

    def flat(self, legal: Tensor) -> Tensor:
        """Flatten the table of `legal` to an action mask (N, K): the choices of all parts concatenated."""
        return legal.flatten(1)[:, self._columns]

    def score(self, action: Action, target: Tensor, legal: Tensor | None) -> Tensor:
        """Return (N,) the mean over the parts: 1 right, 0 wrong, -1 illegal; for a place u, 1 - 2 |u - right place|.

        Raises RuntimeError (on a CPU) for a choice that no part has; one that only another part has is illegal.
        """
        choices, places = self._take_apart(action)
        scores = []
        if self.sizes:
            allowed = self._exists.expand(len(target), -1, -1) if legal is None else legal
            permitted = allowed.gather(2, choices[:, :, None])[:, :, 0]  # (N, parts)
            scores.append(torch.where(permitted, (choices == self._choice[target]).float(), -1.0))
        if self.num_places:
            scores.append(1 - 2 * (places - self._place[target]).abs())
        return torch.cat(scores, dim=1).mean(dim=1)

    def _take_apart(self, action: Action) -> tuple[Tensor, Tensor]:
        """Split into choices (N, parts) int64 counted from 0, and places (N, dimensions) from 0 (low) to 1 (high)."""
        given = action if isinstance(action, dict) else {"": action}
        choices, places = [], []
        for key, (space, _) in self._entries.items():
            value = given[key]
            if isinstance(space, spaces.Box):
                low, high = float(space.low[0]), float(space.high[0])
                places.append((value - low) / (high - low))
            else:
                choices.append(value.reshape(len(value), -1).long() - self._starts[key])
        empty = torch.zeros(len(value), 0, device=value.device)
        return torch.cat(choices, dim=1) if choices else empty.long(), torch.cat(places, dim=1) if places else empty

    def right_action(self, target: Tensor) -> Action:
        """Return the action that scores 1 for each target (N,), with the dtype of its space; MultiBinary as int64."""
        actions: dict[str, Tensor] = {}
        for key, (space, right) in self._entries.items():
            value = torch.tensor(right, device=target.device)[target]  # (N, parts)
            if isinstance(space, spaces.Box):
                actions[key] = space.low[0] + value.float() * (space.high[0] - space.low[0])
            else:
                value = value.long() + self._starts[key]
                actions[key] = value[:, 0] if isinstance(space, spaces.Discrete) else value
        return actions.get("", actions)


def _sizes(space: Space) -> list[int]:
    """Return the number of choices of each part of a discrete space."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec]
    assert isinstance(space, spaces.MultiBinary)
    return [2] * int(np.prod(space.shape))
