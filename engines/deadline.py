"""A request's deadline: when its time is over, and whether its caller has gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Abandoned(Exception):
    """The request's time is over, or its caller has gone."""


class Deadline:
    """One request's deadline. A thread checks it before it begins a piece of work. Thread-safe.

    expires: seconds of time.monotonic(). On Linux all processes of a machine share that clock.
    """

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self._lock = threading.Lock()
        self._abandoned = False
        self._stops: list[Callable[[], None]] = []

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """A deadline `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @property
    def is_over(self) -> bool:
        """Whether it has expired or was abandoned."""
        return self._abandoned or time.monotonic() >= self.expires

    @property
    def left_s(self) -> float:
        """Seconds until it expires; 0 if it is over."""
        return 0.0 if self.is_over else max(0.0, self.expires - time.monotonic())

    def check(self) -> None:
        """Raise Abandoned if it is over."""
        if self.is_over:
            raise Abandoned

    def abandon(self) -> None:
        """Stop the work under way: the caller has gone or already has an answer."""
        with self._lock:
            self._abandoned = True
            stops = list(self._stops)
        for stop in stops:
            stop()

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` if it is abandoned while the block runs. Raises Abandoned if it already was."""
        with self._lock:
            if self._abandoned:
                raise Abandoned
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)
