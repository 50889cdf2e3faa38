"""The pydantic models of a call to /enrich and its answer. The models' own answers are those of their routes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from api.errors import ErrorCode
from api.schemas import BoxByCorners, BoxBySize, Corners, DrawnInput
from models.catalogue import ModelName
from tasks import TASKS
from tasks.bounding_box import BoundingBox


class AskedBoxInput(BaseModel):
    """A box of the image, with the models that look at it."""

    id: str | None = Field(
        None, min_length=1, max_length=64, description="the caller's name for it; default: its position, from 0"
    )
    bbox: Corners | BoxBySize | BoxByCorners = Field(examples=[[100, 50, 300, 450]])
    models: list[ModelName] | None = Field(None, min_length=1, description="default: the call's models")


_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "min_confidence": (float | None, Field(None, ge=0, le=1, description="of a person or a threat")),
        "min_keypoint_confidence": (float | None, Field(None, ge=0, le=1, description="of a listed keypoint")),
        "on": (
            Literal["frame", "boxes"] | None,
            Field(None, description="what it looks at if boxes are sent; default: the frame"),
        ),
        "map": (bool | None, Field(None, description="whether to return the depth map; default: false")),
    }
)


def _options_of(name: ModelName) -> type[BaseModel]:
    model: type[BaseModel] = create_model(
        f"{TASKS[name].__name__}Options",
        __config__=ConfigDict(extra="forbid"),
        __doc__=f"Options of {name} in a call to several models.",
        **{option: _OPTIONS[option] for option in TASKS[name].option_names},
    )
    return model


_by_model: dict[str, Any] = {
    name: (_options_of(name) | None, None) for name, task in TASKS.items() if task.option_names
}
EnrichOptions = create_model(
    "EnrichOptions", __config__=ConfigDict(extra="forbid"), __doc__="Options by the model's name.", **_by_model
)


class EnrichInput(DrawnInput):
    """One image for several models. Without boxes every model looks at the whole image."""

    models: list[ModelName] | None = Field(
        None,
        min_length=1,
        description="the models to ask; default: every one that can serve now",
        examples=[["pose_estimator", "threat_detector"]],
    )
    boxes: list[AskedBoxInput] | None = Field(
        None, max_length=64, description="boxes of the image; send either this or bbox"
    )
    options: EnrichOptions | None = Field(None, description="options by the model's name")


class EnrichError(BaseModel):
    """Why a model did not answer."""

    code: ErrorCode
    message: str


def _answers(name: str, kind: Literal["frame_response", "box_response"], doc: str) -> type[BaseModel]:
    fields: dict[str, Any] = {model: (getattr(task, kind) | None, None) for model, task in TASKS.items()}
    return create_model(name, __doc__=doc, **fields)


FrameResults = _answers("FrameResults", "frame_response", "The models' answers on the whole image.")
BoxResults = _answers("BoxResults", "box_response", "The models' answers on a box.")


class BoxAnswer(BaseModel):
    """A box's answers and errors. bbox: as asked, null if it could not be read."""

    id: str
    bbox: BoundingBox | None
    results: BoxResults  # type: ignore[valid-type]
    errors: dict[ModelName, EnrichError]


class ImageSize(BaseModel):
    """The upright image in pixels."""

    width: int
    height: int


class ModelTimings(BaseModel):
    """One model's times in ms. queue: the longest wait. forward: its forward passes together, by share of a batch."""

    queue_ms: float
    forward_ms: float
    items: int = Field(description="answers of this model in the call")


class Timings(BaseModel):
    """Times of a call in ms."""

    read_ms: float
    decode_ms: float
    prepare_ms: float
    models: dict[ModelName, ModelTimings]


class EnrichResponse(BaseModel):
    """What all asked models say about one image. A model or box that failed has an error instead of a result."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    image: ImageSize
    results: FrameResults  # type: ignore[valid-type]
    boxes: list[BoxAnswer]
    errors: dict[ModelName, EnrichError]
    timings: Timings
    inference_time_ms: float
    untrained: list[ModelName] | None = Field(None, description="models with random weights, in a trial only")
