"""The pydantic models of requests and responses, for the OpenAPI document and BentoML's Python client."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

import bentoml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel
from starlette.requests import Request

from api.errors import ErrorCode
from api.numbers import LIMIT
from api.pictures import Render
from api.request import Received
from models.catalogue import ModelName
from models.state import State
from tasks.distance import Method
from vision.depth_map import Colormap, Format

Coordinate = Annotated[float, Field(gt=-LIMIT, lt=LIMIT)]


class BoxByCorners(BaseModel):
    """Upper left and lower right corner in pixels of the upright image; x2 > x1 and y2 > y1."""

    x1: Coordinate
    y1: Coordinate
    x2: Coordinate
    y2: Coordinate


class BoxBySize(BaseModel):
    """Upper left corner and size in pixels of the upright image."""

    x: Coordinate
    y: Coordinate
    width: float = Field(gt=0, lt=LIMIT)
    height: float = Field(gt=0, lt=LIMIT)


Base64 = Annotated[str, Field(min_length=1, json_schema_extra={"format": "byte"})]
# x1, y1, x2, y2 in pixels of the upright image; x2 > x1 and y2 > y1
Corners = Annotated[list[Coordinate], Field(min_length=4, max_length=4)]


class Unparsed(bentoml.IODescriptor):
    """A request body as received. The fields of its classes are for the OpenAPI document.

    forms: further content types of the body → their model. query_options: the query string's parameters; None if
    api/request_schemas.py derives them. files: media types of an answer beside JSON.
    """

    # Makes BentoML pass this object to the method, not its fields one by one.
    __root_input__: ClassVar[bool] = True

    forms: ClassVar[Mapping[str, type[BaseModel]]] = MappingProxyType({})
    query_options: ClassVar[type[BaseModel] | None] = None
    files: ClassVar[tuple[str, ...]] = ()

    _received: Received = PrivateAttr()

    @property
    def received(self) -> Received:
        """The request as received, not parsed yet."""
        return self._received

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the schema that BentoML's Python client reads from /schema.json.

        Without BentoML's mark for root inputs the client takes the fields as keywords.
        """
        schema: dict[str, Any] = super().model_json_schema(*args, **kwargs)
        schema.pop("root_input", None)
        return schema

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> Self:  # noqa: ARG003
        """Keep the body unparsed: BentoML's own parser knows neither raw images nor our errors."""
        instance: Self = cls.model_construct()
        instance._received = Received(
            content_type=request.headers.get("content-type", ""),
            body=await request.body(),
            query={name: request.query_params.getlist(name) for name in request.query_params},
            encoding=",".join(request.headers.getlist("content-encoding")),
            accept=",".join(request.headers.getlist("accept")),
        )
        return instance


class ImageInput(Unparsed):
    """One image and its options, as a JSON body holds them. api/request_schemas.py derives the other bodies."""

    image_base64: Base64 | None = Field(
        None,
        description="base64 of an encoded image, with or without the prefix `data:image/…;base64,`",
    )
    image: Base64 | None = Field(
        None,
        description="another name for image_base64; send exactly one of the two",
    )
    bbox: Corners | BoxBySize | BoxByCorners | None = Field(
        None,
        description="the part to analyse; it is clamped to the image, and refused if it lies wholly outside",
        examples=[[100, 50, 300, 450]],
    )
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="minimum confidence of a person (/pose-analyze) or a threat (/threat-detect)"
    )
    min_keypoint_confidence: float | None = Field(
        None, ge=0, le=1, description="minimum confidence of a listed keypoint (/pose-analyze)"
    )

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """See Unparsed. The client takes an `image` as a path or as a Pillow image, and base64 as `image_base64`."""
        schema = super().model_json_schema(*args, **kwargs)
        schema["properties"]["image"] = {"type": "file", "format": "image"}
        return schema


class DrawnInput(ImageInput):
    """One image whose answer can be an annotated picture."""

    files: ClassVar[tuple[str, ...]] = ("image/jpeg", "image/png")

    render: Render | None = Field(
        None,
        description="overlay answers with the annotated picture. So does an Accept header that prefers image/jpeg or"
        " image/png to JSON and does not list text/html. It is a JPEG unless the header prefers image/png",
    )


class MapInput(ImageInput):
    """One image whose depth map can be a file."""

    files: ClassVar[tuple[str, ...]] = ("image/png", "application/x-npy")

    format: Format | None = Field(
        None,
        description="answers with the map itself: a PNG of 8 or 16 bits, or NumPy's .npy of float32 0…1; 1 is near."
        " An Accept header that prefers image/png to JSON, and does not list text/html, means png8",
    )
    colormap: Colormap | None = Field(None, description="answers with a PNG in colours; not with png16 or npy")


