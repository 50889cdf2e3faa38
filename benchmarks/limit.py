"""The limit of the machine: the engine that serves a model, run in bare loops on what the service would give it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from engines import batches
from engines.engine import Engine
from models import store
from models.catalogue import ModelName
from runners import engine_choice
from settings import get_settings
from tasks import TASKS
from tasks.picture import Picture
from tasks.task import Options
from vision.arrays import RGB


@dataclass
class Limit:
    """A loaded engine and an input.

    at_a_time: as many calls as the service has under way; min_score: what it asks a detector for (Engine.run);
    best: the batch size at which it makes most images a second.
    """

    engine: Engine
    image: RGB
    at_a_time: int
    min_score: float
    best: int = 1

    def per_second(self, seconds: float, batch: int | None = None) -> float:
        """Images per second over so many seconds, at the best batch size or at `batch`."""
        images = [self.image] * (batch or self.best)
        call = partial(self.engine.run, images, self.min_score)
        return len(images) * calls_per_second([call] * self.at_a_time, seconds)


def calls_per_second(calls: Sequence[Callable[[], object]], seconds: float) -> float:
    """How often all together run, each in a loop and a thread of its own, over so many seconds."""
    began = time.perf_counter()

    def loop(call: Callable[[], object]) -> int:
        done = 0
        while time.perf_counter() - began < seconds:
            call()
            done += 1
        return done

    with ThreadPoolExecutor(len(calls)) as loops:
        return sum(loops.map(loop, calls)) / (time.perf_counter() - began)


def load(name: ModelName, picture: RGB, seconds: float) -> Limit:
    """The engine as the settings have it, each batch size tried for so many seconds. The model must be in the store."""
    settings = get_settings()
    stored = store.find(name)
    if stored is None:
        raise RuntimeError(f"{name} is not in the model store: make import")
    task = TASKS[name](settings.models[name])
    item = task.prepare(Picture.of(picture, None), Options(), stored.card.input).items[0]
    min_score = task.least_score([item])
    engine, at_a_time = engine_choice.load(stored, settings, None), engine_choice.calls_at_a_time(settings, None)
    limit = Limit(engine, item["image"], at_a_time, min_score)
    sizes = batches.batch_sizes(settings.models[name].max_batch_size)
    limit.engine.warm_up([(size, *limit.image.shape) for size in sizes])
    limit.best = max(sizes, key=lambda size: limit.per_second(seconds, size))
    return limit
