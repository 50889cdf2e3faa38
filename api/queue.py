"""The queue of one model's requests: admits them, lets them wait, and starts work on them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypedDict, TypeVar

from api.errors import ApiError
from engines.deadline import Deadline
from models.catalogue import ModelName

W = TypeVar("W")
R = TypeVar("R")
Outcomes = Sequence[R | Exception]  # one for each request, in order
Start = Callable[[Sequence[W], bool], "asyncio.Future[Outcomes[R]]"]

_WEIGHT: Final = 0.2  # of the last measurement in a running mean
# Before averaging, the old mean is cut to this multiple of the new measurement. So one load or pause is soon forgotten.
_MOST_TIMES: Final = 3.0
# A request is admitted if its expected time is at most this share of its remaining time.
_SHARE: Final = 0.5
# A waiting request is refused if its expected time exceeds this share of its remaining time. The rest is a margin,
# because half of the requests take longer than expected.
_SHARE_WAITING: Final = 0.8


class QueueState(TypedDict):
    """A queue's requests by number. expected_ms: until the answer of a request that arrives now; None if unmeasured."""

    waiting: int
    in_progress: int
    expected_ms: float | None


@dataclass(eq=False)
class _Waiting(Generic[W, R]):
    work: W
    deadline: Deadline
    outcome: asyncio.Future[R]


@dataclass(eq=False)
class _Group(Generic[W, R]):
    """Requests that are processed together."""

    members: Sequence[_Waiting[W, R]]
    began: float


class ModelQueue(Generic[W, R]):
    """Processes up to `width` groups of requests at a time, first come, first served. For one event loop.

    A group takes the waiting requests when a place becomes free, at most `most` of them; no request waits for a group
    to fill. A request is admitted if its answer is expected in time. The estimate rests on two measurements: the time
    that a group takes, and the time from one answer to the next while requests wait.
    """

    def __init__(self, name: ModelName, width: int, start: Start[W, R], most: int = 1) -> None:
        """start: begins to process a group; its second argument says if the queue was idle. most: size of a group."""
        self._name = name
        self._width = self._free = width
        self._start = start
        self._most = most
        self._waiting: deque[_Waiting[W, R]] = deque()
        self._working: dict[_Group[W, R], asyncio.Future[Outcomes[R]]] = {}  # oldest first
        self._takes_s = 0.0
        self._between_s: float | None = None
        self._last_end: float | None = None  # None if no request waited at the last end
        self._closed: ApiError | None = None

    def expected_s(self, count: int = 1) -> float:
        """Return the expected seconds until the last answer if `count` more requests arrive now."""
        takes = self._takes_s
        if self._working:
            takes = max(takes, time.monotonic() - next(iter(self._working)).began)
        waiting = len(self._waiting) + count - self._free
        if waiting <= 0:
            return takes
        # Answers are never further apart than a group takes.
        between = takes / self._width if self._between_s is None else min(self._between_s, takes)
        return between * waiting + takes

    @property
    def state(self) -> QueueState:
        """The queue as it is now."""
        return {
            "waiting": len(self._waiting),
            "in_progress": sum(len(group.members) for group in self._working),
            "expected_ms": round(self.expected_s() * 1000, 1) if self._takes_s else None,
        }

    def check(self, left_s: float, count: int = 1) -> None:
        """Raises ApiError `overloaded` if `count` requests with `left_s` seconds left would probably be late.

        An idle queue takes them all: waiting would not help.
        """
        if not self._working and not self._waiting:
            return
        late_s = self.expected_s(count) - left_s * _SHARE
        if late_s > 0 and count > self._free:
            raise self._overloaded(late_s)

    async def run(self, work: W, deadline: Deadline) -> R:
        """Queue a request and wait for its outcome. A cancelled task leaves the queue at once.

        Raises ApiError: `overloaded` as soon as the answer is expected to be late, or that of `close`.
        """
        if self._closed is not None:
            raise self._closed
        own: _Waiting[W, R] = _Waiting(work, deadline, asyncio.get_running_loop().create_future())
        self._waiting.append(own)
        self._begin(alone=len(self._waiting) == 1 and not self._working)
        try:
            return await own.outcome
        finally:
            if own in self._waiting:  # the task was cancelled
                self._waiting.remove(own)

    def close(self, error: ApiError) -> None:
        """Give an error to all requests, those to come included: nobody will answer them."""
        self._closed = error
        members = [*self._waiting, *(member for group in self._working for member in group.members)]
        self._waiting.clear()
        for member in members:
            if not member.outcome.done():
                member.outcome.set_exception(error)

    def _begin(self, *, alone: bool = False) -> None:
        while self._free and self._waiting:
            members = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            group = _Group(members, time.monotonic())
            self._free -= 1
            future = self._started(group, alone)
            self._working[group] = future
            future.add_done_callback(partial(self._end, group))

    def _started(self, group: _Group[W, R], alone: bool) -> asyncio.Future[Outcomes[R]]:
        """Start work on a group. An error of the start, such as no more threads, becomes the group's outcome."""
        try:
            return self._start([member.work for member in group.members], alone)
        except Exception as error:  # noqa: BLE001 - it belongs to this group's requests
            failed: asyncio.Future[Outcomes[R]] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed

    def _end(self, group: _Group[W, R], future: asyncio.Future[Outcomes[R]]) -> None:
        del self._working[group]
        self._free += 1
        failure = asyncio.CancelledError() if future.cancelled() else future.exception()
        outcomes = future.result() if failure is None else [failure] * len(group.members)
        if not all(isinstance(outcome, ApiError) for outcome in outcomes):  # a refused picture takes no time
            self._measure(group)
        for member, outcome in zip(group.members, outcomes, strict=True):
            if member.outcome.done():  # its task was cancelled
                continue
            if isinstance(outcome, BaseException):
                member.outcome.set_exception(outcome)
            else:
                member.outcome.set_result(outcome)
        self._begin()
        self._shed()

    def _shed(self) -> None:
        """Refuse waiting requests that are now expected to be late, the last one first, so that callers can retry."""
        while self._waiting:
            late_s = self.expected_s(0) - self._waiting[-1].deadline.left_s * _SHARE_WAITING
            if late_s <= 0:
                return
            last = self._waiting.pop()
            if not last.outcome.done():
                last.outcome.set_exception(self._overloaded(late_s))

    def _overloaded(self, late_s: float) -> ApiError:
        return ApiError(
            "overloaded",
            f"{len(self._waiting)} requests to {self._name} are waiting already; an answer would take too long",
            retry_after_s=math.ceil(late_s),
        )

    def _measure(self, group: _Group[W, R]) -> None:
        now = time.monotonic()
        takes = now - group.began
        self._takes_s = _mean(self._takes_s or takes, takes)
        if self._last_end is not None:
            between = (now - self._last_end) / len(group.members)
            self._between_s = _mean(between if self._between_s is None else self._between_s, between)
        self._last_end = now if self._waiting else None


def _mean(former: float, last: float) -> float:
    return (1 - _WEIGHT) * min(former, _MOST_TIMES * last) + _WEIGHT * last
