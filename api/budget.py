"""How much memory pictures may take at a time."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class _Waiting:
    amount: int
    turn: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class MemoryBudget:
    """Bytes that pictures take while they are decoded, prepared and answered. First come, first served.

    A picture of 49 megapixels is 147 MB of RGB out of a file of 160 KB: counting requests would not bound memory.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()

    def take(self, amount: int) -> bool:
        """Take so many bytes, on any thread; False where they are not free, or where others wait for theirs.

        Nobody takes more than there are in all: the largest picture is alone then.
        """
        with self._lock:
            if self._waiting or self._free < min(amount, self._total):
                return False
            self._free -= min(amount, self._total)
            return True

    async def wait(self, amount: int) -> None:
        """Take so many bytes when it is this one's turn."""
        loop = asyncio.get_running_loop()
        own = _Waiting(min(amount, self._total), loop.create_future(), loop)
        with self._lock:
            self._waiting.append(own)
            self._serve()
        try:
            await own.turn
        except asyncio.CancelledError:
            with self._lock:
                if own in self._waiting:
                    self._waiting.remove(own)
                else:  # its turn had come, and the task was ended before it heard of that
                    self._free += own.amount
                self._serve()
            raise

    def give_back(self, amount: int) -> None:
        """Give back what was taken, on any thread."""
        with self._lock:
            self._free += min(amount, self._total)
            self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0].amount <= self._free:
            first = self._waiting.popleft()
            self._free -= first.amount
            first.loop.call_soon_threadsafe(_wake, first.turn)


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
