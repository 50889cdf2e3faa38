"""The interface of every engine: run a graph on a device, uint8 images in, float32 arrays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engines.deadline import Deadline

Shape = tuple[int, ...]  # of a batch: n, height, width, 3
Images: TypeAlias = "Sequence[NDArray[np.uint8]] | NDArray[np.uint8]"  # n RGB images (h, w, 3), or one (n, h, w, 3)
Rows: TypeAlias = "Sequence[NDArray[np.float32]] | NDArray[np.float32]"  # one output of a graph, one row per image


class Engine(Protocol):
    """A loaded graph. The caller limits concurrent calls to `runners.engine_choice.calls_at_a_time`."""

    @property
    def name(self) -> str:
        """`openvino`, `torch` or `tensorrt`."""
        ...

    @property
    def precision(self) -> str:
        """`f32`, `bf16`, `f16`, `f32+bf16` or `int8`."""
        ...

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        """Run these shapes once, as far as their first run would be slow."""
        ...

    def run(
        self, images: Images, min_confidence: float = 0, *, alone: bool = True, deadline: Deadline | None = None
    ) -> tuple[Rows, ...]:
        """Run images of one shape. Returns the graph's outputs, each with one row per image, in the same order.

        min_confidence: the caller ignores a detector's candidates below it, 0…1. An engine may then compute their
        confidence only; their boxes and keypoints hold arbitrary values.
        alone: no other request waits for this model.
        deadline: of all images. An engine that can stop raises Abandoned when the deadline is abandoned.

        Raises OutOfMemory if the device has too little memory for this batch, DeviceLost after a sticky error.
        """
        ...

    def close(self) -> None:
        """Free all memory. No call may follow."""
        ...


@runtime_checkable
class Graphed(Protocol):
    """An engine that trades memory for speed with CUDA graphs. Both methods wait for a call under way."""

    def capture(self, room_mb: Callable[[], float]) -> int:
        """Capture the missing graphs of the warmed-up shapes, the largest first. Returns the number of all graphs.

        room_mb: the memory left, in MB. A graph that makes it negative is dropped. Raises DeviceLost.
        """
        ...

    def give_back(self) -> bool:
        """Free all graphs. Returns whether there were any."""
        ...
