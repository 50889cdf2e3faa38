"""What marks the work of a call for a profiler. Profilers mark threads, and a call may take several."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Final, TypeVar

MARK: Final[ContextVar[Callable[[], AbstractContextManager[None]]]] = ContextVar("mark", default=nullcontext)

T = TypeVar("T")
ArgT = TypeVar("ArgT")


def carried(function: Callable[[ArgT], T]) -> Callable[[ArgT], T]:
    """`function`, for other threads, marked as this thread is now."""
    mark = MARK.get()

    def run(argument: ArgT) -> T:
        with mark():
            return function(argument)

    return run
