"""The link from the API to a runner process: calls, a heartbeat, and quick failure while the runner is down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import aiohttp
import psutil
from bentoml.exceptions import BentoMLException

from api import metrics
from api.errors import ApiError, internal_error
from api.link import HEARTBEAT_S, beat_safely, unwrap, usable
from api.recent import RecentBatches
from engines.deadline import Deadline
from models.catalogue import ModelName
from models.state import ModelStatus
from runners.contract import Failure, Managed, RunnerStatus, unsettled
from settings import Watchdog
from tasks.task import Item, Result

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

HEARTBEAT_DOWN_S: Final = 0.25  # while the runner is down, so that it serves again soon after its start
PROBE_TIMEOUT_S: Final = 2.0

# A call may meet an idle connection that the runner is just closing, even twice in a row.
ATTEMPTS: Final = 3
# BentoML allows 100 internal calls at a time. The rest is left to the heartbeat, unloading and abandoned items.
MOST_CALLS: Final = 90
# Errors of a call whose connection broke, before the answer or in the middle of it.
_BROKEN: Final = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)

Call = Callable[..., Any]


class RemoteLink:
    """The link to one runner process. See Link. `call(method, *args)` is BentoML's internal async call."""

    def __init__(
        self, name: str, models: Sequence[ModelName], call: Call, watchdog: Watchdog, preload: Sequence[ModelName] = ()
    ) -> None:
        self.name = name
        self.settled = False
        self.models = tuple(models)
        self.batches = {model: RecentBatches() for model in self.models}
        self.status: RunnerStatus | None = None
        self.last_status: RunnerStatus | None = None
        self.was_up = False
        self.restarts = 0
        self.last_fault: str | None = None  # time and reason of the last exit that the runner itself chose
        self._call = call
        self._telling: set[asyncio.Future[None]] = set()
        self._places = asyncio.Semaphore(MOST_CALLS)
        self._preload = tuple(preload)
        self._watchdog = watchdog
        self._fault_pid: int | None = None
        self._pid: int | None = None
        self._out_of_memory = 0  # the current process's count at the last heartbeat
        self._counter = metrics.OUT_OF_MEMORY.labels(runner=name)  # made at start: Prometheus has to see it at 0
        self._silent_s = 0.0
        self._checked = time.monotonic()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def watch(self, on_beat: Callable[[], None]) -> None:
        """See Link.watch."""
        while True:
            await beat_safely(self.name, self._beat, on_beat)
            await asyncio.sleep(HEARTBEAT_S if self.status else HEARTBEAT_DOWN_S)

    def model(self, name: ModelName) -> ModelStatus:
        """See Link.model."""
        if self.status is None:
            raise self._gone()
        return usable(name, self.status["models"][name])

    async def infer(self, name: ModelName, items: Sequence[Item], deadline: Deadline) -> list[Result]:
        """Return a model's results for the items of one request, in their order. They go in one call.

        Raises ApiError: runner_unavailable, model_unavailable, timeout or internal.
        """
        if self.status is None:
            raise self._gone()
        ids = [item.get("id") or uuid.uuid4().hex for item in items]
        own = [
            cast(Item, {**item, "id": id_, "expires": deadline.expires}) for item, id_ in zip(items, ids, strict=True)
        ]
        answered = False
        try:
            async with self._places:
                results = await self._results(name, own)
            self.batches[name].note(results)
            answered = True
        finally:
            if not answered:
                self._abandon(ids)
        if any(result.get("error") == "runner_unavailable" for result in results) and self.status is not None:
            await self._beat()  # the runner is about to exit: record why, and mark it as down at once
        return [unwrap(result) for result in results]

    async def manage(self, action: Literal["load", "unload"], name: ModelName) -> ModelStatus:
        """See Link.manage."""
        if self.status is None:
            raise self._gone()
        done: Managed = unwrap(await self._repeated(lambda: self._until_lost(action, name)))
        await self._beat()  # /health shows the change at once
        return done["model"]

    def _abandon(self, ids: Sequence[str]) -> None:
        """Tell the runner in the background that nobody waits for these items."""
        if self.status is None:
            return
        telling = asyncio.ensure_future(self._call("abandon", list(ids)))
        self._telling.add(telling)
        telling.add_done_callback(self._told)

    def _told(self, telling: asyncio.Future[None]) -> None:
        self._telling.discard(telling)
        if not telling.cancelled() and telling.exception() is not None:
            logger.info(
                "the runner %s could not be told of abandoned items and may compute them: %r",
                self.name,
                telling.exception(),
            )

    async def _results(self, name: ModelName, items: Sequence[Item]) -> list[Result | Failure]:
        try:
            results = await self._repeated(lambda: self._until_lost(name, items))
        except BentoMLException as error:
            logger.error("the runner %s refused a call of %s: %s", self.name, name, error)
            if error.error_code.value == 503:
                raise ApiError("runner_unavailable", "the runner takes no more work now") from None
            raise internal_error() from None
        if not isinstance(results, list) or len(results) != len(items):
            raise ApiError("internal", f"{name} did not give one result for each image")
        return results

    async def _repeated(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call, and repeat the call if its connection broke while the runner is still up.

        BentoML may reuse a connection that the runner is just closing as idle.
        """
        for _ in range(ATTEMPTS):
            before = self._pid
            try:
                return await call()
            except _BROKEN as error:
                if self.status is not None:
                    await self._beat()
                if self.status is None or self._pid != before:
                    break
                logger.info("a call to the runner %s will be repeated, as its connection broke: %r", self.name, error)
        raise self._gone()

    async def _until_lost(self, method: str, argument: object) -> Any:
        """Call, and fail as soon as the heartbeat finds the runner down.

        BentoML's call alone would hang until the runner has been respawned.
        """
        call = asyncio.ensure_future(self._call(method, argument))
        try:
            await asyncio.wait({call, self._lost}, return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                return call.result()
            raise self._gone()
        finally:
            call.cancel()

    async def _beat(self) -> None:
        if self.status is not None and not _alive(self._pid):
            self._down("its process died")
            return  # a probe would hang until BentoML has respawned the runner
        try:
            left_s = self._watchdog.silence_s - self._silence()
            async with asyncio.timeout(min(PROBE_TIMEOUT_S, left_s) if left_s > 0 else PROBE_TIMEOUT_S):
                status = cast(RunnerStatus, await self._call("state"))
        except Exception as error:  # noqa: BLE001 - an error that ended the heartbeat would freeze /health
            silent = self._silence()
            if not _alive(self._pid) or silent >= self._watchdog.silence_s:
                self._down(f"it has not answered for {silent:.1f} s ({error!r})")
            if silent >= self._watchdog.hung_s:
                self._end(silent)
            return
        self._silent_s, self._checked = 0, time.monotonic()
        self._up(status)

    def _silence(self) -> float:
        """Seconds of silence so far. A pause of this process, as in a frozen container, counts for little."""
        now = time.monotonic()
        self._silent_s += min(now - self._checked, HEARTBEAT_S + PROBE_TIMEOUT_S)
        self._checked = now
        return self._silent_s

    def _up(self, status: RunnerStatus) -> None:
        if status["pid"] != self._pid:
            if self._pid is not None:
                self._down("it has a new process")
                self.restarts += 1
            logger.info("the runner %s is up (process %d)", self.name, status["pid"])
            self._pid = status["pid"]
            self.settled = False
            # An earlier API process has already published the counts from before the first heartbeat.
            self._out_of_memory = status["memory"]["out_of_memory"]
        self._counter.inc(status["memory"]["out_of_memory"] - self._out_of_memory)
        self._out_of_memory = status["memory"]["out_of_memory"]
        if status["fault"] is not None:
            if self._fault_pid != status["pid"]:
                self._fault_pid = status["pid"]
                self.last_fault = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {status['fault']}"
            self._down(status["fault"])
            return
        if self._lost.done():
            self._lost = asyncio.get_running_loop().create_future()
        self.status = self.last_status = status
        self.was_up = True
        # Stays True for this process: a later reload of one model must not make the whole service unready.
        self.settled |= not unsettled(status, self._preload)

    def _down(self, reason: str) -> None:
        if self.status is not None:
            logger.error("the runner %s is down: %s", self.name, reason)
        self.status = None
        if not self._lost.done():
            self._lost.set_result(None)

    def _end(self, silent: float) -> None:
        """Kill a hung runner, unless its pid now belongs to a process that our supervisor did not start."""
        pid = self._pid
        if pid is None or not _is_sibling(pid):
            return
        logger.error(
            "the runner %s (process %d) has not answered for %.1f s: it is killed and restarted", self.name, pid, silent
        )
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _gone(self) -> ApiError:
        return ApiError("runner_unavailable", f"the runner {self.name} is not running; it is being restarted")


def _is_sibling(pid: int) -> bool:
    """Whether a process lives, is not this one, and was started by the same supervisor."""
    with contextlib.suppress(psutil.Error):
        return pid != os.getpid() and psutil.Process(pid).ppid() == os.getppid()
    return False


def _alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the pid now belongs to another user's process
        return False
    # A zombie still has its pid.
    with contextlib.suppress(OSError):
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
        return after_name.split()[0] != "Z"
    return True
