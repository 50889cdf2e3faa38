"""Finds a batch that does not end, as when the driver hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from models.catalogue import ModelName

TICK_S: Final = 1.0
_TIMES_SLOWEST: Final = 10  # a batch may take this many times as long per image as the slowest before it


@dataclass(eq=False)
class _Batch:
    name: ModelName
    count: int
    ticks: int = 0


class Progress:
    """The batches that are computed now, and a thread that watches them.

    It counts ticks instead of reading a clock. So the time while the machine sleeps does not count as silence.
    """

    def __init__(self, hung_s: float, on_hang: Callable[[str], None]) -> None:
        """hung_s: seconds that any batch may take. on_hang: called, maybe repeatedly, with what hangs."""
        self._hung_s = hung_s
        self._on_hang = on_hang
        self._batches: set[_Batch] = set()
        self._slowest_s: dict[ModelName, float] = {}  # per image
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="progress", daemon=True).start()

    @contextmanager
    def of(self, name: ModelName, count: int) -> Iterator[None]:
        """Watch the batch of `count` images that the block computes."""
        batch = _Batch(name, count)
        self._batches.add(batch)
        try:
            with self.measured(name, count):
                yield
        finally:
            self._batches.discard(batch)

    @contextmanager
    def measured(self, name: ModelName, count: int) -> Iterator[None]:
        """Record the time per image of a block that computes `count` images and is known not to hang."""
        began = time.monotonic()
        yield
        self._slowest_s[name] = max(self._slowest_s.get(name, 0), (time.monotonic() - began) / count)

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(TICK_S):
            for batch in self._batches.copy():
                batch.ticks += 1
                took_s = batch.ticks * TICK_S
                if took_s > max(self._hung_s, _TIMES_SLOWEST * batch.count * self._slowest_s.get(batch.name, 0)):
                    self._on_hang(f"a batch of {batch.count} for {batch.name} has not ended for {took_s:.0f} s")
