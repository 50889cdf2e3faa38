"""The lane for small graphs: it computes several images in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import openvino
from numpy.typing import NDArray

from engines.engine import Images


class BatchLane:
    """One inference request for each batch size. Not thread-safe: one call at a time."""

    def __init__(self, requests: Mapping[int, openvino.InferRequest]) -> None:
        """requests: batch size → request; the largest size first, 1 last."""
        self._requests = requests

    def infer(self, images: Images) -> list[tuple[NDArray[np.float32], ...]]:
        """Run images (h, w, 3) uint8; return each image's outputs, without the batch dimension.

        Raises ValueError if the graph returns a different number of results than it got images.
        """
        outputs: list[tuple[NDArray[np.float32], ...]] = []
        while len(outputs) < len(images):
            size = next(size for size in self._requests if size <= len(images) - len(outputs))
            batch = np.stack([*images[len(outputs) : len(outputs) + size]])
            results = self._requests[size].infer([batch], share_inputs=True, share_outputs=True)
            copies = [np.array(results[index]) for index in range(len(results))]
            if any(len(copy) != size for copy in copies):
                raise ValueError(f"the graph gave {[len(copy) for copy in copies]} results for {size} images")
            outputs += [tuple(copy[row] for copy in copies) for row in range(size)]
        return outputs

    def warm_up(self, shape: Sequence[int]) -> None:
        """Run each batch size once. shape: (h, w, 3), of one image."""
        for size, request in self._requests.items():
            request.infer([np.zeros((size, *shape), np.uint8)])
