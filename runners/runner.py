"""The base class of the runner services: it loads models, runs batches and returns one result or failure per item."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import bentoml

from engines import batches
from engines.deadline import Abandoned, Deadline
from engines.device import Gpu
from engines.errors import DeviceLost, OutOfMemory
from models.catalogue import ModelName
from runners import bentoml_cures, engine_choice
from runners.contract import DeviceStatus, Failure, Managed, RunnerStatus
from runners.loader import ModelLoader
from runners.profiling import Profiler
from runners.progress import Progress
from runners.residency import memory
from runners.residency.budget import Policy
from runners.residency.residency import Residency
from runners.residency.resident import Loaded, ModelUnavailable
from settings import get_settings
from tasks import TASKS, AnyTask
from tasks.task import Item, Result

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

GPU_BUDGET_MB: Final = 1200.0  # of the models, as the owner set it; the CUDA context comes on top
EXIT_DEVICE_LOST: Final = 70  # EX_SOFTWARE of sysexits.h; it only marks the cause in a log
_LAST_WORDS_S: Final = 1.5  # longer than the API's heartbeat interval
_MOST_ABANDONED: Final = 256  # kept ids: more than a runner has items at a time
_UNWANTED: Final[Failure] = {"error": "timeout", "message": "nobody waits for this item any more"}
_RUNNER_ENDS: Final[Failure] = {
    "error": "runner_unavailable",
    "message": "the runner is being restarted",
}


@dataclass(frozen=True)
class _Run:
    """One call of `infer`. taken: when its batch left the queue, in ns of time.monotonic_ns()."""

    name: ModelName
    loaded: Loaded
    taken: int
    alone: bool
    deadline: Deadline | None


class Runner:
    """Base class of the runner services. runners/__init__.py adds `names` and a batchable method for each name."""

    names: ClassVar[tuple[ModelName, ...]]
    service: ClassVar[bentoml.Service[Any]]

    def __init__(self) -> None:
        settings = get_settings()
        self._settings = settings
        engine_choice.check_gpu(settings)  # at each start: the runner before may have lost the GPU
        self._gpu = engine_choice.take_gpu(settings)
        bentoml_cures.Dispatch.batches_at_a_time = engine_choice.calls_at_a_time(settings, self._gpu)
        self._tasks: Mapping[ModelName, AnyTask] = {name: TASKS[name](settings.models[name]) for name in self.names}
        self._memory = memory.of(self._gpu, self._end)
        self._profiler = Profiler(settings.pyroscope, "runner")
        self._abandoned: deque[str] = deque(maxlen=_MOST_ABANDONED)
        self._out_of_memory = 0
        self._fault: str | None = None
        self._progress = Progress(settings.watchdog.hung_s, self._end_process)
        self._loader = ModelLoader(
            settings, self._tasks, self._gpu, self._memory, self.service.bento, self._end, self._progress
        )
        self._residency = Residency(self.names, self._loader, self._memory, self._policy())
        for name, resident in self._residency.models.items():
            status = resident.status()
            if status["detail"] is not None:
                logger.warning("%s is %s: %s", name, status["state"], status["detail"])
        self._residency.refresh()

    def _policy(self) -> Policy:
        budget_mb, by_default = self._settings.residency.budget_mb, GPU_BUDGET_MB if self._gpu else 0.0
        return Policy(
            budget_mb=by_default if budget_mb == "auto" else budget_mb,
            min_residency_s=self._settings.residency.min_residency_s,
            idle_ttl_s={name: task.settings.idle_ttl_s for name, task in self._tasks.items()},
            preloaded=frozenset(self._settings.preload),
            beside_context=budget_mb == "auto",
        )

    @bentoml.on_shutdown
    def close(self) -> None:
        """Stop background work: engine builds, loading and the watch over batches."""
        self._progress.close()
        self._loader.close()
        self._residency.close()

    def infer(
        self,
        name: ModelName,
        items: Sequence[Item],
        *,
        alone: bool | None = None,
        deadline: Deadline | None = None,
    ) -> list[Result | Failure]:
        """Return one result or failure per item, in order. Loads the model if necessary.

        Abandoned and expired items are not computed. alone: see Engine.run; None = true for a single item.
        deadline: of all items, if they belong to one request. Raises Abandoned if it is over before the end.
        """
        if self._fault is not None:
            return [_RUNNER_ENDS for _ in items]
        taken = time.monotonic_ns()
        timeout = self._settings.limits.request_timeout_s if deadline is None else deadline.left_s
        try:
            with self._residency.models[name].lease(timeout) as loaded:
                wanted = [self._is_wanted(item) for item in items]
                run = _Run(name, loaded, taken, len(items) == 1 if alone is None else alone, deadline)
                results = iter(
                    self._run(run, [item for item, is_wanted in zip(items, wanted, strict=True) if is_wanted])
                )
                return [next(results) if is_wanted else _UNWANTED for is_wanted in wanted]
        except ModelUnavailable as error:
            return [Failure(error="model_unavailable", message=str(error)) for _ in items]
        except DeviceLost as error:
            self._end(error)
            return [_RUNNER_ENDS for _ in items]

    @bentoml.api(route="/load")
    def load(self, name: ModelName) -> Any:
        """Load a model, and wait. Returns Managed, or Failure."""
        return self._manage(name, self._residency.load)

    @bentoml.api(route="/unload")
    def unload(self, name: ModelName) -> Any:
        """Unload a model until the next request for it, and wait. Returns Managed, or Failure."""
        return self._manage(name, self._residency.unload)

    def _manage(self, name: ModelName, change: Callable[[ModelName, float], None]) -> Managed | Failure:
        try:
            change(name, self._settings.limits.request_timeout_s)
        except ModelUnavailable as error:
            return Failure(error="model_unavailable", message=str(error))
        return Managed(model=self._residency.models[name].status())

    @bentoml.api(route="/abandon")
    async def abandon(self, ids: list[str]) -> None:
        """Drop these items, unless their computation has begun: nobody waits for them any more."""
        self._abandoned.extend(ids)

    @bentoml.api(route="/state")
    async def state(self) -> dict[str, Any]:
        """Return `status` at once, even while inference is under way."""
        return dict(self.status())

    def status(self) -> RunnerStatus:
        """The state of the process and its models.

        The API calls this as its heartbeat. Each call also finds newly imported models, and starts loading those of
        `preload`.
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

    def _is_wanted(self, item: Item) -> bool:
        return item.get("id") not in self._abandoned and time.monotonic() < item.get("expires", math.inf)

    def _run(self, run: _Run, items: Sequence[Item]) -> list[Result | Failure]:
        """Return one result or failure per item. Raises DeviceLost or Abandoned."""
        if not items:
            return []
        name, loaded = run.name, run.loaded
        began = time.monotonic_ns()
        images = [item["image"] for item in items]
        task = self._tasks[name]
        try:
            with (
                self._progress.of(name, len(images)),
                self._profiler.tagged(model=name, engine=loaded.engine.name),
            ):
                outputs = batches.run(
                    loaded.engine,
                    images,
                    task.settings.max_batch_size,
                    self._free_memory,
                    task.least_confidence(items),
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
        ended = time.monotonic_ns()
        results = []
        for output, item in zip(outputs, items, strict=True):
            result = self._interpret(name, loaded, output, item)
            if "error" not in result:
                result["timing"] = {
                    "taken": run.taken,
                    "loaded": began,
                    "forwarded": ended,
                    "interpreted": time.monotonic_ns(),
                    "batch": len(items),
                    "engine": loaded.engine.name,
                }
            results.append(result)
        return results

    def _free_memory(self) -> None:
        self._out_of_memory += 1
        self._residency.free_memory()

    def _end(self, error: DeviceLost) -> None:
        self._end_process(f"the device is lost: {error}")

    def _end_process(self, fault: str) -> None:
        """End the process, so that it is restarted: its device refuses all work, or hangs.

        It ends after a short delay. Until then the API learns the reason from this batch's failures or the heartbeat.
        """
        if self._fault is None:
            self._fault = fault
            logger.critical("this process ends and is restarted: %s", fault)
            threading.Timer(_LAST_WORDS_S, os._exit, (EXIT_DEVICE_LOST,)).start()

    def _interpret(
        self, name: ModelName, loaded: Loaded, outputs: batches.Outputs | OutOfMemory, item: Item
    ) -> Result | Failure:
        if isinstance(outputs, OutOfMemory):
            return Failure(error="model_unavailable", message=f"the device is out of memory for {name} now")
        try:
            result: Result = self._tasks[name].interpret(outputs, item, loaded.stored.card)
            return result
        except Exception:
            logger.exception("the output of %s could not be interpreted", name)
            return Failure(error="internal", message=f"the output of {name} could not be interpreted")


def _device_status(gpu: Gpu | None) -> DeviceStatus:
    if gpu is None:
        return {"name": "CPU", "index": None, "memory_gb": None, "driver": None}
    memory_gb = None if gpu.memory_mb is None else round(gpu.memory_mb / 1000, 1)
    return {"name": gpu.name, "index": gpu.index, "memory_gb": memory_gb, "driver": gpu.driver}
