"""Gives CUDA graphs the memory that the models leave of the budget, and takes it back first."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

from engines.engine import Engine, Graphed
from models.catalogue import ModelName
from runners.residency.memory import Memory
from runners.residency.resident import Resident

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only


class Graphs:
    """The CUDA graphs of a process's models. Used only on the residency's thread, but for `give_back`.

    They are captured in the models' order, so that the same models always get the same graphs.
    """

    def __init__(self, models: Mapping[ModelName, Resident], memory: Memory, limit_mb: Callable[[], float]) -> None:
        """limit_mb: the memory that the whole process may use; 0 = no limit."""
        self._models = models
        self._memory = memory
        self._limit_mb = limit_mb
        self._told: dict[ModelName, tuple[Engine | None, int]] = {}  # what the log last said of each model

    def capture(self, coming: Resident | None = None, engine: Engine | None = None) -> None:
        """Capture the graphs that fit. Ends as soon as another model is loading; its load ends with a capture.

        coming, engine: a model that is loaded but does not serve yet.
        """
        for name, model in self._models.items():
            if any(other.is_loading for other in self._models.values() if other is not coming):
                return
            graphed = engine if model is coming else _engine(model)
            if not isinstance(graphed, Graphed):
                continue
            kept = graphed.capture(self._room_mb)
            if kept and self._told.get(name) != (graphed, kept):
                self._told[name] = (graphed, kept)
                room_mb = self._room_mb()
                left = "there is no budget" if room_mb == math.inf else f"{room_mb:.0f} MB of the budget are left"
                logger.info("%s has %d CUDA graphs; %s", name, kept, left)

    def make_room(self, wanted_mb: Callable[[], float]) -> None:
        """Free graphs until `wanted_mb()` is within the budget or none is left."""
        limit_mb = self._limit_mb()
        if not limit_mb or wanted_mb() <= limit_mb:
            return
        self._memory.give_back()  # cached memory does not count
        for model in reversed(list(self._models.values())):
            if wanted_mb() <= limit_mb:
                return
            if self._dropped(model):
                self._memory.give_back()

    def give_back(self) -> bool:
        """Free all graphs. Returns whether there were any. May be called on any thread."""
        had = [self._dropped(model) for model in self._models.values()]
        if any(had):
            self._memory.give_back()
        return any(had)

    def _dropped(self, model: Resident) -> bool:
        """Drop a model's graphs. Returns whether there were any."""
        engine = _engine(model)
        if not isinstance(engine, Graphed) or not engine.give_back():
            return False
        self._told.pop(model.name, None)
        logger.info("%s freed its CUDA graphs to make room", model.name)
        return True

    def _room_mb(self) -> float:
        limit_mb = self._limit_mb()
        if not limit_mb:
            return math.inf
        if self._memory.used_mb() > limit_mb:
            self._memory.trim()
        return limit_mb - self._memory.used_mb()


def _engine(model: Resident) -> Engine | None:
    loaded = model.loaded
    return loaded.engine if loaded else None
