"""What all runners share: their models' lives, the batching contract, one answer or failure per item."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import bentoml
import numpy as np

from models import store
from models.catalogue import ModelName
from models.store import ModelCard, StoredModel, StoreError
from runners import batches, device, engines
from runners.contract import Failure, Item, Result, RunnerStatus
from runners.engines import Engine
from runners.resident import Loaded, ModelUnavailable, Resident
from settings import ModelSettings, get_settings

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only
Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Network:
    """What a runner needs to know of a model beside its graph.

    interpret: one image's outputs, its item, the model card and settings → the result.
    warm_up_sizes: settings → height, width of usual inputs, the largest one first.
    """

    name: ModelName
    interpret: Callable[[batches.Outputs, Item, ModelCard, ModelSettings], Result]
    warm_up_sizes: Callable[[ModelSettings], Sequence[tuple[int, int]]]


def batchable(name: ModelName) -> Callable[[Method], Method]:
    """A BentoML API with adaptive batching, sized by the model's settings."""
    settings = get_settings()
    decorator: Callable[[Method], Method] = bentoml.api(
        batchable=True,
        max_batch_size=settings.models[name].max_batch_size,
        # BentoML drops what it expects to take longer, with a 503. The API's own timeout is the one that is meant.
        max_latency_ms=int(settings.limits.request_timeout_s * 1000) * 10,
    )
    return decorator


class Runner:
    """Base of the runner services; runners/__init__.py composes them out of the mixins, one a model."""

    networks: ClassVar[tuple[Network, ...]]
    service: ClassVar[bentoml.Service[Any]]

    def __init__(self) -> None:
        settings = get_settings()
        self._settings = settings
        self._device = device.choose(settings.device.gpu)
        logger.info("computing on %s", self._device.name)
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._networks = {network.name: network for network in self.networks}
        self._residents = {
            name: Resident(name, partial(self._find, name), self._load, self._loader) for name in self._networks
        }
        for name, resident in self._residents.items():
            status = resident.status()
            if status["detail"] is not None:
                logger.warning("%s is %s: %s", name, status["state"], status["detail"])
            if name in settings.preload:
                resident.start_loading()

    def infer(self, name: ModelName, items: Sequence[Item]) -> list[Result | Failure]:
        """One result or failure per item, in their order; loads the model where that has not happened."""
        try:
            loaded = self._residents[name].wait(self._settings.limits.request_timeout_s)
        except ModelUnavailable as error:
            return [Failure(error="model_unavailable", message=str(error)) for _ in items]
        try:
            images = [item["image"] for item in items]
            outputs = batches.run(loaded.engine, images, self._settings.models[name].max_batch_size)
        except Exception:
            if len(items) == 1:
                logger.exception("%s failed", name)
                return [Failure(error="internal", message=f"{name} failed on this image")]
            logger.warning("%s failed on a batch of %d: trying its items one by one", name, len(items), exc_info=True)
            return [self.infer(name, [item])[0] for item in items]
        return [self._interpret(name, loaded, output, item) for output, item in zip(outputs, items, strict=True)]

    @bentoml.api(route="/state")
    async def state(self) -> dict[str, Any]:
        """How the process and its models are; answers at once, whatever inference is under way.

        The heartbeat is also when a model that was imported meanwhile is noticed, and loaded if it is to be preloaded.
        """
        for name, resident in self._residents.items():
            resident.look_again()
            if name in self._settings.preload:
                resident.start_loading()
        status: RunnerStatus = {
            "pid": os.getpid(),
            "gpu": self._device.name if self._device.cuda else None,
            "gpu_memory_used_gb": self._device.memory_used_gb(),
            "models": {name: resident.status() for name, resident in self._residents.items()},
        }
        return dict(status)

    def _interpret(self, name: ModelName, loaded: Loaded, outputs: batches.Outputs, item: Item) -> Result | Failure:
        try:
            return self._networks[name].interpret(outputs, item, loaded.stored.card, self._settings.models[name])
        except Exception:
            logger.exception("the output of %s could not be interpreted", name)
            return Failure(error="internal", message=f"the output of {name} could not be interpreted")

    def _find(self, name: ModelName) -> StoredModel | None:
        """The version that the bento was built with, else the one imported last, else (trial only) a stand-in."""
        bento = self.service.bento
        pinned = {model.tag.name: model.tag.version for model in bento.info.all_models} if bento else {}
        if name in pinned:
            return store.find_version(name, pinned[name])
        stored = store.find(name)
        if stored is None and self._settings.allow_untrained and bento is None:
            stored = store.find(name, untrained=True)
        return stored

    def _load(self, stored: StoredModel) -> Engine:
        """Load and run every batch size at the largest input and every usual input once: first calls are slow."""
        engine = engines.load(stored, self._settings, self._device)
        name = stored.card.name
        settings = self._settings.models[name]
        largest, *others = self._networks[name].warm_up_sizes(settings)
        shapes = [(size, *largest) for size in batches.batch_sizes(settings.max_batch_size)]
        shapes += [(1, *other) for other in others]
        for shape in shapes:
            engine.run(np.zeros((*shape, 3), dtype=np.uint8))
        return engine


def weights_attributes(names: Sequence[ModelName]) -> dict[str, bentoml.models.BentoModel]:
    """Class attributes that make `bentoml build` pack the models which are in the store; absent ones start degraded."""
    return {f"weights_of_{name}": bentoml.models.BentoModel(f"{name}:latest") for name in names if _is_stored(name)}


def _is_stored(name: ModelName) -> bool:
    try:
        return store.find(name) is not None
    except StoreError:
        return False  # the runner finds it out again and reports it: one damaged model must not stop the others
