"""Answers /person-reid/compare and /person-reid/match. Nothing is stored, so replicas answer alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from api.comparison_request import Image, Subject, check_model, parse_compare, parse_match
from api.errors import ApiError
from api.request import Received
from engines.deadline import Deadline
from tasks.similarity import CompareResponse, Embedding, MatchResponse, Side, compare, match, threshold_for
from vision.arrays import Box


@dataclass(frozen=True)
class Seen:
    """An image's embedding.

    person_in_view: whether the pose model found a person; None if it could not look. untrained: whether stand-in
    weights made the embedding.
    """

    embedding: Embedding
    person_in_view: bool | None
    untrained: bool = False


#: Embeds an encoded image, or the part of it in a box, before a deadline. Raises ApiError.
Embed = Callable[[bytes, Box | None, Deadline], Awaitable[Seen]]


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
        answer = match(query.embedding, asked.ids, asked.candidates, threshold, side, asked.top)
        if query.untrained:
            answer.untrained = True
        answer.inference_time_ms = _ms_since(began)
        return answer

    async def _seen(self, field: str, subject: Subject, deadline: Deadline) -> Seen:
        if not isinstance(subject, Image):
            return Seen(subject, None)
        try:
            return await self._embed(subject.image, subject.box, deadline)
        except ApiError as error:
            raise _about(field, error) from None


def _about(field: str, error: ApiError) -> ApiError:
    """Return an error that says which of the images it is about."""
    details = [{**detail, "field": f"{field}.{detail['field']}"} for detail in error.details]
    return ApiError(error.code, f"{field}: {error.message}", details, retry_after_s=error.retry_after_s)


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 2)
