"""Splits the queued images into batches of a few fixed shapes and runs them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engines.deadline import Deadline
from engines.engine import Engine, Images, Rows
from engines.errors import OutOfMemory

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

Outputs = tuple[NDArray[np.float32], ...]  # of one image
Forward = Callable[[Images], tuple[Rows, ...]]


def batch_sizes(largest: int) -> list[int]:
    """All batch sizes that an engine gets: the powers of two up to `largest`, ascending."""
    return [2**power for power in range(largest.bit_length())]


def cut(count: int, largest: int) -> Iterator[int]:
    """Split `count` items into these batch sizes, largest first: 7 → 4, 2, 1. No batch is padded."""
    for size in reversed(batch_sizes(largest)):
        while count >= size:
            yield size
            count -= size


def run(
    engine: Engine,
    images: Images,
    largest: int,
    on_out_of_memory: Callable[[], None],
    min_confidence: float = 0,
    *,
    alone: bool = True,
    deadline: Deadline | None = None,
) -> list[Outputs | OutOfMemory]:
    """Run images (h, w, 3) uint8 of any mix of shapes; images of one shape share batches of at most `largest`.

    Returns each image's outputs, without the batch dimension, in the order of `images`.

    If the device runs out of memory on a batch, `on_out_of_memory` is called once, to free memory. Then the batch is
    tried once more, in halves. Images of a half that fails again get the OutOfMemory in place of outputs.

    min_confidence, alone, deadline: see Engine.run. Raises ValueError if the engine returns a different number of
    results than it got images. Other errors of the engine pass through.
    """
    by_shape: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        by_shape[image.shape].append(position)
    forward = partial(engine.run, min_confidence=min_confidence, alone=alone, deadline=deadline)
    results: dict[int, Outputs | OutOfMemory] = {}
    for positions in by_shape.values():
        start = 0
        for size in cut(len(positions), largest):
            batch = positions[start : start + size]
            start += size
            results.update(
                zip(batch, _run_or_halve(forward, [images[i] for i in batch], on_out_of_memory), strict=True)
            )
    return [results[position] for position in range(len(images))]


def _run_or_halve(
    forward: Forward, images: Images, on_out_of_memory: Callable[[], None]
) -> list[Outputs | OutOfMemory]:
    try:
        return [*_run_batch(forward, images)]
    except OutOfMemory as error:
        logger.warning("out of memory on a batch of %d, which is tried once more: %s", len(images), error)
    # Not inside the except block: the exception's traceback still holds the tensors.
    on_out_of_memory()
    half = max(1, len(images) // 2)
    done: list[Outputs | OutOfMemory] = []
    try:
        for start in range(0, len(images), half):
            done += _run_batch(forward, images[start : start + half])
        return done
    except OutOfMemory as error:
        refused = OutOfMemory(str(error))
    logger.error("out of memory again on a batch of %d: %d images are refused", half, len(images) - len(done))
    return done + [refused] * (len(images) - len(done))


def _run_batch(forward: Forward, images: Images) -> list[Outputs]:
    outputs = forward(images)
    if any(len(output) != len(images) for output in outputs):
        raise ValueError(f"the engine gave {[len(output) for output in outputs]} results for {len(images)} images")
    return [tuple(output[row] for output in outputs) for row in range(len(images))]
