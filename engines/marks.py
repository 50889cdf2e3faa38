"""Carries a profiler's tags of a call to the other threads that work for the call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Final, TypeVar

MARK: Final[ContextVar[Callable[[], AbstractContextManager[None]]]] = ContextVar("mark", default=nullcontext)

T = TypeVar("T")
ArgT = TypeVar("ArgT")


def carried(function: Callable[[ArgT], T]) -> Callable[[ArgT], T]:
    """Wrap `function` for another thread, with the tags of the present thread."""
    mark = MARK.get()

    def run(argument: ArgT) -> T:
        with mark():
            return function(argument)

    return run