class DistanceInput(ImageInput):
    """One image and the box of an object in it."""

    bbox: Corners | BoxBySize | BoxByCorners = Field(description="the object's box", examples=[[100, 50, 300, 450]])
    method: Method = Field("center", description="the depth taken from the box; min is the nearest point")
    near_m: float | None = Field(
        None, gt=0, lt=LIMIT, description="metres to the nearest point of the scene; needs far_m"
    )
    far_m: float | None = Field(
        None, gt=0, lt=LIMIT, description="metres to the farthest point of the scene; needs near_m"
    )


class _Response(BaseModel):
    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


class ModelHealth(_Response):
    """One model. loads: count since its runner's start. memory_mb: MB (10⁶ bytes), null before its first load."""

    state: State
    engine: str | None
    precision: str | None
    weights: str | None
    detail: str | None
    memory_mb: int | None
    loads: int
    engine_build_failed: bool


class DeviceHealth(_Response):
    """The device of a runner. index: physical, in PCI order. On a CPU everything but the name is null."""

    name: str
    index: int | None
    memory_gb: float | None
    driver: str | None


class MemoryHealth(_Response):
    """Memory of a runner process in MB (10⁶ bytes). budget_mb: null = no limit."""

    used_mb: int
    budget_mb: int | None
    out_of_memory: int = Field(description="batches for which the device had too little memory")


class RunnerHealth(_Response):
    """One runner process. device and memory are null while the process restarts."""

    name: str
    pid: int | None
    restarts: int
    last_fault: str | None
    device: DeviceHealth | None
    memory: MemoryHealth | None


class HealthResponse(_Response):
    """The service and each model as of the last heartbeat. `unhealthy` comes with a 503."""

    status: Literal["healthy", "degraded", "unhealthy"]
    models_loaded: dict[ModelName, bool]
    gpu_available: bool
    gpu_memory_used_gb: float
    uptime_seconds: float
    models: dict[str, ModelHealth | bool]
    runners: list[RunnerHealth]


class ShortHealthResponse(_Response):
    """The answer to a caller without the API key."""

    status: Literal["healthy", "degraded", "unhealthy"]


class KeyedHealthResponse(RootModel[HealthResponse | ShortHealthResponse]):
    """Everything for callers with the API key, the status alone for others."""


class ModelNameInput(BaseModel):
    """A model by its name, by its folder in the model zoo or by its short name."""

    model_name: str = Field(examples=["person_reid", "osnet-x0-25", "reid"])


class ModelChangedResponse(_Response):
    """A model after loading or unloading. name: its folder in the model zoo."""

    name: str
    loaded: bool
    state: State


class ModelsChangedResponse(_Response):
    """All models that were loaded or unloaded."""

    models: list[ModelChangedResponse]


class LoadedModel(_Response):
    """A model in memory. vram_mb: 10⁶ bytes of GPU memory, 0 on a CPU. last_used: ISO 8601, UTC."""

    name: str
    loaded: bool
    vram_mb: int
    priority: Literal["preloaded", "on_demand"]
    last_used: str | None


class ModelsStatusResponse(_Response):
    """The models in memory. Figures are MB (10⁶ bytes) of GPU memory, 0 on a CPU. vram_budget_mb: 0 = no limit."""

    status: Literal["healthy", "degraded", "unhealthy"]
    vram_total_mb: int
    vram_used_mb: int
    vram_available_mb: int
    vram_budget_mb: int
    loaded_models: list[LoadedModel]
    pending_loads: list[str]
    uptime_seconds: float


class AliveResponse(_Response):
    """The process answers."""

    status: Literal["alive"]


class ReadyResponse(_Response):
    """Every preloaded model can serve."""

    status: Literal["ready"]


class NotReadyResponse(_Response):
    """The answer of /readyz before the service is ready. models: the state of each assigned model."""

    status: Literal["not_ready"]
    models: dict[ModelName, State]


class ErrorDetail(_Response):
    """A wrong field of the request, and what is wrong with it."""

    field: str
    message: str


class ErrorBody(_Response):
    """One error. details: the wrong fields of the request, if the error is about fields."""

    code: ErrorCode
    message: str
    request_id: str
    details: list[ErrorDetail] | None = None


class ErrorResponse(_Response):
    """The body of every 4xx and 5xx answer."""

    error: ErrorBody
