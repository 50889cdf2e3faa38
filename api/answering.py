"""Answers an inference request: queue → read, decode, prepare → infer → answer.

With embedded engines one thread runs all steps. With runner processes, threads run the steps before and after the
call to the runner.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from starlette.responses import Response

from api.comparison import Call, comparisons
from api.deepstack import DeepStack
from api.deepstack_shapes import ASKED
from api.embedded import EmbeddedLink
from api.enrichment import ENRICH_ROUTE, Enrichment
from api.errors import ApiError, not_assigned
from api.gate import Body, request_id
from api.link import Link, unwrap
from api.queue import ModelQueue, Outcomes, QueueState
from api.recent import Latency, RecentLatencies
from api.remote import RemoteLink
from api.request import Received
from api.steps import MODEL_OF, Steps
from api.survey import Surveyor
from api.tracing import Spans
from api.work import Finding, Opened, Question, Ready, Request, Second, Seen, Take, Work
from api.workers import Workers
from engines.cores import decoded_at_a_time, side_by_side
from engines.deadline import Deadline
from models.catalogue import CATALOGUE, ModelName
from settings import Settings
from tasks.task import Answer
from vision.canvas import ImageFormat

# Batches in flight to a runner process: one is computed, one waits, one is being assembled.
_BATCHES: Final = 3
# One extra worker reads the next request, or answers the last one, while every engine lane computes.
_AHEAD: Final = 1
_SHARE_OF_SECOND_LOOK: Final = 0.5  # of the request's remaining time

T = TypeVar("T")
_Work: TypeAlias = Request | Ready  # a whole request, or a prepared question of a call to several models
_Outcome: TypeAlias = Body | Finding


@dataclass(frozen=True)
class Activity:
    """A model's queue now, and the latency of its last requests."""

    queue: QueueState
    latency: Latency


