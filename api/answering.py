"""A request's way: read → decode → prepare → ask the model → interpret → encode.

Where the engines are in this process, one thread goes all the way. Else it goes up to the items, the event loop waits
for the runner process, and a thread goes on from its results.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from api import answers, metrics
from api.budget import MemoryBudget
from api.embedded import EmbeddedLink, Link
from api.errors import ApiError, ErrorCode, invalid_field, not_assigned
from api.queue import ModelQueue, Place
from api.request import ImageRequest, Received, parse
from api.schemas import Answer, PetResponse, PoseResponse
from api.tracing import Spans
from models.catalogue import CATALOGUE, ModelName
from runners.deadline import Deadline
from settings import Settings
from vision import decoding as images

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

DISTANCE_ROUTE: Final = "/object-distance"
MODEL_OF: Final[Mapping[str, ModelName]] = MappingProxyType(
    {spec.route: name for name, spec in CATALOGUE.items()} | {DISTANCE_ROUTE: "depth_estimator"}
)

_IMAGE_ERRORS: Final[Mapping[type[images.ImageError], ErrorCode]] = {
    images.DamagedImage: "invalid_image",
    images.UnsupportedFormat: "unsupported_media_type",
    images.ImageTooLarge: "image_too_large",
}


@dataclass(frozen=True)
class Asked:
    """A request that was read, its image up to the header."""

    request: ImageRequest
    file: images.PictureFile

    @property
    def memory(self) -> int:
        """Bytes that it takes until the model's input is there."""
        return self.file.peak_bytes


@dataclass(frozen=True)
class Ready:
    """A request whose items for the model are there, and whose picture is not kept any longer.

    decoded: when the picture was there, by time.perf_counter(). veto: for a pet, the items of the pose estimator.
    untrained: whether the model that is to answer is a stand-in; kept, as its runner may be gone when it has answered.
    """

    prepared: answers.Prepared
    veto: answers.Prepared | None
    decoded: float
    untrained: bool


@dataclass(frozen=True)
class _Work:
    """One request: where it was asked, what came, and until when."""

    route: str
    name: ModelName
    link: Link
    received: Received
    deadline: Deadline


