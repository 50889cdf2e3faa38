"""Finds a model's version in the store, loads it into an engine and warms it up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import bentoml

from engines import batches
from engines.device import Gpu
from engines.engine import Engine, Shape
from engines.errors import DeviceLost
from models import store
from models.card import ModelCard
from models.catalogue import ModelName
from models.store import StoredModel
from runners import engine_choice
from runners.progress import Progress
from runners.residency import tensorrt
from runners.residency.loading import EngineSwap
from runners.residency.memory import GpuMemory, Memory
from runners.residency.resident import Resident
from runners.residency.tensorrt import TensorRtEngines
from settings import Settings
from tasks import AnyTask


class ModelLoader:
    """See runners.residency.residency.Loader."""

    def __init__(
        self,
        settings: Settings,
        tasks: Mapping[ModelName, AnyTask],
        gpu: Gpu | None,
        memory: Memory,
        bento: bentoml.Bento | None,
        on_device_lost: Callable[[DeviceLost], None],
        progress: Progress | None = None,
    ) -> None:
        """bento: the one that packs the service; None if the service runs from a checkout.

        progress: is told how long warm-ups take.
        """
        self._settings = settings
        self._tasks = tasks
        self._gpu = gpu
        self._memory = memory
        self._bento = bento
        self.on_device_lost = on_device_lost
        self._progress = progress
        self._started = False
        self._tensorrt: TensorRtEngines | None = None

    def close(self) -> None:
        """Stop engine builds."""
        if self._tensorrt is not None:
            self._tensorrt.close()

    def find(self, name: ModelName) -> StoredModel | None:
        """The model's version: of the bento, else the last imported one, else (in a trial) an untrained stand-in.

        None if there is none. Raises StoreError.
        """
        pinned = pinned_versions(self._bento)
        if self._bento is not None and name in pinned:
            # Only in a container the bento has the files; elsewhere it refers to BentoML's store.
            packed = Path(self._bento.path_of("models"))
            return store.find_version(name, pinned[name], packed=packed if packed.is_dir() else None)
        stored = store.find(name)
        if stored is None and self._settings.allow_untrained and self._bento is None:
            stored = store.find(name, untrained=True)
        return stored

    def start(self) -> None:
        """See Loader.start."""
        if not self._started:
            with self._memory.recognising() if isinstance(self._memory, GpuMemory) else nullcontext():
                engine_choice.start(self._settings, self._gpu)
            self._tensorrt = tensorrt.find(self._settings, self._gpu)
            self._started = True

    def load(self, stored: StoredModel) -> Engine:
        """Load a cached TensorRT engine if the model wants one and it exists; else as engine_choice.load."""
        built = self._tensorrt
        engine = built.load(stored) if built is not None and built.wants(stored) else None
        return engine or engine_choice.load(stored, self._settings, self._gpu)

    def warm_up(self, stored: StoredModel, engine: Engine) -> None:
        """See Loader.warm_up."""
        shapes = warm_up_shapes(self._tasks[stored.card.name], stored.card)
        count = sum(count for count, *_ in shapes)
        with self._progress.measured(stored.card.name, count) if self._progress else nullcontext():
            engine.warm_up(shapes)

    def on_ready(self, resident: Resident, swap: Callable[[Resident, EngineSwap], None]) -> None:
        """Start a TensorRT build if the model wants such an engine and has none."""
        loaded = resident.loaded
        if self._tensorrt is None or loaded is None or loaded.engine.name == "tensorrt":
            return
        if self._tensorrt.wants(loaded.stored):
            self._tensorrt.build(resident, swap)


def warm_up_shapes(task: AnyTask, card: ModelCard) -> list[Shape]:
    """Shapes (n, h, w, 3) to warm up: every batch size at the largest input, and each other usual input once."""
    largest, *others = task.warm_up_sizes(card.input)
    shapes: list[Shape] = [(size, *largest, 3) for size in batches.batch_sizes(task.settings.max_batch_size)]
    return shapes + [(1, *other, 3) for other in others]


def pinned_versions(bento: Any) -> dict[str, str]:
    """Model name → version in a bento; empty without a bento."""
    return {model.tag.name: model.tag.version for model in bento.info.all_models} if bento else {}
