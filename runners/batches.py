"""Batches of a small fixed set of shapes out of whatever was queued."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from runners.engines import Engine

Outputs = tuple[NDArray[np.float32], ...]


def batch_sizes(largest: int) -> list[int]:
    """The batch sizes that an engine ever sees: the powers of two up to `largest`, ascending."""
    return [2**power for power in range(largest.bit_length())]


def cut(count: int, largest: int) -> Iterator[int]:
    """Cut `count` items into such sizes, largest first: 7 → 4, 2, 1. Nothing is padded, so no computation is wasted."""
    for size in reversed(batch_sizes(largest)):
        while count >= size:
            yield size
            count -= size


def run(engine: Engine, images: Sequence[NDArray[np.uint8]], largest: int) -> list[Outputs]:
    """Run images (h, w, 3) uint8 of any mix of shapes; images of one shape share batches of at most `largest`.

    Returns each image's outputs, without the batch dimension, in the order of `images`. Raises what the engine raises,
    and ValueError where it gives back another number of results than it was given images.
    """
    by_shape: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        by_shape[image.shape].append(position)
    results: dict[int, Outputs] = {}
    for positions in by_shape.values():
        start = 0
        for size in cut(len(positions), largest):
            batch = positions[start : start + size]
            start += size
            outputs = engine.run(np.stack([images[position] for position in batch]))
            if any(len(output) != size for output in outputs):
                raise ValueError(f"the engine gave {[len(output) for output in outputs]} results for {size} images")
            for row, position in enumerate(batch):
                results[position] = tuple(output[row] for output in outputs)
    return [results[position] for position in range(len(images))]
