from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.picture_memory import MemoryBudget
from engines.deadline import Abandoned, Deadline


class Holders:
    """Threads that take from a budget, and give back when they are told."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.budget = budget
        self.order: list[str] = []
        self._pool = ThreadPoolExecutor(8)
        self._release: dict[str, threading.Event] = {}

    def begin(self, name: str, amount: int, deadline: Deadline | None = None) -> object:
        release = self._release[name] = threading.Event()

        def hold() -> None:
            with self.budget.hold(amount, deadline or Deadline.after(60)):
                self.order.append(name)
                assert release.wait(10)

        waiting = len(self.budget._line)
        future = self._pool.submit(hold)
        self.until(lambda: name in self.order or len(self.budget._line) > waiting)  # before the next one
        time.sleep(0.05)  # whoever may go on has gone on
        return future

    def release(self, *names: str) -> None:
        for name in names:
            self._release[name].set()

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.005)

    def come(self, *names: str) -> None:
        """Wait until exactly these have come, in this order."""
        self.until(lambda: len(self.order) >= len(names))
        assert self.order == [*names]


def test_first_come_first_served_so_that_a_large_picture_has_its_turn() -> None:
    holders = Holders(MemoryBudget(100))
    holders.begin("first", 60)
    holders.begin("second", 40)
    holders.begin("large", 100)
    holders.begin("small", 10)
    holders.come("first", "second")
    holders.release("first")
    time.sleep(0.05)
    assert holders.order == ["first", "second"]  # the small one would fit, and has to wait for who came before
    holders.release("second")
    holders.come("first", "second", "large")
    holders.release("large", "small")
    holders.come("first", "second", "large", "small")


def test_the_largest_picture_is_alone_and_never_refused() -> None:
    with MemoryBudget(100).hold(1000, Deadline.after(1)):
        pass


@pytest.mark.parametrize("expired", [True, False])
def test_who_is_abandoned_leaves_the_line_at_once_and_takes_nothing(expired: bool) -> None:
    holders = Holders(MemoryBudget(100))
    holders.begin("first", 60)
    deadline = Deadline.after(1 if expired else 60)
    gone = holders.begin("gone", 100, deadline)
    holders.begin("next", 40)
    assert holders.order == ["first"]
    if not expired:
        deadline.abandon()
    with pytest.raises(Abandoned):
        gone.result(5)  # type: ignore[attr-defined]
    holders.come("first", "next")
    holders.release("first", "next")
    with holders.budget.hold(100, Deadline.after(10)):
        pass
