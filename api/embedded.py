"""The API's line to runners in its own process: no copies, no socket, and no process that could be gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, Protocol, cast

from api import metrics
from api.errors import ApiError
from engines.deadline import Deadline
from models.catalogue import ModelName
from models.state import ModelStatus, refusal
from runners.bentoml_cures import batch_size_of
from runners.contract import Failure, Managed, RunnerStatus, unsettled
from tasks.task import Item, Result

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

HEARTBEAT_S: Final = 1.0


class Link(Protocol):
    """The API's line to runners, wherever they are.

    status: as they said last, None while they are gone. settled: what is to be preloaded is loaded or given up.
    was_up: they were there once. restarts, last_fault: of their process.
    """

    name: str
    models: tuple[ModelName, ...]
    status: RunnerStatus | None
    settled: bool
    was_up: bool
    restarts: int
    last_fault: str | None

    def model(self, name: ModelName) -> ModelStatus:
        """What the runner says of a model that it can load. Raises ApiError: runner_unavailable, model_unavailable."""
        ...

    async def infer(self, name: ModelName, items: Sequence[Item], deadline: Deadline) -> list[Result]:
        """A model's results for the items of one request, in their order.

        Raises ApiError: runner_unavailable, model_unavailable, timeout or internal.
        """
        ...

    async def manage(self, action: Literal["load", "unload"], name: ModelName) -> ModelStatus:
        """Have a model loaded or unloaded, and wait. Raises ApiError: runner_unavailable or model_unavailable."""
        ...

    async def watch(self, on_beat: Callable[[], None]) -> None:
        """Ask for the status for ever, and call `on_beat` after each time."""
        ...


def usable(name: ModelName, status: ModelStatus) -> ModelStatus:
    """The status of a model that can be asked. Raises ApiError model_unavailable for another."""
    if status["input"] is None:
        raise ApiError("model_unavailable", refusal(name, status["state"], status["detail"]))
    return status


async def beat_safely(name: str, beat: Callable[[], Awaitable[None]], on_beat: Callable[[], None]) -> None:
    """Ask runners for their status, then call `on_beat`; what fails is logged."""
    try:
        await beat()
        on_beat()
    except Exception:  # whatever it was: a heartbeat that stopped would freeze /health
        logger.exception("the status of %s could not be read or published", name)


def unwrap(result: Any) -> Any:
    """What a runner gave back. Raises ApiError where that is a Failure."""
    if "error" in result:
        failure = cast(Failure, result)
        raise ApiError(failure["error"], failure["message"])
    return result


class Embedded(Protocol):
    """A runners.runner.Runner, as far as it is needed here."""

    def status(self) -> RunnerStatus: ...

    def infer(
        self, name: ModelName, items: Sequence[Item], *, alone: bool | None, deadline: Deadline | None
    ) -> Sequence[Any]: ...

    def load(self, name: ModelName) -> Any: ...

    def unload(self, name: ModelName) -> Any: ...


class EmbeddedLink:
    """Runners in this process. See Link."""

    def __init__(self, name: str, models: Sequence[ModelName], runner: Embedded, preload: Sequence[ModelName]) -> None:
        self.name = name
        self.models = tuple(models)
        self.was_up = True
        self.restarts = 0
        self.last_fault: str | None = None
        self._runner = runner
        self._preload = tuple(preload)
        self._counter = metrics.OUT_OF_MEMORY.labels(runner=name)  # at once: Prometheus has to see it at 0
        self._out_of_memory = 0
        status = runner.status()
        self.status: RunnerStatus | None = status
        self.settled = not unsettled(status, self._preload)

    def model(self, name: ModelName) -> ModelStatus:
        """See Link.model."""
        assert self.status is not None
        return usable(name, self.status["models"][name])

    def compute(
        self, name: ModelName, items: Sequence[Item], deadline: Deadline | None, *, alone: bool
    ) -> Sequence[Result | Failure]:
        """A result or failure for each item, on the calling thread. For deadline, alone, Abandoned see Engine.run."""
        batch_size_of(self.name, name).observe(len(items))
        return self._runner.infer(name, items, alone=alone, deadline=deadline)

    async def infer(self, name: ModelName, items: Sequence[Item], deadline: Deadline) -> list[Result]:
        """See Link.infer."""
        results = await asyncio.to_thread(self.compute, name, items, deadline, alone=True)
        return [unwrap(result) for result in results]

    async def manage(self, action: Literal["load", "unload"], name: ModelName) -> ModelStatus:
        """See Link.manage."""
        done: Managed = unwrap(await asyncio.to_thread(getattr(self._runner, action), name))
        await self._beat()  # /health knows it at once
        return done["model"]

    async def watch(self, on_beat: Callable[[], None]) -> None:
        """See Link.watch."""
        while True:
            await beat_safely(self.name, self._beat, on_beat)
            await asyncio.sleep(HEARTBEAT_S)

    async def _beat(self) -> None:
        status = await asyncio.to_thread(self._runner.status)
        self.status = status
        self._counter.inc(status["memory"]["out_of_memory"] - self._out_of_memory)
        self._out_of_memory = status["memory"]["out_of_memory"]
        self.settled |= not unsettled(status, self._preload)
