"""The requests to one model: who is admitted, who waits, and who is worked on."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

from api.errors import ApiError
from models.catalogue import ModelName

T = TypeVar("T")

_WEIGHT: Final = 0.2  # of the last measurement in a mean
# Of the time that a request has: what it is expected to take may be as much. The rest is for what nobody foresees.
_SHARE: Final = 0.8


class ModelQueue:
    """First come, first served: `width` requests are worked on at a time, the others wait. For one event loop.

    A request is admitted where it is expected to be answered in time. That is measured: how long one takes, and how
    much time passes from one answer to the next while others wait.
    """

    def __init__(self, name: ModelName, width: int, threads: Executor, prompt: Executor | None = None) -> None:
        """threads: where requests are worked on. prompt: where one is that finds nobody else here; None: there, too."""
        self._name = name
        self._free = width
        self._threads = threads
        self._prompt = prompt or threads
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._working: dict[Place, float] = {}  # since when
        self._takes_s = 0.0
        self._between_s: float | None = None
        self._last_end: float | None = None  # while others waited ever since

    @property
    def expected_s(self) -> float:
        """Seconds until a request that comes now is expected to be answered."""
        oldest = min(self._working.values(), default=math.inf)
        takes = max(self._takes_s, time.monotonic() - oldest) if self._working else self._takes_s
        if self._free:
            return takes
        between = takes if self._between_s is None else self._between_s
        return between * (len(self._waiting) + 1) + takes

    def check(self, left_s: float) -> None:
        """Raises ApiError `overloaded` where a request with so many seconds left would not be answered in time."""
        late_s = self.expected_s - left_s * _SHARE
        if late_s > 0 and not self._free:
            raise ApiError(
                "overloaded",
                f"{len(self._waiting)} requests to {self._name} wait already: an answer would take too long",
                retry_after_s=math.ceil(late_s),
            )

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A place where a request is worked on, for as long as the block and the work that it began run."""
        alone = not self._working and not self._waiting
        if self._free:
            self._free -= 1
        else:
            await self._wait()
        place = Place(self, self._prompt if alone else self._threads, alone=alone)
        self._working[place] = time.monotonic()
        try:
            yield place
        finally:
            place.leave()

    async def _wait(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.done() and not turn.cancelled():  # its turn had come
                self._next()
            raise

    def end(self, place: Place, *, answered: bool) -> None:
        """A place is free. answered: it was used for a whole answer, which says how long one takes."""
        now = time.monotonic()
        took = now - self._working.pop(place)
        if answered:
            self._takes_s = took if not self._takes_s else (1 - _WEIGHT) * self._takes_s + _WEIGHT * took
            if self._last_end is not None:
                between = now - self._last_end
                mean = between if self._between_s is None else self._between_s
                self._between_s = (1 - _WEIGHT) * mean + _WEIGHT * between
        self._last_end = now if self._waiting else None
        self._next()

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Place:
    """Where one request is worked on. alone: nobody else was in the queue when it came."""

    def __init__(self, queue: ModelQueue, threads: Executor, *, alone: bool) -> None:
        self.alone = alone
        self.answered = False
        self._queue = queue
        self._threads = threads
        self._work: Future[Any] | None = None

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on a thread. Where the task is cancelled, the place stays taken until the thread returns."""
        call = partial(copy_context().run, function, *arguments)  # the request's id and span are current there, too
        self._work = self._threads.submit(call)
        return await asyncio.wrap_future(self._work)

    def leave(self) -> None:
        """Free the place, now or when the thread has ended."""
        if self._work is None or self._work.done():
            self._queue.end(self, answered=self.answered)
            return
        loop = asyncio.get_running_loop()
        self._work.add_done_callback(
            lambda _: loop.call_soon_threadsafe(partial(self._queue.end, self, answered=False))
        )
