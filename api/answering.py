"""The way of a request: queue → read, decode, prepare → ask the model → answer.

Where the engines are in this process, one thread goes the whole way. Else threads do what stands before and after the
call to the runner process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

from api.embedded import EmbeddedLink, Link, unwrap
from api.errors import not_assigned
from api.gate import request_id
from api.queue import ModelQueue, Outcomes
from api.request import Received
from api.steps import MODEL_OF, Ready, Second, Steps, Work
from api.tracing import Spans
from api.workers import Workers
from engines.cores import side_by_side
from engines.deadline import Deadline
from models.catalogue import CATALOGUE, ModelName
from settings import Settings
from tasks.task import Answer

# Batches on their way to a runner process: one is computed, one waits, one is being made.
_BATCHES: Final = 3
# While the engine computes on all its lanes, the next request is read, or the one before is answered.
_AHEAD: Final = 1
_SHARE_OF_SECOND_LOOK: Final = 0.5  # of the time that is left to the request

T = TypeVar("T")


class Answering:
    """Answers the requests of all routes."""

    def __init__(self, settings: Settings, links: Mapping[ModelName, Link], spans: Spans) -> None:
        """links: of the assigned models."""
        self._settings = settings
        self._links = links
        self._spans = spans
        self._steps = Steps(settings, spans)
        self._threads = ThreadPoolExecutor(settings.limits.decode_threads, thread_name_prefix="picture")
        self._queues = {name: self._queue(name, link) for name, link in links.items()}

    def check(self, route: str, left_s: float) -> None:
        """Raises ApiError: model_not_assigned, or overloaded where an answer would take over `left_s` seconds."""
        name = MODEL_OF[route]
        if name not in self._queues:
            raise not_assigned(name)
        self._queues[name].check(left_s)

    async def answer(self, route: str, received: Received, deadline: Deadline) -> bytes:
        """The answer's JSON. Raises ApiError, or Abandoned where the deadline is over."""
        self.check(route, deadline.left_s)
        name = MODEL_OF[route]
        self._spans.describe(model=name, request_id=request_id())
        work = Work(route, name, self._links[name], received, deadline, copy_context(), time.time_ns())
        return await self._queues[name].run(work, deadline)

    def _queue(self, name: ModelName, link: Link) -> ModelQueue[Work, bytes]:
        if isinstance(link, EmbeddedLink):
            width = side_by_side(self._settings.cpu_threads) + _AHEAD
            workers = Workers(name, width)
            start = partial(workers.start, partial(self._here, link))
            return ModelQueue(name, width, start, CATALOGUE[name].traits.batch)
        width = self._settings.models[name].max_batch_size * _BATCHES
        return ModelQueue(name, width, lambda group, _: asyncio.ensure_future(self._there(link, *group)))

    # Where the engines are in this process: on one of its threads.

    def _here(self, link: EmbeddedLink, group: Sequence[Work], alone: bool) -> Outcomes[bytes]:
        outcomes = [_attempt(work, self._steps.ready, work) for work in group]
        ready = [each for each in outcomes if isinstance(each, Ready)]
        computed = iter(self._computed(link, ready, alone))
        return [
            _attempt(each.work, self._finish_here, each, next(computed), alone) if isinstance(each, Ready) else each
            for each in outcomes
        ]

    def _computed(self, link: EmbeddedLink, ready: Sequence[Ready], alone: bool) -> Iterator[Sequence[Any] | Exception]:
        """The results of each request, computed together."""
        if not ready:
            return
        items = [item for each in ready for item in each.prepared.items]
        deadline = ready[0].work.deadline if len(ready) == 1 else None
        first = ready[0].work
        results = _attempt(first, self._compute, link, first.name, items, deadline, alone)
        at = 0
        for each in ready:
            count = len(each.prepared.items)
            yield results if isinstance(results, Exception) else results[at : at + count]
            at += count

    def _compute(
        self, link: EmbeddedLink, name: ModelName, items: Sequence[Any], deadline: Deadline | None, alone: bool
    ) -> Sequence[Any]:
        """Results and failures."""
        sent = time.time_ns()
        results: Sequence[Any] = ()
        try:
            results = link.compute(name, items, deadline, alone=alone)
            return results
        finally:
            over = deadline is not None and deadline.is_over
            self._spans.of_runner(sent, results[0].get("timing") if results and not over else None)

    def _finish_here(self, ready: Ready, results: Sequence[Any] | Exception, alone: bool) -> bytes:
        ready.work.deadline.check()
        if isinstance(results, Exception):
            raise results
        answer = self._steps.answer(ready, [unwrap(result) for result in results])
        if (second := self._steps.second_look(ready, answer)) is not None:
            self._steps.after_second_look(ready, second, answer, self._seen_here(ready, second, alone))
        return self._steps.encode(ready, answer)

    def _seen_here(self, ready: Ready, second: Second, alone: bool) -> Sequence[Any] | Exception:
        link, name = self._links.get(second.look.name), second.look.name
        try:
            if not isinstance(link, EmbeddedLink):
                raise not_assigned(name)
            results = self._compute(link, name, second.prepared.items, _deadline_of_second_look(ready), alone)
            return [unwrap(result) for result in results]
        except Exception as error:  # noqa: BLE001 - it is told by Steps.after_second_look
            return error

    # Where they are in another process: on threads up to the items, and from the results.

    async def _there(self, link: Link, work: Work) -> Outcomes[bytes]:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        try:
            with work.deadline.stopping(lambda: _soon(loop, task)):
                return [await self._answer_there(link, work)]
        except Exception as error:  # noqa: BLE001 - whatever it was, it is this request's
            return [error]

    async def _answer_there(self, link: Link, work: Work) -> bytes:
        ready = await self._in_thread(work, self._steps.ready, work)
        results = await self._ask(link, ready)
        answer: Answer = await self._in_thread(work, self._steps.answer, ready, results)
        if (second := self._steps.second_look(ready, answer)) is not None:
            seen = await self._seen_there(ready, second)
            await self._in_thread(work, self._steps.after_second_look, ready, second, answer, seen)
        return await self._in_thread(work, self._steps.encode, ready, answer)

    async def _ask(self, link: Link, ready: Ready) -> Sequence[Any]:
        sent = time.time_ns()
        results: Sequence[Any] = ()
        try:
            results = await link.infer(ready.work.name, ready.prepared.items, ready.work.deadline)
            return results
        finally:  # a request that waited until its timeout is what one wants to see
            self._spans.of_runner(sent, results[0].get("timing") if results else None)

    async def _seen_there(self, ready: Ready, second: Second) -> Sequence[Any] | Exception:
        link, name = self._links.get(second.look.name), second.look.name
        deadline = _deadline_of_second_look(ready)
        try:
            if link is None:
                raise not_assigned(name)
            async with asyncio.timeout(deadline.left_s):
                return await link.infer(name, second.prepared.items, deadline)
        except Exception as error:  # noqa: BLE001 - as above
            return error

    async def _in_thread(self, work: Work, function: Callable[..., T], *arguments: Any) -> T:
        call = partial(work.context.copy().run, function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _soon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    loop.call_soon_threadsafe(task.cancel)


def _attempt(work: Work, function: Callable[..., T], *arguments: Any) -> T | Exception:
    """What a function returns or raises in a request's context."""
    try:
        return work.context.run(function, *arguments)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is this request's, not the group's
        return error


def _deadline_of_second_look(ready: Ready) -> Deadline:
    """Before the request's own: it gets its answer even where nobody could look."""
    return Deadline.after(ready.work.deadline.left_s * _SHARE_OF_SECOND_LOOK)
