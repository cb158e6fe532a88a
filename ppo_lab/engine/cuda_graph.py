"""Captures a function over tensors with fixed addresses as a CUDA graph, once, and replays it from then on.

A graph is a recording of kernels with their addresses. So the tensors that the function reads and writes must keep
their addresses, all shapes must be the same every time, and the host must not wait for the device: no `.item()`, no
`if tensor`, no copy to the host, no indexing by a mask. Its Python code runs once, at the capture: numbers that change
later must be tensors. Rules: the CUDA semantics page of torch's documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor

WARM_UP = 3  # calls before the capture, so that libraries choose their kernels and allocate memory first
Work = Callable[[], None]
Restore = Callable[[], None]


class Captured:
    """`function()` as one CUDA graph. On a device without CUDA it is called directly, on the same tensors."""

    def __init__(
        self, function: Work, device: torch.device, restore: Restore, generators: Sequence[Generator] = ()
    ) -> None:
        """Warm up and capture. The effects of the warm-up are undone, so that it does not train or step anything.

        Args:
            function: The function to capture.
            device: The device of its tensors.
            restore: A function that undoes the effects of a call.
            generators: All generators that it draws random numbers from.
        """
        self._do = function
        with _side_stream(device) as stream:
            for _ in range(WARM_UP):
                function()
                restore()
        if stream is None:
            return
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # thread_local: the thread of a dashboard may use the device meanwhile
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            function()
        self._do = graph.replay

    def __call__(self) -> None:
        """Replay the graph once. It returns before the device has finished."""
        self._do()


@contextmanager
def _side_stream(device: torch.device) -> Iterator[torch.cuda.Stream | None]:
    """Switch to another CUDA stream to capture on, and yield it; yield None where the device has no streams."""
    if device.type != "cuda":
        yield None
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield stream
    torch.cuda.current_stream(device).wait_stream(stream)


def snapshot(tensors: Sequence[Tensor], generators: Sequence[Generator] = ()) -> Restore:
    """Return a function that restores these tensors and random number generators in place to their current state."""
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    states = [(generator, generator.get_state()) for generator in generators]

    @torch.no_grad()
    def restore() -> None:
        for tensor, before in kept:
            tensor.copy_(before)
        for generator, state in states:
            generator.set_state(state)

    return restore


def addresses(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the addresses of the tensors. A graph whose tensors have moved would use memory of other tensors."""
    return tuple(tensor.data_ptr() for tensor in tensors)
