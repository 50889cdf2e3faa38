"""The link from the API to a runner: its protocol, and the one to a runner in the API's own process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, Protocol, cast

from api import metrics
from api.errors import ApiError
from api.recent import RecentBatches
from engines.deadline import Deadline
from models.catalogue import ModelName
from models.state import ModelStatus, refusal
from runners.bentoml_cures import batch_size_of
from runners.contract import Failure, Managed, RunnerStatus, unsettled
from tasks.task import Item, Result

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

HEARTBEAT_S: Final = 1.0


class Link(Protocol):
    """The link from the API to one runner, embedded or in a process of its own.

    status: as of the last heartbeat, None while the runner is down. last_status: the same, kept while the runner is
    down; None before the first. settled: every model to preload is loaded or has failed. was_up: the runner has been up
    at least once. restarts, last_fault: of the runner's process.
    """

    name: str
    models: tuple[ModelName, ...]
    batches: dict[ModelName, RecentBatches]
    status: RunnerStatus | None
    last_status: RunnerStatus | None
    settled: bool
    was_up: bool
    restarts: int
    last_fault: str | None

    def model(self, name: ModelName) -> ModelStatus:
        """Return the status of a model that can serve. Raises ApiError: runner_unavailable or model_unavailable."""
        ...

    async def manage(self, action: Literal["load", "unload"], name: ModelName) -> ModelStatus:
        """Load or unload a model, and wait for it. Raises ApiError: runner_unavailable or model_unavailable."""
        ...

    async def watch(self, on_beat: Callable[[], None]) -> None:
        """Run the heartbeat until cancelled: read the status, then call `on_beat`."""
        ...


def usable(name: ModelName, status: ModelStatus) -> ModelStatus:
    """Return the status of a model that can serve. Raises ApiError model_unavailable for any other."""
    if status["input"] is None:
        raise ApiError("model_unavailable", refusal(name, status["state"], status["detail"]))
    return status


async def beat_safely(name: str, beat: Callable[[], Awaitable[None]], on_beat: Callable[[], None]) -> None:
    """Await one heartbeat, then call `on_beat`. Any error is logged, not raised."""
    try:
        await beat()
        on_beat()
    except Exception:  # an error that ended the heartbeat would freeze /health
        logger.exception("the heartbeat of the runner %s failed; /health shows the last known state", name)


def unwrap(result: Any) -> Any:
    """Return a runner's result. Raises ApiError if it is a Failure."""
    if "error" in result:
        failure = cast(Failure, result)
        raise ApiError(failure["error"], failure["message"])
    return result


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
        done: Managed = unwrap(await asyncio.to_thread(getattr(self._runner, action), name))
        await self._beat()  # /health shows the change at once
        return done["model"]

    async def watch(self, on_beat: Callable[[], None]) -> None:
        """See Link.watch."""
        while True:
            await beat_safely(self.name, self._beat, on_beat)
            await asyncio.sleep(HEARTBEAT_S)

    async def _beat(self) -> None:
        status = await asyncio.to_thread(self._runner.status)
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
