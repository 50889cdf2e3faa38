"""The link from the API to a runner, as the rest of the API knows it, and what both kinds of links share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, Protocol, cast

from api.errors import ApiError
from api.recent import RecentBatches
from models.catalogue import ModelName
from models.state import ModelStatus, refusal
from runners.contract import Failure, RunnerStatus

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
