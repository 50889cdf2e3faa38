"""The threads on which requests are worked on, and how many requests to a model at a time."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from api.queue import ModelQueue
from models.catalogue import ModelName
from runners import Placement, engines
from runners.engines.shaped import step_back
from settings import Settings

# While the engine computes as many images as it can, the next is read, and the one before is answered.
_AHEAD: Final = 1
# Batches on their way to a runner process: one is computed, one waits, one is being made.
_BATCHES: Final = 3


def work_queues(settings: Settings, placement: Placement) -> Mapping[ModelName, ModelQueue]:
    """A queue for each assigned model.

    Where the engines are in this process, each model has threads of its own. What queues is worked on by threads that
    leave the processor to others: so a request that finds nobody else at its model is hardly slowed down by what is
    saturated.
    """
    names = settings.assigned()
    if placement == "embedded":
        width = engines.side_by_side(settings.cpu_threads) + _AHEAD
        return {
            name: ModelQueue(
                name,
                width,
                ThreadPoolExecutor(width, thread_name_prefix=f"{name}-queued", initializer=step_back),
                ThreadPoolExecutor(1, thread_name_prefix=name),
            )
            for name in names
        }
    pictures = ThreadPoolExecutor(settings.limits.decode_threads, thread_name_prefix="picture")
    return {name: ModelQueue(name, settings.models[name].max_batch_size * _BATCHES, pictures) for name in names}
