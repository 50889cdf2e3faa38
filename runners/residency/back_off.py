"""Waiting times between tries, doubled with each failure."""

from __future__ import annotations

import time


class BackOff:
    """The wait until the next try: `first_s` seconds, doubled with each failure up to `longest_s`. Not thread-safe."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._wait_s = first_s
        self._due: float | None = None  # in time.monotonic()

    @property
    def left_s(self) -> float | None:
        """Seconds until the next try; 0 = now; None = no try is due."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def failed(self) -> float:
        """Start the wait for the next try. Returns its length in seconds."""
        waiting_s = self._wait_s
        self._due = time.monotonic() + waiting_s
        self._wait_s = min(self._wait_s * 2, self._longest_s)
        return waiting_s

    def begin(self) -> None:
        """Note that the next try has begun, or that there will be none. Another failure still doubles the wait."""
        self._due = None

    def reset(self) -> None:
        """Note a success: the next failure waits `first_s` again."""
        self._due, self._wait_s = None, self._first_s
