"""Bounds the memory that decoded images take at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from engines.deadline import Deadline


class MemoryBudget:
    """A thread-safe budget of bytes for images that are decoded, prepared or answered. First come, first served.

    A limit on requests would not bound memory: a file of 160 KB may decode to 147 MB of RGB.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._change = threading.Condition()
        self._line: deque[object] = deque()

    @contextmanager
    def hold(self, amount: int, deadline: Deadline) -> Iterator[None]:
        """Wait until `amount` bytes are free, and hold them while the block runs.

        An amount over the whole budget counts as the whole budget. Raises Abandoned if the request is abandoned or its
        deadline passes.
        """
        amount = min(amount, self._total)
        self._take(amount, deadline)
        try:
            yield
        finally:
            with self._change:
                self._free += amount
                self._change.notify_all()

    def _take(self, amount: int, deadline: Deadline) -> None:
        own = object()
        with self._change:
            self._line.append(own)
            try:
                with deadline.stopping(self._wake):
                    while self._line[0] is not own or self._free < amount:
                        self._change.wait(deadline.left_s)
                        deadline.check()
            finally:
                self._line.remove(own)
                self._change.notify_all()
            self._free -= amount

    def _wake(self) -> None:
        with self._change:
            self._change.notify_all()
