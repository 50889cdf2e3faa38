"""The link from the API to a runner in the API's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Literal, Protocol

from api import metrics
from api.errors import ApiError
from api.link import HEARTBEAT_S, beat_safely, unwrap, usable
from api.recent import RecentBatches
from engines.deadline import Deadline
from models.catalogue import ModelName
from models.state import ModelStatus
from runners.bentoml_cures import batch_size_of
from runners.contract import Failure, Managed, RunnerStatus, unsettled
from tasks.task import Item, Result


class Embedded(Protocol):
    """The part of runners.runner.Runner that this module uses."""

    def status(self) -> RunnerStatus: ...

    def infer(
        self, name: ModelName, items: Sequence[Item], *, alone: bool | None, deadline: Deadline | None
    ) -> Sequence[Any]: ...

    def load(self, name: ModelName) -> Any: ...

    def unload(self, name: ModelName) -> Any: ...


class EmbeddedLink:
    """The link to a runner in this process: no copies and no socket. See Link."""

    def __init__(self, name: str, models: Sequence[ModelName], runner: Embedded, preload: Sequence[ModelName]) -> None:
        self.name = name
        self.models = tuple(models)
        self.batches = {model: RecentBatches() for model in self.models}
        self.was_up = True
        self.restarts = 0
        self.last_fault: str | None = None
        self._runner = runner
        # Threads of its own: a load may take half a minute, and other calls need the loop's few.
        self._loading = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-loading")
        self._beating = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-heartbeat")
        self._preload = tuple(preload)
        self._counter = metrics.OUT_OF_MEMORY.labels(runner=name)  # made at start: Prometheus has to see it at 0
        # Made here, because the first requests of two models may ask for the one histogram at the same time.
        self._batch_sizes = {model: batch_size_of(name, model) for model in models}
        self._out_of_memory = 0
        self.when_lost: list[Callable[[ApiError], None]] = []  # called once if the process is about to end
        status = runner.status()
        self.status: RunnerStatus | None = status
        self.last_status: RunnerStatus | None = status
        self.settled = not unsettled(status, self._preload)

    def model(self, name: ModelName) -> ModelStatus:
        """See Link.model."""
        if self.status is None:
            raise _ends()
        return usable(name, self.status["models"][name])

    def compute(
        self, name: ModelName, items: Sequence[Item], deadline: Deadline | None, *, alone: bool
    ) -> Sequence[Result | Failure]:
        """Return a result or failure for each item, computed on the calling thread.

        deadline, alone, and the Abandoned that it raises: see Engine.run.
        """
        self._batch_sizes[name].observe(len(items))
        results = self._runner.infer(name, items, alone=alone, deadline=deadline)
        self.batches[name].note(results)
        return results

    async def manage(self, action: Literal["load", "unload"], name: ModelName) -> ModelStatus:
        """See Link.manage."""
        call = partial(copy_context().run, getattr(self._runner, action), name)
        done: Managed = unwrap(await asyncio.get_running_loop().run_in_executor(self._loading, call))
        await self._beat()  # /health shows the change at once
        return done["model"]

    async def watch(self, on_beat: Callable[[], None]) -> None:
        """See Link.watch."""
        while True:
            await beat_safely(self.name, self._beat, on_beat)
            await asyncio.sleep(HEARTBEAT_S)

    async def _beat(self) -> None:
        status = await asyncio.get_running_loop().run_in_executor(self._beating, self._runner.status)
        self.last_status = status
        if status["fault"] is not None:
            self._lose(status["fault"])
            return
        self.status = status
        self._counter.inc(status["memory"]["out_of_memory"] - self._out_of_memory)
        self._out_of_memory = status["memory"]["out_of_memory"]
        self.settled |= not unsettled(status, self._preload)

    def _lose(self, fault: str) -> None:
        self.status, self.last_fault = None, fault
        while self.when_lost:
            self.when_lost.pop()(_ends())


def _ends() -> ApiError:
    return ApiError("runner_unavailable", "an engine hangs; the service is being restarted")
