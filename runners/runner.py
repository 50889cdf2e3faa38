"""What all runners share: their models' lives, the batching contract, one answer or failure per item."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar, cast

import bentoml

import engines
from engines import Engine, Shape, batches
from engines.deadline import Abandoned, Deadline
from engines.device import Gpu
from engines.errors import DeviceLost, OutOfMemory
from models import store
from models.catalogue import ModelName
from models.store import ModelCard, StoredModel, StoreError
from profiling import Profiler
from runners import bentoml_cures, shared_memory
from runners.contract import DeviceStatus, Failure, Item, Managed, Result, RunnerStatus, SentItem, Unreadable
from runners.residency import memory
from runners.residency import tensorrt as tensorrt_engines
from runners.residency.budget import Policy
from runners.residency.memory import GpuMemory
from runners.residency.residency import Residency
from runners.residency.resident import Loaded, ModelUnavailable, Resident
from runners.residency.tensorrt import TensorRtEngines
from settings import DetectorSettings, ModelSettings, Settings, get_settings

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only
Method = TypeVar("Method", bound=Callable[..., Any])

GPU_BUDGET_MB: Final = 1200.0  # the seed's, of the models; on its card is room for the CUDA context beside them
EXIT_DEVICE_LOST: Final = 70  # sysexits.h EX_SOFTWARE; only to be told apart in a log
_LAST_WORDS_S: Final = 1.5  # longer than between two heartbeats of the API
_MOST_ABANDONED: Final = 256  # ids that are kept: more than there are items on their way to a runner
_RUNNER_ENDS: Final[Failure] = {
    "error": "runner_unavailable",
    "message": "the runner has lost its device and is being restarted",
}


@dataclass(frozen=True)
class Network:
    """What a runner needs to know of a model beside its graph.

    interpret: one image's outputs, its item, the model card and settings → the result.
    warm_up_sizes: settings and the model card's input → height, width of usual inputs, the largest one first.
    min_score: an item and settings → the score up to which `interpret` passes a candidate over (see Engine.run).
    """

    name: ModelName
    interpret: Callable[[batches.Outputs, Item, ModelCard, ModelSettings], Result]
    warm_up_sizes: Callable[[ModelSettings, Mapping[str, Any]], Sequence[tuple[int, int]]]
    min_score: Callable[[Item, ModelSettings], float] = lambda *_: 0

    def least_score(self, items: Sequence[Item], settings: ModelSettings) -> float:
        """The `min_score` of a batch, in which each item may have its own."""
        return min((self.min_score(item, settings) for item in items), default=0)


def min_confidence(item: Item, settings: ModelSettings) -> float:
    """A detector's `min_score`: what the caller asks for, else the configuration."""
    return item.get("min_confidence", cast(DetectorSettings, settings).min_confidence)


def batchable(name: ModelName) -> Callable[[Method], Method]:
    """A BentoML API with adaptive batching, sized by the model's settings."""
    settings = get_settings()
    decorator = bentoml.api(
        batchable=True,
        max_batch_size=settings.models[name].max_batch_size,
        # BentoML drops what it expects to take longer, with a 503. The API's own timeout is the one that is meant.
        max_latency_ms=int(settings.limits.request_timeout_s * 1000) * 10,
    )

    def api(method: Method) -> Method:
        made: Any = decorator(method)
        # Said once: BentoML would make the output's whole JSON schema anew for each answer to find it out.
        made.output_spec.media_type = "application/json"
        return cast(Method, made)

    return api


@dataclass(frozen=True)
class _Run:
    """A call that computes. taken: when its batch came out of the queue, ns since the epoch."""

    name: ModelName
    loaded: Loaded
    taken: int
    alone: bool
    deadline: Deadline | None