class Answering:
    """Answers the requests of all routes."""

    def __init__(self, settings: Settings, links: Mapping[ModelName, Link], spans: Spans) -> None:
        """links: one for each assigned model."""
        self._settings = settings
        self._links = links
        self._spans = spans
        self._steps = Steps(settings, spans)
        at_a_time = settings.limits.decode_threads
        width = decoded_at_a_time(settings.cpu_threads) if at_a_time == "auto" else at_a_time
        self._threads = ThreadPoolExecutor(width, thread_name_prefix="picture")
        self._queues = {name: self._queue(name, link) for name, link in links.items()}
        self._surveyor = Surveyor(self, settings.limits.max_picture_bytes)
        self._calls: dict[str, Call] = {
            ENRICH_ROUTE: Enrichment(self, self._surveyor, settings.limits),
            **comparisons(self._surveyor, settings),
        }
        if settings.server.deepstack:
            self._calls |= {route: DeepStack(route, self, self._surveyor, links, settings) for route in ASKED}
        self._latencies = {name: RecentLatencies() for name in links}

    def activity(self, name: ModelName) -> Activity | None:
        """Return a model's activity; None if the model is not assigned."""
        return Activity(self._queues[name].state, self._latencies[name].summary) if name in self._queues else None

    def check(self, route: str, left_s: float) -> None:
        """Refuse a request that can't be answered within `left_s` seconds.

        Raises ApiError: model_not_assigned or overloaded.
        """
        if route in self._calls:
            self._calls[route].check(left_s)
        else:
            self.check_model(MODEL_OF[route], left_s)

    def check_model(self, name: ModelName, left_s: float, count: int = 1) -> None:
        """Refuse `count` images for one model that can't be answered within `left_s` seconds. Raises as `check`."""
        if name not in self._queues:
            raise not_assigned(name)
        self._queues[name].check(left_s, count)

    async def answer(self, route: str, received: Received, deadline: Deadline) -> Body:
        """Return the answer. Raises ApiError, or Abandoned after the deadline."""
        began = time.perf_counter()
        self.check(route, deadline.left_s)
        if route in self._calls:
            self._spans.describe(request_id=request_id())
            return await self._calls[route].answer(received, deadline)
        name = MODEL_OF[route]
        self._spans.describe(model=name, request_id=request_id())
        work = Request(name, self._links[name], deadline, copy_context(), time.monotonic_ns(), route, received)
        answered = await self._queues[name].run(work, deadline)
        assert isinstance(answered, Body)
        self._latencies[name].note(time.perf_counter() - began)
        return answered

    async def respond(self, route: str, received: Received) -> Response:
        """Answer a call from within BentoML, errors included. The front answers HTTP requests before they get here."""
        try:
            body = await self.answer(route, received, Deadline.after(self._settings.limits.request_timeout_s))
        except ApiError as error:
            return error.response(request_id())
        return Response(body.data, media_type=body.media_type)

    def link(self, name: ModelName) -> Link:
        """Return the link of a model that can serve. Raises ApiError.

        The codes: model_not_assigned, model_unavailable or runner_unavailable.
        """
        if name not in self._links:
            raise not_assigned(name)
        self._links[name].model(name)
        return self._links[name]

    async def open(self, image: bytes, questions: Sequence[Question], deadline: Deadline, take: Take) -> Opened:
        """Decode an image once, and prepare each question's items. See Steps.opened."""
        return await self._on_thread(copy_context(), self._steps.opened, image, questions, deadline, take)

    async def draw(self, image: bytes, form: ImageFormat, seen: Sequence[Seen], text: str, deadline: Deadline) -> Body:
        """Return an image with several models' answers drawn on it. See Steps.drawn."""
        return await self._on_thread(copy_context(), self._steps.drawn, image, form, seen, text, deadline)

    async def find(self, part: Ready) -> Finding:
        """Return the answer to a prepared question. Raises ApiError, or Abandoned after the deadline."""
        found = await self._queues[part.work.name].run(part, part.work.deadline)
        assert isinstance(found, Finding)
        return found

    def _queue(self, name: ModelName, link: Link) -> ModelQueue[_Work, _Outcome]:
        if isinstance(link, EmbeddedLink):
            width = side_by_side(self._settings.cpu_threads) + _AHEAD
            workers: Workers[_Work, _Outcome] = Workers(name, width)
            start = partial(workers.start, partial(self._run_embedded, link))
            queue: ModelQueue[_Work, _Outcome] = ModelQueue(name, width, start, CATALOGUE[name].traits.batch)
            link.when_lost.append(queue.close)
            return queue
        assert isinstance(link, RemoteLink)
        width = self._settings.models[name].max_batch_size * _BATCHES
        return ModelQueue(name, width, lambda group, _: asyncio.ensure_future(self._run_remote(link, *group)))

    # Embedded engines: one thread runs all steps.

    def _run_embedded(self, link: EmbeddedLink, group: Sequence[_Work], alone: bool) -> Outcomes[_Outcome]:
        outcomes = [work if isinstance(work, Ready) else _attempt(work, self._steps.ready, work) for work in group]
        ready = [each for each in outcomes if isinstance(each, Ready)]
        computed = iter(self._computed(link, ready, alone))
        return [
            _attempt(each.work, self._finish_embedded, each, next(computed), alone) if isinstance(each, Ready) else each
            for each in outcomes
        ]

    def _computed(self, link: EmbeddedLink, ready: Sequence[Ready], alone: bool) -> Iterator[Sequence[Any] | Exception]:
        """Compute the items of all requests in one call, and yield each request's results or the error."""
        if not ready:
            return
        items = [item for each in ready for item in each.prepared.items]
        deadline = ready[0].work.deadline if len(ready) == 1 else None
        first, sent = ready[0].work, time.monotonic_ns()
        results = _attempt(first, partial(link.compute, alone=alone), first.name, items, deadline)
        at = 0
        for each in ready:
            count = len(each.prepared.items)
            own = results if isinstance(results, Exception) else results[at : at + count]
            each.work.context.run(self._record, sent, () if isinstance(own, Exception) else own, deadline)
            yield own
            at += count

    def _compute(
        self, link: EmbeddedLink, name: ModelName, items: Sequence[Any], deadline: Deadline | None, alone: bool
    ) -> Sequence[Any]:
        """Return a result or failure for each item of one request, and record the runner's spans."""
        sent = time.monotonic_ns()
        results: Sequence[Any] = ()
        try:
            results = link.compute(name, items, deadline, alone=alone)
            return results
        finally:
            self._record(sent, results, deadline)

    def _record(self, sent: int, results: Sequence[Any], deadline: Deadline | None = None) -> None:
        """Record the runner's spans of one request. sent: time.monotonic_ns(). results: empty without an answer."""
        over = deadline is not None and deadline.is_over
        self._spans.of_runner(sent, results[0].get("timing") if results and not over else None)

    def _finish_embedded(self, ready: Ready, results: Sequence[Any] | Exception, alone: bool) -> _Outcome:
        ready.work.deadline.check()
        if isinstance(results, Exception):
            raise results
        results = [unwrap(result) for result in results]
        answer = self._steps.answer(ready, results)
        if (second := self._steps.second_look(ready, answer)) is not None:
            self._steps.after_second_look(ready, second, answer, self._second_look_embedded(ready, second, alone))
        return self._steps.finish(ready, results, answer)

    def _second_look_embedded(self, ready: Ready, second: Second, alone: bool) -> Sequence[Any] | Exception:
        link, name = self._links.get(second.look.name), second.look.name
        try:
            if not isinstance(link, EmbeddedLink):
                raise not_assigned(name)
            results = self._compute(link, name, second.prepared.items, _deadline_of_second_look(ready), alone)
            return [unwrap(result) for result in results]
        except Exception as error:  # noqa: BLE001 - Steps.after_second_look logs it
            return error

    # Runner processes: threads prepare the items and answer from the results.

    async def _run_remote(self, link: RemoteLink, work: _Work) -> Outcomes[_Outcome]:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        try:
            with _work_of(work).deadline.stopping(lambda: _cancel_soon(loop, task)):
                return [await self._answer_remote(link, work)]
        except Exception as error:  # noqa: BLE001 - any error belongs to this request
            return [error]

    async def _answer_remote(self, link: RemoteLink, work: _Work) -> _Outcome:
        context = _work_of(work).context
        ready = work if isinstance(work, Ready) else await self._on_thread(context, self._steps.ready, work)
        results = await self._infer_remote(link, ready)
        answer: Answer = await self._on_thread(context, self._steps.answer, ready, results)
        if (second := self._steps.second_look(ready, answer)) is not None:
            seen = await self._second_look_remote(ready, second)
            await self._on_thread(context, self._steps.after_second_look, ready, second, answer, seen)
        return await self._on_thread(context, self._steps.finish, ready, results, answer)

    async def _infer_remote(self, link: RemoteLink, ready: Ready) -> Sequence[Any]:
        sent = time.monotonic_ns()
        results: Sequence[Any] = ()
        try:
            results = await link.infer(ready.work.name, ready.prepared.items, ready.work.deadline)
            return results
        finally:  # a trace must show requests that timed out, too
            self._record(sent, results)

    async def _second_look_remote(self, ready: Ready, second: Second) -> Sequence[Any] | Exception:
        link, name = self._links.get(second.look.name), second.look.name
        deadline = _deadline_of_second_look(ready)
        try:
            if not isinstance(link, RemoteLink):
                raise not_assigned(name)
            async with asyncio.timeout(deadline.left_s):
                return await link.infer(name, second.prepared.items, deadline)
        except Exception as error:  # noqa: BLE001 - Steps.after_second_look logs it
            return error

    async def _on_thread(self, context: Context, function: Callable[..., T], *arguments: Any) -> T:
        call = partial(context.copy().run, function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _cancel_soon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    loop.call_soon_threadsafe(task.cancel)


def _work_of(work: _Work) -> Work:
    return work.work if isinstance(work, Ready) else work


def _attempt(work: Work, function: Callable[..., T], *arguments: Any) -> T | Exception:
    """Call a function in a request's context, and return its result or its exception."""
    try:
        return work.context.run(function, *arguments)
    except Exception as error:  # noqa: BLE001 - any error belongs to this request, not to its group
        return error


def _deadline_of_second_look(ready: Ready) -> Deadline:
    """Return a deadline before the request's own, so that the request is answered even if the second look fails."""
    return Deadline.after(ready.work.deadline.left_s * _SHARE_OF_SECOND_LOOK)
