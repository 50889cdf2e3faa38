"""When something that failed, and may go well later, is tried again."""

from __future__ import annotations

import time


class BackOff:
    """The first wait in seconds, doubled with each failure up to the longest. Not thread-safe."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._wait_s = first_s
        self._due: float | None = None  # of time.monotonic()

    @property
    def left_s(self) -> float | None:
        """Seconds until the next try, 0 = now; None: nothing is waiting for one."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def failed(self) -> float:
        """Begin to wait for the next try. Returns for how long, in seconds."""
        waiting_s = self._wait_s
        self._due = time.monotonic() + waiting_s
        self._wait_s = min(self._wait_s * 2, self._longest_s)
        return waiting_s

    def begin(self) -> None:
        """The next try has begun, or there will be none; another failure makes the wait longer all the same."""
        self._due = None

    def reset(self) -> None:
        """It went well: the next failure waits for the first time again."""
        self._due, self._wait_s = None, self._first_s
