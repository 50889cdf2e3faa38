"""What every engine can do: run a graph on a device, uint8 images in, float32 arrays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engines.deadline import Deadline

Shape = tuple[int, ...]  # of a batch: n, height, width, 3
Images: TypeAlias = "Sequence[NDArray[np.uint8]] | NDArray[np.uint8]"  # n of (h, w, 3) RGB, apart or in one array
Rows: TypeAlias = "Sequence[NDArray[np.float32]] | NDArray[np.float32]"  # one of a graph's outputs, a row an image


class Engine(Protocol):
    """A loaded graph. At most `calls_at_a_time` calls at a time; the caller sees to that."""

    @property
    def name(self) -> str:
        """`openvino`, `torch` or `tensorrt`."""
        ...

    @property
    def precision(self) -> str:
        """`f32`, `bf16`, `f16`, `f32+bf16` or `int8`."""
        ...

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        """Run what of these shapes would be slow the first time."""
        ...

    def run(
        self, images: Images, min_score: float = 0, *, alone: bool = True, deadline: Deadline | None = None
    ) -> tuple[Rows, ...]:
        """Run images of one shape and return the graph's outputs, each with a row for every image, in their order.

        min_score: what a detector's candidates must reach to be of interest; what is said of the others beside their
        scores an engine may leave out: it then means nothing. alone: nobody else waits for this model now. deadline: of
        all images; an engine that can stop ends with Abandoned when it is abandoned.
        Raises OutOfMemory where the device has too little left for this batch, DeviceLost after a sticky error.
        """
        ...

    def close(self) -> None:
        """Let go of all memory. The last call that an engine gets."""
        ...


@runtime_checkable
class Graphed(Protocol):
    """An engine that is faster with CUDA graphs, which take memory. Both methods wait for a call under way."""

    def capture(self, room_mb: Callable[[], float]) -> int:
        """Capture graphs of the warmed-up shapes that there are none of yet, the largest first.

        room_mb: how much memory is left, below 0 = too little: what made it so is not kept. Returns how many there are.
        Raises DeviceLost.
        """
        ...

    def give_back(self) -> bool:
        """Let go of all graphs. Returns whether there were any."""
        ...
