"""How much memory pictures may take at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from engines.deadline import Deadline


class MemoryBudget:
    """Bytes that pictures take while they are decoded, prepared and answered. First come, first served; for threads.

    A picture of 49 megapixels is 147 MB of RGB out of a file of 160 KB: counting requests would not bound memory.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._change = threading.Condition()
        self._line: deque[object] = deque()

    @contextmanager
    def hold(self, amount: int, deadline: Deadline) -> Iterator[None]:
        """Take so many bytes for as long as the block runs, as soon as it is this one's turn.

        Nobody takes more than there are in all: the largest picture is alone then. Raises Abandoned where nobody waits
        for the picture any more.
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
                with deadline.stopping(self._look_again):
                    while self._line[0] is not own or self._free < amount:
                        self._change.wait(deadline.left_s)
                        deadline.check()
            finally:
                self._line.remove(own)
                self._change.notify_all()
            self._free -= amount

    def _look_again(self) -> None:
        with self._change:
            self._change.notify_all()
