"""Requests and responses as BentoML's OpenAPI document and Python client see them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import bentoml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from starlette.requests import Request

from api.request import Received


class ImageInput(bentoml.IODescriptor):
    """One image and its options. Sent as JSON, as multipart/form-data (file part `image`) or as the image itself."""

    # BentoML then hands the method this object, not its fields one by one.
    __root_input__: ClassVar[bool] = True

    image_base64: str | None = Field(None, description="base64 of an encoded image; a data: prefix is accepted")
    image: str | None = Field(
        None, description="the same under the name that the backend sends; exactly one of the two"
    )
    bbox: list[float] | None = Field(
        None, description="x1, y1, x2, y2 in pixels of the upright image: the part to look at"
    )
    min_confidence: float | None = Field(None, ge=0, le=1, description="of a person (pose) or a threat")

    _received: Received = PrivateAttr()

    @property
    def received(self) -> Received:
        """The request as it came; reading it costs time and happens on a thread of its own."""
        return self._received

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The fields, without BentoML's mark for root inputs: its Python client then takes them as keywords."""
        schema: dict[str, Any] = super().model_json_schema(*args, **kwargs)
        schema.pop("root_input", None)
        return schema

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> ImageInput:  # noqa: ARG003
        """Take the body unread: BentoML's own reading knows neither raw images nor our errors."""
        instance: ImageInput = cls.model_construct()
        instance._received = Received(
            content_type=request.headers.get("content-type", ""),
            body=await request.body(),
            query={name: request.query_params.getlist(name) for name in request.query_params},
            encoding=",".join(request.headers.getlist("content-encoding")),
        )
        return instance


class _Response(BaseModel):
    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


class Answer(_Response):
    """What every 200 has. inference_time_ms: from the decoded image to the result, queueing included."""

    inference_time_ms: float = 0.0
    untrained: Literal[True] | None = Field(None, description="present where random weights answered: a trial only")


class BoundingBox(_Response):
    """Left upper corner and size in pixels of the image as sent, EXIF-upright."""

    x: float
    y: float
    width: float
    height: float


class Keypoint(_Response):
    """A COCO-17 joint in pixels of the image as sent."""

    name: str
    x: float
    y: float
    confidence: float


class Person(_Response):
    keypoints: list[Keypoint]
    posture: str
    alerts: list[str]
    bbox: BoundingBox
    confidence: float


class PoseResponse(Answer):
    """The most prominent person (highest box score × area) at the top level, everybody under `persons`, best first."""

    keypoints: list[Keypoint]
    posture: str
    alerts: list[str]
    num_people: int
    persons: list[Person]


class Threat(_Response):
    label: str = Field(alias="class", description="as the checkpoint names it")
    confidence: float
    bbox: BoundingBox
    severity: Literal["critical", "high", "medium"]


class ThreatResponse(Answer):
    threats_detected: list[Threat]
    is_threat: bool
    max_confidence: float


class ReidResponse(Answer):
    """embedding: L2-normalised float32."""

    embedding: list[float]
    embedding_dim: int
    embedding_dimension: int


class PetResponse(Answer):
    """confidence: the softmax probability of pet_type. person_in_view: None where nobody looked."""

    pet_type: str
    breed: str
    confidence: float
    is_household_pet: bool
    probabilities: dict[str, float]
    person_in_view: bool | None = None


class DepthResponse(Answer):
    """depth_map_base64: 8-bit grey PNG, bright is near; the three figures are of the region asked for, 0…1."""

    depth_map_base64: str
    min_depth: float
    max_depth: float
    mean_depth: float
