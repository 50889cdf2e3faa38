"""The pydantic models of GET /models and /models/NAME, for the OpenAPI document."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from models.catalogue import ModelName
from models.state import State


class ModelError(BaseModel):
    """A failed load or engine build. at: ISO 8601, UTC."""

    at: str
    message: str


class ModelDevice(BaseModel):
    """The device of the model's runner. index: of a GPU, physical, in PCI order; null on a CPU."""

    name: str
    index: int | None


class ModelWeights(BaseModel):
    """The weights as they were imported."""

    folder: str = Field(description="the model's folder in the model zoo")
    file: str = Field(description="the file with the parameters")
    sha256: str | None = Field(description="of that file; null without weights")
    source: str | None = Field(description="the path or URL of the import; null without weights")
    licence: str
    homepage: str
    untrained: bool | None = Field(description="true for a trial's random stand-in; null without weights")


class ModelInputSize(BaseModel):
    """The size of the network's input in pixels. "any": the network takes images of different sizes."""

    height: int | Literal["any"]
    width: int | Literal["any"]


class ModelQueueState(BaseModel):
    """The model's requests now. expected_ms: until the answer of a request that arrives now; null before the first."""

    waiting: int
    in_progress: int
    expected_ms: float | None


class ModelLatency(BaseModel):
    """Latency in ms of the last 200 requests that the model's own route answered, from received body to answer."""

    p50: float | None
    p95: float | None
    samples: int


class ModelResponse(BaseModel):
    """One model as of the last heartbeat. What is not known is null.

    While its runner is down the model has failed, and its weights, labels and input are the last known ones.
    """

    name: ModelName
    short_name: str
    title: str
    route: str
    state: State
    detail: str | None = Field(description="the reason of the state")
    last_error: ModelError | None = Field(description="since the start of its runner; it stays after a success")
    engine: str | None = Field(description="null while the model is not in memory")
    precision: str | None
    device: ModelDevice | None = Field(description="null while the runner is down")
    memory_mb: int | None = Field(description="growth at its last load in 10⁶ bytes; null before the first")
    weights: ModelWeights
    labels: list[str] | None = Field(description="by class index; empty if the model has no classes")
    input: ModelInputSize | None
    max_batch_size: int
    queue: ModelQueueState | None = Field(description="null if the model is disabled")
    recent_batches: dict[int, int] = Field(
        description="images in a batch → number of such batches, among the last 50", examples=[{"1": 46, "4": 4}]
    )
    loads: int = Field(description="since the start of its runner")
    last_used: str | None = Field(description="ISO 8601, UTC; null while the model is not in memory")
    latency_ms: ModelLatency


class ModelsResponse(BaseModel):
    """The five models, in the documentation's order."""

    models: list[ModelResponse]
