"""How fast is raw inference: the service's engine in a loop, on the service's inputs, without HTTP?"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from engines import batches
from engines.engine import Engine
from models.catalogue import ModelName
from models.store import require
from runners import engine_choice
from settings import get_settings
from tasks import TASKS
from tasks.picture import Picture
from tasks.task import Options
from vision.arrays import RGB


@dataclass
class RawInference:
    """A loaded engine and an input.

    image: (h, w, 3) uint8. at_a_time: concurrent calls, as in the service. min_confidence: see Engine.run.
    best: the batch size with the most images per second.
    """

    engine: Engine
    image: RGB
    at_a_time: int
    min_confidence: float
    best: int = 1

    def per_second(self, seconds: float, batch: int | None = None) -> float:
        """Images per second, measured over `seconds`, with the best batch size or with `batch`."""
        images = [self.image] * (batch or self.best)
        began = time.perf_counter()

        def loop(_: int) -> int:
            done = 0
            while time.perf_counter() - began < seconds:
                self.engine.run(images, self.min_confidence)
                done += len(images)
            return done

        with ThreadPoolExecutor(self.at_a_time) as loops:
            return sum(loops.map(loop, range(self.at_a_time))) / (time.perf_counter() - began)


def load(name: ModelName, picture: RGB, seconds: float) -> RawInference:
    """Load the engine of the settings, and find its best batch size; each is tried for `seconds`.

    The model must be in the store.
    """
    settings, stored = get_settings(), require(name)
    task = TASKS[name](settings.models[name])
    item = task.prepare(Picture.of(picture, None), Options(), stored.card.input).items[0]
    engine, at_a_time = engine_choice.load(stored, settings, None), engine_choice.calls_at_a_time(settings, None)
    raw = RawInference(engine, item["image"], at_a_time, task.min_confidence(item))
    sizes = batches.batch_sizes(settings.models[name].max_batch_size)
    raw.engine.warm_up([(size, *raw.image.shape) for size in sizes])
    raw.best = max(sizes, key=lambda size: raw.per_second(seconds, size))
    return raw
