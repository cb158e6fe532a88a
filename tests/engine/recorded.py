"""A CUDA graph, emulated on a CPU: the operations of one call with the very tensors they read and wrote, done again.

As with the real thing, Python runs once: a number stays what it was, a tensor is read where it lay, and what
the function made on the way is written to the same place every time.
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ppo_lab.engine.cuda_graph import WARM_UP


class _Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
        # views and what was written in place need no copy
        fresh = [t.untyped_storage().data_ptr() not in known for t in _tensors(made)]
        self.calls.append((func, args, kwargs or {}, _tensors(made), fresh))
        return made


class Recorded:
    """In the place of `ppo_lab.engine.cuda_graph.Captured`."""

    def __init__(self, function, device, restore, generators=()):
        for _ in range(WARM_UP):
            function()
            restore()
        recorder = _Recorder()
        with recorder:
            function()  # a capture executes nothing
        restore()
        self.calls = recorder.calls

    @torch.no_grad()
    def __call__(self):
        for func, args, kwargs, places, fresh in self.calls:
            for place, new, copied in zip(places, _tensors(func(*args, **kwargs)), fresh, strict=True):
                if copied:
                    place.copy_(new)


def _tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
