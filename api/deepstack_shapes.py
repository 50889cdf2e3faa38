"""The routes, answers and errors of DeepStack and CodeProject.AI, as the clients of those servers read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from api.errors import ApiError
from api.schemas import Base64, BoxByCorners, BoxBySize, Corners
from models.catalogue import CATALOGUE, ModelName
from tasks import TASKS

PREFIX: Final = "/v1/"
DETECTION_ROUTE: Final = "/v1/vision/detection"
MOST: Final = 20  # predictions of an answer; Frigate's array has room for no more
DEFAULT_CONFIDENCE: Final = 0.4  # DeepStack's own
#: The custom models.
CUSTOM: Final[tuple[ModelName, ...]] = tuple(name for name, task in TASKS.items() if task.gives_labels)
#: Inference route → the models that it asks.
ASKED: Final[Mapping[str, tuple[ModelName, ...]]] = MappingProxyType(
    {
        DETECTION_ROUTE: tuple(name for name in CUSTOM if TASKS[name].sees == "frame"),
        **{f"/v1/vision/custom/{CATALOGUE[name].short_name}": (name,) for name in CUSTOM},
    }
)
LIST_ROUTE: Final = "/v1/vision/custom/list"
# CodeProject.AI has `server` in its paths, DeepStack has not.
PING_ROUTES: Final = ("/v1/status/ping", "/v1/server/status/ping")
UPDATE_ROUTES: Final = ("/v1/status/updateavailable", "/v1/server/status/updateavailable")
#: Routes that tell names and a version. Recorders send no key with a GET.
OPEN_ROUTES: Final = frozenset({LIST_ROUTE, *PING_ROUTES, *UPDATE_ROUTES})
# Clients know 400 as a fault of the image or the confidence, 403 as an endpoint that is off, and 500.
_STATUS: Final[Mapping[int, int]] = MappingProxyType({413: 400, 415: 400, 422: 400, 421: 403, 504: 500})


def error_response(path: str, error: ApiError, request_id: str) -> Response:
    """Return an error in the shape of its route: DeepStack's below PREFIX, else ours."""
    if not path.startswith(PREFIX):
        return error.response(request_id)
    body = json.dumps({"success": False, "error": error.message}, ensure_ascii=False)
    status = _STATUS.get(error.status, error.status)
    return Response(body, status, error.headers, media_type="application/json")


class DetectionInput(BaseModel):
    """One image for a route of DeepStack. Its clients send a form with the file `image`.

    Other fields are ignored. Clients send `api_key`, which is checked if the service has keys.
    """

    image_base64: Base64 | None = Field(None, description="base64 of an encoded image")
    image: Base64 | None = Field(None, description="another name for image_base64; send exactly one of the two")
    bbox: Corners | BoxBySize | BoxByCorners | None = Field(
        None, description="the part to analyse; default: the whole image", examples=[[100, 50, 300, 450]]
    )
    min_confidence: float | None = Field(
        None, ge=0, le=1, description=f"minimum confidence of a prediction; default: {DEFAULT_CONFIDENCE}"
    )


class Prediction(BaseModel):
    """One object: its label, its confidence, and its box in whole pixels of the upright image."""

    label: str
    confidence: float
    x_min: int
    y_min: int
    x_max: int
    y_max: int


class _Shape(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True)

    success: Literal[True] = True


class DetectionResponse(_Shape):
    """At most 20 predictions, sorted by confidence. Times are whole ms.

    inference: from the prepared image to the models' results, with queueing. process: decoding and preparing, too.
    analysis_round_trip: from the received body to the answer. execution_provider: the engines that computed.
    """

    message: str
    count: int
    predictions: list[Prediction]
    inference_ms: int
    process_ms: int
    analysis_round_trip_ms: int
    module_id: str
    module_name: str
    command: Literal["detect", "custom"]
    execution_provider: str
    can_use_gpu: bool = Field(alias="canUseGPU")
    timestamp_utc: str = Field(alias="timestampUTC", description="an HTTP date")


class CustomModelsResponse(_Shape):
    """The names of the custom models that this service serves."""

    models: list[str]


class PingResponse(_Shape):
    """The service is alive."""

    code: int
    message: str
    version: str
    hostname: str


class UpdateResponse(_Shape):
    """Whether there is a newer version. The service does not look for one."""

    message: str
    version: str
    update_available: bool


class Refusal(BaseModel):
    """An error below /v1/: a text."""

    success: Literal[False]
    error: str
