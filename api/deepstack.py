"""Answers the inference routes of DeepStack and CodeProject.AI with labels and boxes of our models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from api import metrics
from api.body import max_body_bytes, read_fields
from api.coding import inflate
from api.deepstack_shapes import ASKED, DEFAULT_CONFIDENCE, DETECTION_ROUTE, MOST, DetectionResponse, Prediction
from api.errors import ApiError, gravest, refusals
from api.gate import Body
from api.keys import Keys
from api.link import Link
from api.request import Received, parse
from api.survey import Asked, Models, Survey, Surveyor
from api.work import Finding
from engines.deadline import Deadline
from models.catalogue import ModelName
from settings import SERVICE_NAME, Settings
from tasks.task import Label, Options
from vision.arrays import Box

# A model with such an error does not serve until an operator acts. The route's other models answer without it.
_ABSENT: Final = frozenset({"model_not_assigned", "model_unavailable"})


class DeepStack:
    """Answers one of the routes. Its models look at one decoded image, through their queues."""

    def __init__(
        self, route: str, models: Models, surveyor: Surveyor, links: Mapping[ModelName, Link], settings: Settings
    ) -> None:
        """links: one for each assigned model."""
        self._route = route
        self._names = ASKED[route]
        self._models = models
        self._surveyor = surveyor
        self._links = [links[name] for name in self._names if name in links]
        self._limits = settings.limits
        self._keys = Keys(settings.server.keys)

    def check(self, left_s: float) -> None:
        """Refuse a request that can't be answered within `left_s` seconds. Raises ApiError."""
        refused = refusals(self._names, lambda name: self._models.check_model(name, left_s))
        self._raise(list(refused.values()))

    async def answer(self, received: Received, deadline: Deadline) -> Body:
        """Return the answer as JSON. Raises ApiError if the request can't be read, or if a model fails.

        Clients send their API key in the field `api_key`, unless they send it in a header.
        """
        received_at = time.perf_counter()
        if not received.trusted and not await asyncio.to_thread(self._has_form_key, received):
            raise ApiError("unauthorized", "send a valid API key in the field api_key, or as X-API-Key")
        asked = await asyncio.to_thread(parse, received, self._limits.max_image_bytes)
        least = DEFAULT_CONFIDENCE if asked.min_confidence is None else asked.min_confidence
        began = time.perf_counter()
        questions = [Asked(name, asked.box, Options(least)) for name in self._names]
        found = await self._surveyor.survey(asked.image, questions, deadline)
        elapsed_ms = (time.perf_counter() - began) * 1000
        metrics.LATENCY.labels(endpoint=self._route).observe((elapsed_ms - found.read_ms - found.decode_ms) / 1000)
        findings = self._findings(found)
        labels = [label for finding in findings for label in finding.answer.labels if label.confidence >= least]
        labels = sorted(labels, key=lambda label: label.confidence, reverse=True)[:MOST]
        response = DetectionResponse(
            message=self._message(labels, found.findings),
            count=len(labels),
            predictions=[_prediction(label, asked.box, found.size) for label in labels],
            inference_ms=round(elapsed_ms - found.read_ms - found.decode_ms - found.prepare_ms),
            process_ms=round(elapsed_ms),
            analysis_round_trip_ms=round((time.perf_counter() - received_at) * 1000),
            module_id=SERVICE_NAME,
            module_name=SERVICE_NAME,
            command="detect" if self._route == DETECTION_ROUTE else "custom",
            execution_provider=", ".join(dict.fromkeys(each.timing["engine"] for each in findings if each.timing)),
            can_use_gpu=self._on_gpu(),
            timestamp_utc=format_datetime(datetime.now(UTC), usegmt=True),
        )
        return Body(response.model_dump_json().encode())

    def _has_form_key(self, received: Received) -> bool:
        body = inflate(received.body, received.encoding, max_body_bytes(self._limits.max_image_bytes))
        sent = read_fields(received.content_type, body, ("api_key",)).get("api_key", "")
        return self._keys.accept(str(sent))

    def _findings(self, found: Survey) -> Sequence[Finding]:
        """Return the models' answers, without the absent models. Raises ApiError if a model failed or all are absent.

        A failure must not look like an image without objects.
        """
        self._raise([finding for finding in found.findings if isinstance(finding, ApiError)])
        return [finding for finding in found.findings if isinstance(finding, Finding)]

    def _raise(self, errors: Sequence[ApiError]) -> None:
        """Raise the gravest of the models' errors, if one has failed or all are absent."""
        failures = [error for error in errors if error.code not in _ABSENT]
        if failures or len(errors) == len(self._names):
            raise gravest(failures or errors)

    def _message(self, labels: Sequence[Label], findings: Sequence[Finding | ApiError]) -> str:
        names = ", ".join(dict.fromkeys(label.name for label in labels))
        notes = [f"Found {names}" if names else "No objects found"]
        for name, finding in zip(self._names, findings, strict=True):
            if isinstance(finding, ApiError):
                notes.append(f"without {name}: {finding.message}")
            elif finding.answer.untrained:
                notes.append(f"{name} has random weights, for a trial only")
        return "; ".join(notes)

    def _on_gpu(self) -> bool:
        """Whether one of the models computes on a GPU, as of the last heartbeat."""
        alive = [link.status for link in self._links if link.status]
        return any(status["device"]["index"] is not None for status in alive)


def _prediction(label: Label, asked: Box | None, size: tuple[int, int]) -> Prediction:
    """Return a label with its box in whole pixels within the image.

    asked: the box of a label without one; None for the whole image, which has `size`.
    """
    box = label.box or asked or (0, 0, *size)
    x_min, y_min, x_max, y_max = (
        round(min(max(value, 0), most)) for value, most in zip(box, (*size, *size), strict=True)
    )
    return Prediction(label=label.name, confidence=label.confidence, x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)
