"""Answers /person-reid/compare and /person-reid/match. Nothing is stored, so replicas answer alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from api import metrics
from api.comparison_request import Image, Subject, check_model, parse_compare, parse_match
from api.errors import ApiError
from api.gate import Body
from api.request import Received
from api.survey import Asked, Surveyor
from engines.deadline import Deadline
from settings import Settings
from tasks.similarity import (
    PERSON_CONFIDENCE,
    CompareResponse,
    Embedding,
    MatchResponse,
    Side,
    compare,
    embedding_of,
    match,
    shows_person,
    threshold_for,
)
from tasks.task import Answer, Options
from vision.arrays import Box


@dataclass(frozen=True)
class EmbeddedSubject:
    """An image's embedding.

    person_in_view: whether the pose model found a person; None if it gave no answer. untrained: whether stand-in
    weights made the embedding.
    """

    embedding: Embedding
    person_in_view: bool | None
    untrained: bool = False


COMPARE_ROUTE: Final = "/person-reid/compare"
MATCH_ROUTE: Final = "/person-reid/match"
_LOOK: Final = Options(min_confidence=PERSON_CONFIDENCE)

#: Embeds an encoded image, or the part of it in a box, before a deadline. Raises ApiError.
Embed = Callable[[bytes, Box | None, Deadline], Awaitable[EmbeddedSubject]]


class Comparison:
    """Compares people by their embeddings, and embeds images first."""

    def __init__(self, threshold: float | None, max_image_bytes: int, embed: Embed) -> None:
        """threshold: the operator's setting, None to use the measured one."""
        self._threshold = threshold
        self._max_image_bytes = max_image_bytes
        self._embed = embed

    async def compare(self, received: Received, deadline: Deadline) -> CompareResponse:
        """Compare two people. Raises ApiError, or Abandoned after the deadline."""
        asked = await asyncio.to_thread(parse_compare, received, self._max_image_bytes)
        began = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._seen(field, subject, deadline))
                    for field, subject in (("first", asked.first), ("second", asked.second))
                ]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        first, second = (task.result() for task in tasks)
        ids = first.embedding.model_id, second.embedding.model_id
        if isinstance(asked.second, Embedding):
            check_model("second.model_id", ids[1], ids[0])
        else:
            check_model("first.model_id", ids[0], ids[1])
        threshold = threshold_for(ids[0], self._threshold, asked.threshold)
        sides = (Side(person_in_view=first.person_in_view), Side(person_in_view=second.person_in_view))
        answer = compare(first.embedding, second.embedding, threshold, sides)
        if first.untrained or second.untrained:
            answer.untrained = True
        answer.inference_time_ms = _ms_since(began)
        return answer

    async def match(self, received: Received, deadline: Deadline) -> MatchResponse:
        """Rank candidates by their similarity to a person. Raises ApiError, or Abandoned after the deadline."""
        asked = await asyncio.to_thread(parse_match, received, self._max_image_bytes)
        began = time.perf_counter()
        query = await self._seen("query", asked.query, deadline)
        check_model("candidates[0].model_id", asked.model_id, query.embedding.model_id)
        threshold = threshold_for(asked.model_id, self._threshold, asked.threshold)
        side = Side(person_in_view=query.person_in_view)
        found = query.embedding, asked.ids, asked.candidates, threshold, side, asked.top
        answer = await asyncio.to_thread(match, *found)
        if query.untrained:
            answer.untrained = True
        answer.inference_time_ms = _ms_since(began)
        return answer

    async def _seen(self, field: str, subject: Subject, deadline: Deadline) -> EmbeddedSubject:
        if not isinstance(subject, Image):
            return EmbeddedSubject(subject, None)
        try:
            return await self._embed(subject.image, subject.box, deadline)
        except ApiError as error:
            raise _about(field, error) from None


class Embedder:
    """Embeds an image, and looks for a person in it, by way of the models' queues. See Embed."""

    def __init__(self, surveyor: Surveyor) -> None:
        self._surveyor = surveyor

    async def __call__(self, image: bytes, box: Box | None, deadline: Deadline) -> EmbeddedSubject:
        asked = (Asked("person_reid", box), Asked("pose_estimator", box, _LOOK))
        reid, pose = (await self._surveyor.survey(image, asked, deadline)).findings
        if isinstance(reid, ApiError):
            raise reid
        in_view = None if isinstance(pose, ApiError) else shows_person(pose.answer)
        return EmbeddedSubject(embedding_of(reid.answer), in_view, bool(reid.answer.untrained))


class Call(Protocol):
    """The handler of a route that belongs to no single model."""

    def check(self, left_s: float) -> None:
        """Refuse a call that can't be answered within `left_s` seconds. Raises ApiError."""
        ...

    async def answer(self, received: Received, deadline: Deadline) -> Body:
        """Return the answer. Raises ApiError, or Abandoned after the deadline."""
        ...


@dataclass(frozen=True)
class _Call:
    """A comparison's route. See Call."""

    route: str
    compare: Callable[[Received, Deadline], Awaitable[Answer]]

    def check(self, left_s: float) -> None:
        """Refuse nothing: embeddings can be compared without a model."""

    async def answer(self, received: Received, deadline: Deadline) -> Body:
        answer = await self.compare(received, deadline)
        metrics.LATENCY.labels(endpoint=self.route).observe(answer.inference_time_ms / 1000)
        return Body(answer.model_dump_json(exclude_unset=True).encode())  # not exclude_none: some fields hold null


def comparisons(surveyor: Surveyor, settings: Settings) -> dict[str, Call]:
    """Return what answers the two routes."""
    threshold = settings.models.person_reid.same_person_threshold
    setting = None if threshold == "auto" else threshold
    comparison = Comparison(setting, settings.limits.max_image_bytes, Embedder(surveyor))
    calls = {COMPARE_ROUTE: comparison.compare, MATCH_ROUTE: comparison.match}
    return {route: _Call(route, compare) for route, compare in calls.items()}


def _about(field: str, error: ApiError) -> ApiError:
    """Return an error that says which of the images it is about."""
    details = [{**detail, "field": f"{field}.{detail['field']}"} for detail in error.details]
    return ApiError(error.code, f"{field}: {error.message}", details, retry_after_s=error.retry_after_s)


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 2)
