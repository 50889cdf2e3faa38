"""A request's way: read → decode → prepare → ask the model → interpret → encode.

Where the engines are in this process, one thread goes all the way, for all requests of a group. Else it goes up to the
items, the event loop waits for the runner process, and a thread goes on from its results.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import Any, Final, TypeVar

import engines
from api import answers, metrics
from api.embedded import EmbeddedLink, Link, unwrap
from api.errors import ApiError, ErrorCode, invalid_field, not_assigned
from api.gate import request_id
from api.picture_memory import MemoryBudget
from api.queue import ModelQueue, Outcomes
from api.request import Received, parse
from api.schemas import Answer, PetResponse, PoseResponse, ThreatResponse
from api.tracing import Spans
from api.workers import Workers
from engines.deadline import Abandoned, Deadline
from models.catalogue import CATALOGUE, ModelName
from runners.bentoml_cures import batch_size_of
from settings import Settings
from vision import decoding as images

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only
audit = logging.getLogger("bentoml.enrichment.audit")

DISTANCE_ROUTE: Final = "/object-distance"
MODEL_OF: Final[Mapping[str, ModelName]] = MappingProxyType(
    {spec.route: name for name, spec in CATALOGUE.items()} | {DISTANCE_ROUTE: "depth_estimator"}
)

_IMAGE_ERRORS: Final[Mapping[type[images.ImageError], ErrorCode]] = {
    images.DamagedImage: "invalid_image",
    images.UnsupportedFormat: "unsupported_media_type",
    images.ImageTooLarge: "image_too_large",
}


# Batches on their way to a runner process: one is computed, one waits, one is being made.
_BATCHES: Final = 3
# While the engine computes on all its lanes, the next request is read, or the one before is answered.
_AHEAD: Final = 1
_SHARE_OF_VETO: Final = 0.5  # of the time that is left to a pet's request

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """One request: where it was asked, what came, and until when.

    context: its id, and its span where it is traced. queued: when it came, ns since the epoch.
    """

    route: str
    name: ModelName
    link: Link
    received: Received
    deadline: Deadline
    context: Context
    queued: int


@dataclass(frozen=True)
class Ready:
    """A request whose items for the model are there, and whose picture is not kept any longer.

    decoded: when the picture was there, by time.perf_counter(). veto: for a pet, the items of the pose estimator.
    untrained: whether the model that is to answer is a stand-in; kept, as its runner may be gone when it has answered.
    """

    work: Work
    prepared: answers.Prepared
    veto: answers.Prepared | None
    decoded: float
    untrained: bool


class Answering:
    """Answers the requests of all routes."""

    def __init__(self, settings: Settings, links: Mapping[ModelName, Link], spans: Spans) -> None:
        """links: of the assigned models."""
        self._settings = settings
        self._limits = images.Limits(settings.limits.max_pixels, settings.limits.max_jpeg_scan_pixels)
        self._links = links
        self._spans = spans
        self._budget = MemoryBudget(settings.limits.max_picture_bytes)
        self._numbers = count(1)
        self._pictures = ThreadPoolExecutor(settings.limits.decode_threads, thread_name_prefix="picture")
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
            most = engines.batch_size(name)
            width = engines.side_by_side(self._settings.cpu_threads) + _AHEAD
            workers = Workers(name, width)
            return ModelQueue(name, width, partial(workers.start, partial(self._here, link)), most)
        width = self._settings.models[name].max_batch_size * _BATCHES
        return ModelQueue(name, width, lambda group, _: asyncio.ensure_future(self._there(link, *group)))

    # Where the engines are in this process: on one of its threads.

    def _here(self, link: EmbeddedLink, group: Sequence[Work], alone: bool) -> Outcomes[bytes]:
        outcomes = [self._attempt(work, self._ready, work) for work in group]
        ready = [each for each in outcomes if isinstance(each, Ready)]
        computed = iter(self._computed(link, ready, alone))
        return [
            self._attempt(each.work, self._finish_here, each, next(computed), alone)
            if isinstance(each, Ready)
            else each
            for each in outcomes
        ]

    def _attempt(self, work: Work, function: Callable[..., T], *arguments: Any) -> T | Exception:
        try:
            return work.context.run(function, *arguments)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is this request's, not the group's
            return error

    def _computed(self, link: EmbeddedLink, ready: Sequence[Ready], alone: bool) -> Iterator[Sequence[Any] | Exception]:
        """The results of each request, computed together."""
        if not ready:
            return
        items = [item for each in ready for item in each.prepared.items]
        deadline = ready[0].work.deadline if len(ready) == 1 else None
        first = ready[0].work
        results = self._attempt(first, self._compute, link, first.name, items, deadline, alone)
        at = 0
        for each in ready:
            count = len(each.prepared.items)
            yield results if isinstance(results, Exception) else results[at : at + count]
            at += count

    def _compute(
        self, link: EmbeddedLink, name: ModelName, items: Sequence[Any], deadline: Deadline | None, alone: bool
    ) -> Sequence[Any]:
        """Results and failures."""
        batch_size_of(link.name, name).observe(len(items))
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
        answer = self._interpreted(ready, [unwrap(result) for result in results])
        if (veto := _veto_of(ready, answer)) is not None:
            answer = _looked(answer, self._seen_here(veto, _deadline_of_veto(ready), alone))
        return self._encode(ready, answer)

    def _seen_here(self, veto: answers.Prepared, deadline: Deadline, alone: bool) -> Answer | Exception:
        link = self._links.get("pose_estimator")
        try:
            if not isinstance(link, EmbeddedLink):
                raise not_assigned("pose_estimator")
            results = self._compute(link, "pose_estimator", veto.items, deadline, alone)
            return veto.answer([unwrap(result) for result in results])
        except Exception as error:  # noqa: BLE001 - `_looked` tells it
            return error

    # Where they are in another process: on threads up to the items, and from the results.

    async def _there(self, link: Link, work: Work) -> Outcomes[bytes]:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        try:
            with work.deadline.stopping(partial(_call, loop, task.cancel)):
                return [await self._answer_there(link, work)]
        except Exception as error:  # noqa: BLE001 - as above
            return [error]

    async def _answer_there(self, link: Link, work: Work) -> bytes:
        ready = await self._in_thread(work, self._ready, work)
        answer = await self._in_thread(work, self._interpreted, ready, await self._ask(link, ready, ready.prepared))
        if (veto := _veto_of(ready, answer)) is not None:
            answer = _looked(answer, await self._seen_there(ready, veto))
        return await self._in_thread(work, self._encode, ready, answer)

    async def _ask(self, link: Link, ready: Ready, prepared: answers.Prepared) -> Sequence[Any]:
        sent = time.time_ns()
        results: Sequence[Any] = ()
        try:
            results = await link.infer(ready.work.name, prepared.items, ready.work.deadline)
            return results
        finally:  # a request that waited until its timeout is what one wants to see
            self._spans.of_runner(sent, results[0].get("timing") if results else None)

    async def _seen_there(self, ready: Ready, veto: answers.Prepared) -> Answer | Exception:
        link = self._links.get("pose_estimator")
        deadline = _deadline_of_veto(ready)
        try:
            if link is None:
                raise not_assigned("pose_estimator")
            async with asyncio.timeout(deadline.left_s):
                return veto.answer(await link.infer("pose_estimator", veto.items, deadline))
        except Exception as error:  # noqa: BLE001 - `_looked` tells it
            return error

    async def _in_thread(self, work: Work, function: Callable[..., T], *arguments: Any) -> T:
        call = partial(work.context.copy().run, function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pictures, call)

    # What both do. On threads.

    def _ready(self, work: Work) -> Ready:
        """A request's items. Raises ApiError for whatever is wrong with it, before the model's state.

        A client's mistake must never be a 5xx.
        """
        self._spans.past("wait", work.queued)
        with self._spans.step("read"):
            request = parse(
                work.received,
                self._settings.limits.max_image_bytes,
                wants_distance=work.route == DISTANCE_ROUTE,
            )
            with _image_errors():
                file = images.open_image(request.image, self._limits)
        status = work.link.model(work.name)  # before the work of decoding: can it be answered at all?
        options = answers.Options(request.min_confidence, request.min_keypoint_confidence, request.distance)
        with self._budget.hold(file.peak_bytes, work.deadline):
            with self._spans.step("decode"), _image_errors():
                picture = answers.Picture.of(file.decode(), request.box)
            decoded = time.perf_counter()
            with self._spans.step("prepare"):
                prepared = answers.prepare(work.name, picture, options, self._settings.models, status["input"])
                for item in prepared.items:
                    item["id"] = f"{request_id()}#{next(self._numbers)}"  # callers may give an id twice
                return Ready(work, prepared, self._prepared_veto(work, picture), decoded, status["untrained"])

    def _prepared_veto(self, work: Work, picture: answers.Picture) -> answers.Prepared | None:
        threshold = self._settings.models.pet_classifier.person_veto
        if work.name != "pet_classifier" or not threshold:
            return None
        return answers.prepare("pose_estimator", picture, answers.Options(threshold), self._settings.models, None)

    def _interpreted(self, ready: Ready, results: Sequence[Any]) -> Answer:
        size, deadline = ready.prepared.answer_bytes, ready.work.deadline
        with self._spans.step("post"), self._budget.hold(size, deadline) if size else nullcontext():
            return ready.prepared.answer(results)

    def _encode(self, ready: Ready, answer: Answer) -> bytes:
        if isinstance(answer, ThreatResponse) and answer.is_threat:
            audit.warning("request %s found %s", request_id(), _described(answer))
        with self._spans.step("encode"):
            elapsed = time.perf_counter() - ready.decoded
            metrics.LATENCY.labels(endpoint=ready.work.route).observe(elapsed)
            answer.inference_time_ms = round(elapsed * 1000, 2)
            if ready.untrained:
                answer.untrained = True
            return answer.model_dump_json(exclude_unset=True).encode()  # a null that was found is part of the answer


# The veto: no household pet where a person is in the picture, as a classifier of cats and dogs calls people dogs, too.


def _veto_of(ready: Ready, answer: Answer) -> answers.Prepared | None:
    """What the pose estimator is to look at; None where that changes nothing."""
    return ready.veto if isinstance(answer, PetResponse) and answer.is_household_pet else None


def _deadline_of_veto(ready: Ready) -> Deadline:
    """Before the pet's own: it gets its answer even where nobody could look."""
    return Deadline.after(ready.work.deadline.left_s * _SHARE_OF_VETO)


def _looked(answer: Answer, seen: Answer | Exception) -> Answer:
    """The pet's answer when somebody has looked for people, or could not: then a person is not ruled out."""
    assert isinstance(answer, PetResponse)
    if isinstance(seen, PoseResponse):
        answer.person_in_view = seen.num_people > 0
        answer.is_household_pet = not answer.person_in_view
        return answer
    assert isinstance(seen, Exception)
    expected = isinstance(seen, ApiError | Abandoned | TimeoutError)
    logger.warning("nobody could look for people beside a pet: %r", seen, exc_info=None if expected else seen)
    answer.person_in_view = None
    answer.is_household_pet = False
    return answer


def _described(answer: ThreatResponse) -> str:
    """What was found and where, for the log: nothing of the picture itself."""
    return "; ".join(
        f"{threat.label} ({threat.severity}, {threat.confidence:.2f}) at {[round(x) for x in threat.bbox_xyxy]}"
        for threat in answer.threats_detected
    )


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    loop.call_soon_threadsafe(function)


@contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except images.BoxOutside as error:
        raise invalid_field("bbox", str(error)) from None
    except images.ImageError as error:
        raise ApiError(_IMAGE_ERRORS[type(error)], str(error)) from None
