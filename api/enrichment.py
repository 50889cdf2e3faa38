"""Answers /enrich: several models about one image and its boxes, each error beside the other results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from api import metrics
from api.enrich_request import AskedBox, EnrichRequest, parse
from api.enrich_schemas import (
    BoxAnswer,
    BoxResults,
    EnrichError,
    EnrichResponse,
    FrameResults,
    ImageSize,
    ModelTimings,
    Timings,
)
from api.errors import ApiError, gravest, refusals
from api.gate import Body
from api.request import Received
from api.survey import Asked, Models, Survey, Surveyor
from api.work import Finding, Seen
from engines.deadline import Deadline
from models.catalogue import CATALOGUE, ModelName
from settings import Limits
from tasks import TASKS
from tasks.bounding_box import bounding_box
from tasks.picture import part_of
from tasks.task import Options, SceneOptions
from vision.arrays import Box

ENRICH_ROUTE: Final = "/enrich"
_OUTSIDE: Final = EnrichError(code="invalid_request", message="bbox: the box lies outside the image")


@dataclass(frozen=True)
class _Place:
    """A question's place in the answer: the frame, a box, or the scene that the boxes share (by their numbers)."""

    asked: Asked
    box: int | None = None
    scene_of: tuple[int, ...] = ()


class Enrichment:
    """Answers calls to several models. See tasks.task.Task.sees for what each one looks at."""

    def __init__(self, models: Models, surveyor: Surveyor, limits: Limits) -> None:
        self._models = models
        self._surveyor = surveyor
        self._limits = limits

    def check(self, left_s: float) -> None:
        """Refuse a call if no model can answer within `left_s` seconds. Raises ApiError."""
        refused = refusals(CATALOGUE, lambda name: self._models.check_model(name, left_s))
        if len(refused) == len(CATALOGUE):
            raise gravest(refused.values())

    async def answer(self, received: Received, deadline: Deadline) -> Body:
        """Return the answer as JSON. Raises ApiError if the call can't be read, or if nobody has an answer."""
        request = await asyncio.to_thread(parse, received, self._limits.max_image_bytes)
        began = time.perf_counter()
        response, seen = await self._enriched(request, deadline)
        elapsed = time.perf_counter() - began - response.timings.read_ms / 1000 - response.timings.decode_ms / 1000
        metrics.LATENCY.labels(endpoint=ENRICH_ROUTE).observe(elapsed)
        response.inference_time_ms = round(elapsed * 1000, 2)
        data = await asyncio.to_thread(_encoded, response)
        if request.picture is None:
            return Body(data)
        return await self._models.draw(request.image, request.picture, seen, data.decode(), deadline)

    async def _enriched(self, request: EnrichRequest, deadline: Deadline) -> tuple[EnrichResponse, list[Seen]]:
        models = self._able() if request.models is None else request.models
        places = list(_places(request, models))
        found = await self._surveyor.survey(request.image, [place.asked for place in places], deadline)
        return _Assembly(request, models, found).of(places), _seen(places, found)

    def _able(self) -> Sequence[ModelName]:
        """Return the models that can serve now. Raises ApiError if there is none."""
        refused = refusals(CATALOGUE, self._models.link)
        if len(refused) == len(CATALOGUE):
            raise gravest(refused.values())
        return [name for name in CATALOGUE if name not in refused]


def _places(request: EnrichRequest, models: Sequence[ModelName]) -> Iterator[_Place]:
    """Yield the questions of a call, those about the frame first, and each one's place in the answer."""
    boxes = [(number, box.box) for number, box in enumerate(request.boxes) if not isinstance(box.box, ApiError)]
    for name, task in TASKS.items():
        own = request.options[name]
        options = Options(own.get("min_confidence"), own.get("min_keypoint_confidence"))
        looking = [(number, box) for number, box in boxes if name in (request.boxes[number].models or models)]
        if task.sees == "scene" and (name in models or looking):
            scene = SceneOptions(tuple(box for _, box in looking), own.get("map", False))
            yield _Place(Asked(name, None, replace(options, scene=scene)), None, tuple(number for number, _ in looking))
            continue
        if not _looks_at_boxes(name, request):
            if name in models:
                yield _Place(Asked(name, None, options))
            looking = [(number, box) for number, box in looking if request.boxes[number].models]  # they name it
        yield from (_Place(Asked(name, box, options), number) for number, box in looking)


def _looks_at_boxes(name: ModelName, request: EnrichRequest) -> bool:
    """Whether a model looks at each box. Otherwise it looks at the frame, and at boxes that name it."""
    return bool(request.boxes) and (TASKS[name].sees != "frame" or request.options[name].get("on", False))