class Runner:
    """Base of the runner services; runners/__init__.py composes them out of the mixins, one a model."""

    networks: ClassVar[tuple[Network, ...]]
    service: ClassVar[bentoml.Service[Any]]

    def __init__(self) -> None:
        settings = get_settings()
        self._settings = settings
        self._networks = {network.name: network for network in self.networks}
        engines.check_gpu(settings)  # again: losing the GPU may be what ended the runner before
        self._gpu = engines.take_gpu(settings)
        bentoml_cures.Dispatch.batches_at_a_time = engines.calls_at_a_time(settings, self._gpu)
        self._memory = memory.of(self._gpu, self._end)
        self._profiler = Profiler(settings.pyroscope, "runner")
        self._started = False
        self._abandoned: deque[str] = deque(maxlen=_MOST_ABANDONED)
        self._out_of_memory = 0
        self._fault: str | None = None
        self._tensorrt: TensorRtEngines | None = None
        budget_mb, by_default = settings.residency.budget_mb, GPU_BUDGET_MB if self._gpu else 0.0
        self._residency = Residency(
            tuple(self._networks),
            self._find,
            self._start,
            self._load,
            self._warm_up,
            self._memory,
            Policy(
                budget_mb=by_default if budget_mb == "auto" else budget_mb,
                min_residency_s=settings.residency.min_residency_s,
                idle_ttl_s={name: settings.models[name].idle_ttl_s for name in self._networks},
                pinned=frozenset(settings.preload),
                beside_context=budget_mb == "auto",
            ),
            self._build_engine,
            self._end,
        )
        for name, resident in self._residency.models.items():
            status = resident.status()
            if status["detail"] is not None:
                logger.warning("%s is %s: %s", name, status["state"], status["detail"])
        self._residency.refresh()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Stop what goes on beside the calls: engine builds and loading."""
        if self._tensorrt is not None:
            self._tensorrt.close()
        self._residency.close()

    def infer(
        self,
        name: ModelName,
        items: Sequence[SentItem | Item],
        *,
        alone: bool | None = None,
        deadline: Deadline | None = None,
    ) -> list[Result | Failure | Unreadable]:
        """One result or failure per item, in their order; loads the model where that has not happened.

        Items for which nobody waits any more are not computed. alone: see Engine.run; None = where it is one item.
        deadline: of all items, where they are of one request. Raises Abandoned where that was over before the end.
        """
        if self._fault is not None:
            return [_RUNNER_ENDS for _ in items]
        taken = time.time_ns()
        timeout = self._settings.limits.request_timeout_s if deadline is None else deadline.left_s
        try:
            with self._residency.models[name].lease(timeout) as loaded:
                arrived = [self._arrived(item) for item in items]
                readable = [cast(Item, item) for item in arrived if "image" in item]
                run = _Run(name, loaded, taken, len(items) == 1 if alone is None else alone, deadline)
                results = iter(self._run(run, readable))
                return [next(results) if "image" in item else item for item in arrived]
        except ModelUnavailable as error:
            return [Failure(error="model_unavailable", message=str(error)) for _ in items]
        except DeviceLost as error:
            self._end(error)
            return [_RUNNER_ENDS for _ in items]

    @bentoml.api(route="/load")
    def load(self, name: ModelName) -> Any:
        """Load a model for good → Managed, or Failure."""
        return self._manage(name, self._residency.load)

    @bentoml.api(route="/unload")
    def unload(self, name: ModelName) -> Any:
        """Take a model out of memory until it is asked for → Managed, or Failure."""
        return self._manage(name, self._residency.unload)

    def _manage(self, name: ModelName, change: Callable[[ModelName, float], None]) -> Managed | Failure:
        try:
            change(name, self._settings.limits.request_timeout_s)
        except ModelUnavailable as error:
            return Failure(error="model_unavailable", message=str(error))
        return Managed(model=self._residency.models[name].status())

    @bentoml.api(route="/abandon")
    async def abandon(self, ids: list[str]) -> None:
        """Nobody waits for these items any more: they are not computed unless that has begun."""
        self._abandoned.extend(ids)

    @bentoml.api(route="/state")
    async def state(self) -> dict[str, Any]:
        """`status`, at once, whatever inference is under way."""
        return dict(self.status())

    def status(self) -> RunnerStatus:
        """How the process and its models are.

        The heartbeat is also when a model that was imported meanwhile is noticed, and loaded if it is to be preloaded.
        """
        self._residency.refresh()
        return {
            "pid": os.getpid(),
            "device": _device_status(self._gpu),
            "memory": {
                "used_mb": round(self._memory.used_mb()),
                "budget_mb": round(self._residency.budget_mb) or None,
                "out_of_memory": self._out_of_memory,
            },
            "fault": self._fault,
            "models": {name: resident.status() for name, resident in self._residency.models.items()},
        }

    def _arrived(self, item: SentItem | Item) -> Item | Unreadable | Failure:
        if item.get("id") in self._abandoned or time.monotonic() >= item.get("expires", math.inf):
            return Failure(error="timeout", message="nobody waits for this item any more")
        if not isinstance(item["image"], dict):
            return cast(Item, item)
        try:
            return cast(Item, {**item, "image": shared_memory.find(item["image"])})
        except OSError as error:
            return {"unreadable": str(error)}

    def _run(self, run: _Run, items: Sequence[Item]) -> list[Result | Failure]:
        """One result or failure per item. Raises DeviceLost or Abandoned."""
        name, loaded = run.name, run.loaded
        began = time.time_ns()
        images = [item["image"] for item in items]
        settings = self._settings.models[name]
        try:
            with self._profiler.tagged(model=name, engine=loaded.engine.name):
                outputs = batches.run(
                    loaded.engine,
                    images,
                    settings.max_batch_size,
                    self._free_memory,
                    self._networks[name].least_score(items, settings),
                    alone=run.alone,
                    deadline=run.deadline,
                )
        except (DeviceLost, Abandoned):
            raise
        except Exception:
            if len(items) == 1:
                logger.exception("%s failed on the item %s", name, items[0].get("id", "without an id"))
                return [Failure(error="internal", message=f"{name} failed on this image")]
            logger.warning("%s failed on a batch of %d: trying its items one by one", name, len(items), exc_info=True)
            return [self._run(run, [item])[0] for item in items]
        ended = time.time_ns()
        results = []
        for output, item in zip(outputs, items, strict=True):
            result = self._interpret(name, loaded, output, item)
            if "error" not in result:
                result["timing"] = {
                    "taken": run.taken,
                    "loaded": began,
                    "forwarded": ended,
                    "interpreted": time.time_ns(),
                    "batch": len(items),
                    "engine": loaded.engine.name,
                }
            results.append(result)
        return results

    def _free_memory(self) -> None:
        self._out_of_memory += 1
        self._memory.give_back()

    def _end(self, error: DeviceLost) -> None:
        """End the process, which can do nothing on its device any more, so that it is started anew.

        A moment later, in which the API hears why: from the failures of this batch, or from the heartbeat.
        """
        if self._fault is None:
            self._fault = str(error)
            logger.critical("the runner ends, to be restarted: %s", error)
            threading.Timer(_LAST_WORDS_S, os._exit, (EXIT_DEVICE_LOST,)).start()

    def _start(self) -> None:
        if not self._started:
            with self._memory.recognising() if isinstance(self._memory, GpuMemory) else nullcontext():
                engines.start(self._settings, self._gpu)
            self._tensorrt = tensorrt_engines.find(self._settings, self._gpu)
            self._started = True

    def _build_engine(self, resident: Resident) -> None:
        loaded = resident.loaded
        if self._tensorrt is None or loaded is None or loaded.engine.name == "tensorrt":
            return
        if self._tensorrt.wants(loaded.stored):
            self._tensorrt.build(resident, self._residency.exchange)

    def _interpret(
        self, name: ModelName, loaded: Loaded, outputs: batches.Outputs | OutOfMemory, item: Item
    ) -> Result | Failure:
        if isinstance(outputs, OutOfMemory):
            return Failure(error="model_unavailable", message=f"the device is out of memory for {name} now")
        try:
            return self._networks[name].interpret(outputs, item, loaded.stored.card, self._settings.models[name])
        except Exception:
            logger.exception("the output of %s could not be interpreted", name)
            return Failure(error="internal", message=f"the output of {name} could not be interpreted")

    def _find(self, name: ModelName) -> StoredModel | None:
        """The version that the bento was built with, else the one imported last, else (trial only) a stand-in."""
        bento = self.service.bento
        pinned = pinned_versions(self.service)
        if name in pinned:
            # There in a container only; else the bento refers to BentoML's store.
            packed = Path(bento.path_of("models"))
            return store.find_version(name, pinned[name], packed=packed if packed.is_dir() else None)
        stored = store.find(name)
        if stored is None and self._settings.allow_untrained and bento is None:
            stored = store.find(name, untrained=True)
        return stored

    def _load(self, stored: StoredModel) -> Engine:
        return tensorrt_engines.load(self._tensorrt, stored, self._settings, self._gpu)

    def _warm_up(self, stored: StoredModel, engine: Engine) -> None:
        engine.warm_up(warm_up_shapes(self._networks[stored.card.name], stored.card, self._settings))


def warm_up_shapes(network: Network, card: ModelCard, settings: Settings) -> list[Shape]:
    """Every batch size at the largest input, and every usual input once."""
    model = settings.models[network.name]
    largest, *others = network.warm_up_sizes(model, card.input)
    shapes: list[Shape] = [(size, *largest, 3) for size in batches.batch_sizes(model.max_batch_size)]
    return shapes + [(1, *other, 3) for other in others]


def _device_status(gpu: Gpu | None) -> DeviceStatus:
    if gpu is None:
        return {"name": "CPU", "index": None, "memory_gb": None, "driver": None}
    memory_gb = None if gpu.memory_mb is None else round(gpu.memory_mb / 1000, 1)
    return {"name": gpu.name, "index": gpu.index, "memory_gb": memory_gb, "driver": gpu.driver}


def pinned_versions(service: bentoml.Service[Any]) -> dict[str, str]:
    """Model → version of those that the service's bento was built with; empty where it is served from a checkout."""
    return {model.tag.name: model.tag.version for model in service.bento.info.all_models} if service.bento else {}


def weights_attributes(names: Sequence[ModelName]) -> dict[str, bentoml.models.BentoModel]:
    """Class attributes that make `bentoml build` pack the models which are in the store; absent ones start degraded."""
    return {f"weights_of_{name}": bentoml.models.BentoModel(f"{name}:latest") for name in names if _is_stored(name)}


def _is_stored(name: ModelName) -> bool:
    try:
        return store.find(name) is not None
    except StoreError:
        return False  # the runner finds it out again and reports it: one damaged model must not stop the others
