"""The backend as the service meets it: what its pipeline sends, what it does with an answer, what it reads of it."""

from __future__ import annotations

import base64
import io
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from PIL import Image

Json = dict[str, Any]

TRIES: Final = 3
KEYPOINT_CONFIDENCE: Final = 0.3  # which the pipeline sends as `min_confidence`

_NUMBER: Final = {"type": "number"}
_FRACTION: Final = {"type": "number", "minimum": 0, "maximum": 1}
_BOX: Final = {
    "type": "object",
    "required": ["x", "y", "width", "height"],
    "properties": dict.fromkeys(("x", "y", "width", "height"), _NUMBER),
}


def _schema(**properties: Any) -> Json:
    return {"type": "object", "required": ["inference_time_ms", *properties], "properties": properties}


#: What the backend holds an answer of each route against: the keys of the seed, and whatever else beside them.
SCHEMAS: Final[dict[str, Json]] = {
    "/pose-analyze": _schema(
        keypoints={
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "x", "y", "confidence"],
                "properties": {"name": {"type": "string"}, "x": _NUMBER, "y": _NUMBER, "confidence": _FRACTION},
            },
        },
        posture={"type": "string"},
        alerts={"type": "array", "items": {"type": "string"}},
    ),
    "/threat-detect": _schema(
        threats_detected={
            "type": "array",
            "items": {
                "type": "object",
                "required": ["class", "confidence", "bbox"],
                "properties": {"class": {"type": "string"}, "confidence": _FRACTION, "bbox": _BOX},
            },
        },
        is_threat={"type": "boolean"},
        max_confidence=_FRACTION,
    ),
    "/person-reid": _schema(
        embedding={"type": "array", "items": _NUMBER, "minItems": 512, "maxItems": 512},
        embedding_dim={"const": 512},
    ),
    "/pet-classify": _schema(
        pet_type={"type": "string"},
        breed={"type": "string"},
        confidence=_FRACTION,
        is_household_pet={"type": "boolean"},
    ),
    "/depth-estimate": _schema(
        depth_map_base64={"type": "string", "contentEncoding": "base64"},
        min_depth=_FRACTION,
        max_depth=_FRACTION,
        mean_depth=_FRACTION,
    ),
}


@dataclass
class Backend:
    """The pipeline's client. tries: of the last request. last: its answer."""

    url: str
    correlation_id: str = field(default_factory=lambda: f"camera-1:{uuid.uuid4()}")
    traceparent: str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    tries: int = 0
    last: httpx.Response = field(init=False)

    def ask(self, route: str, picture: Image.Image | bytes, /, **more: Any) -> httpx.Response:
        """Ask about a picture as it is. A 4xx is final, a 5xx is tried again."""
        payload = {"image": _base64(picture), "detection_id": 4711, "camera_id": "front_door"} | more
        headers = {"X-Correlation-ID": self.correlation_id, "traceparent": self.traceparent}
        for self.tries in range(1, TRIES + 1):
            self.last = httpx.post(self.url + route, json=payload, headers=headers, timeout=30)
            if self.last.status_code < 500:
                break
        return self.last

    def ask_about(self, route: str, frame: Image.Image, box: tuple[int, int, int, int], **more: Any) -> Json:
        """Ask about what is in a box of a frame: the crop is sent, together with the box in the frame."""
        if route == "/pose-analyze":
            more = {"min_confidence": KEYPOINT_CONFIDENCE} | more
        answer: Json = self.ask(route, frame.crop(box), bbox=list(box), **more).raise_for_status().json()
        return answer


def _base64(image: Image.Image | bytes) -> str:
    if isinstance(image, bytes):
        return base64.b64encode(image).decode()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return base64.b64encode(buffer.getvalue()).decode()
