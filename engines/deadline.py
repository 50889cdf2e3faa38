"""Until when somebody waits for an answer, and whether anybody still does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Abandoned(Exception):
    """Nobody waits for this any more: its time is over, or its caller has gone."""


class Deadline:
    """One request's time. Threads ask it before they begin a piece of work.

    expires: by time.monotonic(), which on Linux is one clock for all processes of a machine.
    """

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self._lock = threading.Lock()
        self._abandoned = False
        self._stops: list[Callable[[], None]] = []

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def is_over(self) -> bool:
        """Whether work for it would be for nobody."""
        return self._abandoned or time.monotonic() >= self.expires

    @property
    def left_s(self) -> float:
        """Seconds until it expires; 0 where it is over."""
        return 0.0 if self.is_over else max(0.0, self.expires - time.monotonic())

    def check(self) -> None:
        """Raises Abandoned where it is over."""
        if self.is_over:
            raise Abandoned

    def abandon(self) -> None:
        """The caller has gone, or has got an answer: what can be stopped is stopped."""
        with self._lock:
            self._abandoned = True
            stops = list(self._stops)
        for stop in stops:
            stop()

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` where it is abandoned while the block runs. Raises Abandoned where it was before."""
        with self._lock:
            if self._abandoned:
                raise Abandoned
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)
