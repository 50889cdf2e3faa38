"""Measures models briefly, one after the other in one process, as the service loads and runs them."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from engines.device import Gpu
from models.catalogue import CATALOGUE, ModelName
from models.store import StoredModel
from runners.loader import ModelLoader
from runners.residency import memory
from settings import Settings
from tasks import TASKS
from tasks.pipeline import Pipeline, read

_PASSES: Final = 5
_SECONDS: Final = 1.0  # a slow model gets fewer passes


@dataclass(frozen=True)
class Measured:
    """ms: median time from the encoded picture to the answer. memory_mb: measured growth."""

    ms: float
    engine: str
    precision: str
    memory_mb: float

    def __str__(self) -> str:
        return f"{self.ms:.0f} ms by {self.engine} in {self.precision}, {self.memory_mb:.0f} MB"


class Measuring:
    """Loads models and keeps them, as the service does, until the time is over."""

    def __init__(self, settings: Settings, gpu: Gpu | None, picture: Path, until: float) -> None:
        """gpu: that computes; None = the CPU. until: by time.monotonic()."""
        self.gpu = gpu
        self._until = until
        self._picture = picture
        self._tasks = {name: TASKS[name](settings.models[name]) for name in CATALOGUE}
        self._memory = memory.of(gpu, lambda _: None)
        self._loader = ModelLoader(settings, self._tasks, gpu, self._memory, None, lambda _: None)
        self._growth_mb: dict[ModelName, float] = {}

    @property
    def models_mb(self) -> float:
        """Memory of all measured models, in MB."""
        return sum(self._growth_mb.values())

    @property
    def process_mb(self) -> float:
        """Memory of this process on its device, in MB, with its libraries and, on a GPU, the CUDA context."""
        return psutil.Process().memory_info().rss / 1e6 if self.gpu is None else self._memory.used_mb()

    def measure(self, stored: StoredModel) -> Measured | None:
        """Load and measure a model; None if the time is over. Raises EngineError, or the engine's own error."""
        if time.monotonic() > self._until:
            return None
        self._loader.start()
        name, before_mb = stored.card.name, memory.held_mb(self._memory)
        engine = self._loader.load(stored)
        pipeline = Pipeline(self._tasks[name], stored.card, engine)
        pipeline.run([read(self._picture)])
        seconds: list[float] = []
        began = time.perf_counter()
        while len(seconds) < _PASSES and (not seconds or time.perf_counter() - began < _SECONDS):
            at = time.perf_counter()
            pipeline.run([read(self._picture)])
            seconds.append(time.perf_counter() - at)
        self._growth_mb[name] = max(0.0, memory.held_mb(self._memory) - before_mb)
        return Measured(statistics.median(seconds) * 1000, engine.name, engine.precision, self._growth_mb[name])
