from __future__ import annotations

import threading
import time
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

        future = self._pool.submit(hold)
        time.sleep(0.05)  # so that it is in the line before the next one
        return future

    def release(self, *names: str) -> None:
        for name in names:
            self._release[name].set()
        time.sleep(0.05)


def test_first_come_first_served_so_that_a_large_picture_has_its_turn() -> None:
    holders = Holders(MemoryBudget(100))
    holders.begin("first", 60)
    holders.begin("second", 40)
    holders.begin("large", 100)
    holders.begin("small", 10)
    assert holders.order == ["first", "second"]
    holders.release("first")
    assert holders.order == ["first", "second"]  # the small one would fit, and has to wait for who came before
    holders.release("second")
    assert holders.order == ["first", "second", "large"]
    holders.release("large", "small")
    assert holders.order == ["first", "second", "large", "small"]


def test_the_largest_picture_is_alone_and_never_refused() -> None:
    with MemoryBudget(100).hold(1000, Deadline.after(1)):
        pass


@pytest.mark.parametrize("expired", [True, False])
def test_who_is_abandoned_leaves_the_line_at_once_and_takes_nothing(expired: bool) -> None:
    holders = Holders(MemoryBudget(100))
    holders.begin("first", 60)
    deadline = Deadline.after(0.15 if expired else 60)
    gone = holders.begin("gone", 100, deadline)
    holders.begin("next", 40)
    assert holders.order == ["first"]
    if not expired:
        deadline.abandon()
    with pytest.raises(Abandoned):
        gone.result(5)  # type: ignore[attr-defined]
    time.sleep(0.05)
    assert holders.order == ["first", "next"]
    holders.release("first", "next")
    with holders.budget.hold(100, Deadline.after(1)):
        pass