class _Assembly:
    """Puts the findings of a survey into their places in the answer."""

    def __init__(self, request: EnrichRequest, models: Sequence[ModelName], found: Survey) -> None:
        self._found = found
        self._frame: dict[ModelName, Any] = {}
        self._errors: dict[ModelName, EnrichError] = {}
        self._boxes: Sequence[tuple[AskedBox, dict[ModelName, Any], dict[ModelName, EnrichError]]] = [
            (box, {}, _unusable(box, [name for name in models if _looks_at_boxes(name, request)] or models))
            for box in request.boxes
        ]

    def of(self, places: Sequence[_Place]) -> EnrichResponse:
        """Return the answer. Raises ApiError if no model answered."""
        for place, finding in zip(places, self._found.findings, strict=True):
            self._put(place, finding)
        if not any(isinstance(finding, Finding) for finding in self._found.findings):
            unusable = [box.box for box, *_ in self._boxes if isinstance(box.box, ApiError)]
            raise gravest([*unusable, *(each for each in self._found.findings if isinstance(each, ApiError))])
        response = EnrichResponse(
            image=ImageSize(width=self._found.size[0], height=self._found.size[1]),
            results=FrameResults.model_validate(self._frame),
            boxes=[_box_answer(*box) for box in self._boxes],
            errors=self._errors,
            timings=self._timings(places),
            inference_time_ms=0,
        )
        if untrained := self._untrained(places):
            response.untrained = untrained
        return response

    def _put(self, place: _Place, finding: Finding | ApiError) -> None:
        name = place.asked.name
        if isinstance(finding, ApiError):
            error = EnrichError(code=finding.code, message=finding.message)
            if place.box is None:
                self._errors[name] = error
            for number in place.scene_of if place.box is None else (place.box,):
                self._boxes[number][2][name] = error
            return
        if place.box is not None:
            self._boxes[place.box][1][name] = finding.answer
            return
        self._frame[name] = finding.answer
        for number, of_box in zip(place.scene_of, finding.answer.of_boxes, strict=True):
            if of_box is None:
                self._boxes[number][2][name] = _OUTSIDE
            else:
                self._boxes[number][1][name] = of_box

    def _timings(self, places: Sequence[_Place]) -> Timings:
        by_model: dict[ModelName, list[Finding]] = {}
        for place, finding in zip(places, self._found.findings, strict=True):
            if isinstance(finding, Finding) and finding.timing is not None:
                by_model.setdefault(place.asked.name, []).append(finding)
        return Timings(
            read_ms=round(self._found.read_ms, 2),
            decode_ms=round(self._found.decode_ms, 2),
            prepare_ms=round(self._found.prepare_ms, 2),
            models={name: _model_timings(findings) for name, findings in by_model.items()},
        )

    def _untrained(self, places: Sequence[_Place]) -> list[ModelName]:
        found = zip(places, self._found.findings, strict=True)
        untrained = (each for each, finding in found if isinstance(finding, Finding) and finding.answer.untrained)
        return list(dict.fromkeys(place.asked.name for place in untrained))


def _unusable(box: AskedBox, models: Sequence[ModelName]) -> dict[ModelName, EnrichError]:
    """Return the errors of a box that can't be read, one for each model that should have looked at it."""
    if not isinstance(box.box, ApiError):
        return {}
    error = EnrichError(code=box.box.code, message=box.box.message)
    return dict.fromkeys(box.models or models, error)


def _box_answer(box: AskedBox, results: Mapping[ModelName, Any], errors: Mapping[ModelName, EnrichError]) -> BoxAnswer:
    sent: Box | None = None if isinstance(box.box, ApiError) else box.box
    return BoxAnswer(
        id=box.id,
        bbox=None if sent is None else bounding_box(np.array(sent, np.float32)),
        results=BoxResults.model_validate(results),
        errors=dict(errors),
    )


def _model_timings(findings: Sequence[Finding]) -> ModelTimings:
    timings = [(finding, finding.timing) for finding in findings if finding.timing is not None]
    forward_ns = [(timing["forwarded"] - timing["loaded"]) / timing["batch"] for _, timing in timings]
    return ModelTimings(
        queue_ms=round(max(timing["loaded"] - finding.began for finding, timing in timings) / 1e6, 2),
        forward_ms=round(sum(forward_ns) / 1e6, 2),
        items=len(timings),
    )


def _seen(places: Sequence[_Place], found: Survey) -> list[Seen]:
    """Return what to draw, threats before all else: a picture has a limited number of labels."""
    seen = [
        (place.asked.name, finding.answer, part_of(place.asked.box, *found.size))
        for place, finding in zip(places, found.findings, strict=True)
        if isinstance(finding, Finding)
    ]
    return sorted(seen, key=lambda each: not getattr(each[1], "is_threat", False))


def _encoded(response: EnrichResponse) -> bytes:
    """Encode the answer box by box: pydantic holds the GIL, for 0.3 s if 64 boxes have 300 people each."""
    whole = response.model_dump_json(exclude_unset=True, exclude={"boxes"})  # not exclude_none: some answers hold null
    boxes = ",".join(box.model_dump_json(exclude_unset=True) for box in response.boxes)
    return f'{whole[:-1]},"boxes":[{boxes}]}}'.encode()
