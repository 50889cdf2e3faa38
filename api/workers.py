"""The threads that process one model's requests, and how many run at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from api.queue import Outcomes
from engines.priority import step_back

W = TypeVar("W")
R = TypeVar("R")


class Workers(Generic[W, R]):
    """A model's own threads. One thread takes a group of requests through all its steps.

    Queued requests run on threads of lower priority. So saturated models hardly slow down a request to an idle model.
    """

    def __init__(self, name: str, width: int) -> None:
        self._queued = ThreadPoolExecutor(width, thread_name_prefix=f"{name}-queued", initializer=step_back)
        self._prompt = ThreadPoolExecutor(1, thread_name_prefix=name)

    def start(
        self, work: Callable[[Sequence[W], bool], Outcomes[R]], group: Sequence[W], alone: bool
    ) -> asyncio.Future[Outcomes[R]]:
        """Process a group on a thread. The future is done only when the thread has returned.

        alone: whether the model was idle; then the thread has normal priority.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outcomes[R]] = loop.create_future()

        def hand_over(worked: Future[Outcomes[R]]) -> None:
            loop.call_soon_threadsafe(_copy, worked, done)

        threads = self._prompt if alone else self._queued
        threads.submit(work, group, alone).add_done_callback(hand_over)
        return done


def _copy(worked: Future[Outcomes[R]], done: asyncio.Future[Outcomes[R]]) -> None:
    failure = worked.exception()
    if failure is None:
        done.set_result(worked.result())
    else:
        done.set_exception(failure)