class Answering:
    """Answers the requests of all routes."""

    def __init__(
        self, settings: Settings, links: Mapping[ModelName, Link], queues: Mapping[ModelName, ModelQueue], spans: Spans
    ) -> None:
        """links, queues: of the assigned models."""
        self._models = settings.models
        self._max_image_bytes = settings.limits.max_image_bytes
        self._limits = images.Limits(settings.limits.max_pixels, settings.limits.max_jpeg_scan_pixels)
        self._links = links
        self._queues = queues
        self._spans = spans
        self._budget = MemoryBudget(settings.limits.max_picture_bytes)

    def check(self, route: str, left_s: float) -> None:
        """Raises ApiError: model_not_assigned, or overloaded where an answer would take over `left_s` seconds."""
        name = MODEL_OF[route]
        if name not in self._queues:
            raise not_assigned(name)
        self._queues[name].check(left_s)

    async def answer(self, route: str, received: Received, deadline: Deadline) -> bytes:
        """The answer's JSON. Raises ApiError."""
        name = MODEL_OF[route]
        self.check(route, deadline.left_s)
        work = _Work(route, name, self._links[name], received, deadline)
        async with self._queues[name].place() as place:
            body = await self._answer(work, place)
            place.answered = True
            return body

    async def _answer(self, work: _Work, place: Place) -> bytes:
        done = await place.in_thread(self._begin, work, place.alone)
        if isinstance(done, Asked):  # there is too little memory now
            await self._budget.wait(done.memory)
            done = await place.in_thread(self._open, work, done, place.alone)
        if isinstance(done, bytes):
            return done
        results = await self._ask(work, work.link, work.name, done.prepared)
        answer = await place.in_thread(self._interpreted, done, results)
        if _needs_look(answer, done):
            answer = await self._look(work, done, answer)
        return await place.in_thread(self._encode, work, done, answer)

    async def _ask(self, work: _Work, link: Link, name: ModelName, prepared: answers.Prepared) -> Sequence[Any]:
        sent = time.time_ns()
        results: Sequence[Any] = ()
        try:
            results = await link.infer(name, prepared.items, work.deadline)
            return results
        finally:  # a request that waited until its timeout is what one wants to see
            self._spans.of_runner(sent, results[0]["timing"] if results else None)

    # What follows runs on threads.

    def _begin(self, work: _Work, alone: bool) -> bytes | Ready | Asked:
        """The answer, or the items for a runner process; or where memory is short what was asked.

        Raises ApiError for whatever is wrong with the request: before the model's state, as a client's mistake must
        never be a 5xx.
        """
        with self._spans.step("read"):
            wants_distance = work.route == DISTANCE_ROUTE
            request = parse(work.received, self._max_image_bytes, wants_distance=wants_distance)
            with _image_errors():
                asked = Asked(request, images.open_image(request.image, self._limits))
        work.link.model(work.name)  # before the work of decoding: can it be answered at all?
        work.deadline.check()
        return self._open(work, asked, alone) if self._budget.take(asked.memory) else asked

    def _open(self, work: _Work, asked: Asked, alone: bool) -> bytes | Ready:
        """The answer, or the items for a runner process. The memory was taken, and is given back."""
        try:
            ready = self._ready(work, asked)
        finally:
            self._budget.give_back(asked.memory)
        if not isinstance(work.link, EmbeddedLink):
            return ready
        answer = self._interpreted(ready, self._compute(work, work.link, work.name, ready.prepared, alone))
        if _needs_look(answer, ready):
            answer = self._look_here(work, ready, answer)
        return self._encode(work, ready, answer)

    def _ready(self, work: _Work, asked: Asked) -> Ready:
        request = asked.request
        with self._spans.step("decode"), _image_errors():
            picture = answers.Picture.of(asked.file.decode(), request.box)
        decoded = time.perf_counter()
        with self._spans.step("prepare"):
            status = work.link.model(work.name)
            options = answers.Options(request.min_confidence, request.min_keypoint_confidence, request.distance)
            prepared = answers.prepare(work.name, picture, options, self._models, status["input"])
            return Ready(prepared, self._prepared_veto(work, picture), decoded, status["untrained"])

    def _prepared_veto(self, work: _Work, picture: answers.Picture) -> answers.Prepared | None:
        threshold = self._models.pet_classifier.person_veto
        if work.name != "pet_classifier" or not threshold:
            return None
        return answers.prepare("pose_estimator", picture, answers.Options(threshold), self._models, None)

    def _compute(
        self, work: _Work, link: EmbeddedLink, name: ModelName, prepared: answers.Prepared, alone: bool
    ) -> Sequence[Any]:
        sent = time.time_ns()
        results: Sequence[Any] = ()
        try:
            results = link.compute(name, prepared.items, work.deadline, alone=alone)
            return results
        finally:
            self._spans.of_runner(sent, results[0]["timing"] if results else None)

    def _interpreted(self, ready: Ready, results: Sequence[Any]) -> Answer:
        with self._spans.step("post"):
            return ready.prepared.answer(results)

    def _encode(self, work: _Work, ready: Ready, answer: Answer) -> bytes:
        with self._spans.step("encode"):
            elapsed = time.perf_counter() - ready.decoded
            metrics.LATENCY.labels(endpoint=work.route).observe(elapsed)
            answer.inference_time_ms = round(elapsed * 1000, 2)
            if ready.untrained:
                answer.untrained = True
            return answer.model_dump_json(exclude_unset=True).encode()  # a null that was found is part of the answer

    # The veto: no household pet where a person is in the picture, as a classifier of cats and dogs calls people dogs.

    async def _look(self, work: _Work, ready: Ready, answer: Answer) -> Answer:
        assert ready.veto is not None
        link = self._links.get("pose_estimator")
        try:
            if link is None:
                raise not_assigned("pose_estimator")
            seen = ready.veto.answer(await self._ask(work, link, "pose_estimator", ready.veto))
        except ApiError as error:
            return _unseen(answer, error)
        return _seen(answer, seen)

    def _look_here(self, work: _Work, ready: Ready, answer: Answer) -> Answer:
        assert ready.veto is not None
        link = self._links.get("pose_estimator")
        try:
            if not isinstance(link, EmbeddedLink):
                raise not_assigned("pose_estimator")
            seen = ready.veto.answer(self._compute(work, link, "pose_estimator", ready.veto, alone=False))
        except ApiError as error:
            return _unseen(answer, error)
        return _seen(answer, seen)


def _needs_look(answer: Answer, ready: Ready) -> bool:
    return ready.veto is not None and isinstance(answer, PetResponse) and answer.is_household_pet


def _seen(answer: Answer, seen: Answer) -> Answer:
    assert isinstance(answer, PetResponse)
    assert isinstance(seen, PoseResponse)
    answer.person_in_view = seen.num_people > 0
    answer.is_household_pet = not answer.person_in_view
    return answer


def _unseen(answer: Answer, error: ApiError) -> Answer:
    """Nobody could look: then it is not beyond doubt that there is no person."""
    assert isinstance(answer, PetResponse)
    logger.warning("nobody looked for people beside a pet: %s", error.message)
    answer.person_in_view = None
    answer.is_household_pet = False
    return answer


@contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except images.BoxOutside as error:
        raise invalid_field("bbox", str(error)) from None
    except images.ImageError as error:
        raise ApiError(_IMAGE_ERRORS[type(error)], str(error)) from None
