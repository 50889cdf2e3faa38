"""What crosses the process boundary between the API and a runner.

Plain dicts on purpose: BentoML's internal calls pickle them with numpy's buffers out of band, and pydantic, which
BentoML runs over every internal call, would take a dataclass apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from models.catalogue import ModelName

F32 = NDArray[np.float32]


class State(StrEnum):
    """Where a model is in its life (CONTRACT: `/health` → `models.*.state`)."""

    DISABLED = "disabled"  # assigned to the heavy service
    ABSENT = "absent"  # no weights in the model store
    UNLOADED = "unloaded"  # loads on the first request
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


def refusal(name: ModelName, state: State, detail: str | None) -> str:
    """What a caller is told of a model that can't answer. Why one failed may name paths, which only /health does."""
    return f"{name} is absent: {detail}" if state == State.ABSENT else f"{name} has failed: /health says why"


class Item(TypedDict):
    """One request to a model: `image` (h, w, 3) uint8 RGB, already of the size that the network takes."""

    image: NDArray[np.uint8]
    min_confidence: NotRequired[float]


class PoseResult(TypedDict):
    """n persons, best first; pixels of the network's input. boxes (n, 4) x1 y1 x2 y2; keypoints (n, 17, 3) x y conf."""

    boxes: F32
    scores: F32
    keypoints: F32


class ThreatResult(TypedDict):
    """n detections, best first; pixels of the network's input. boxes (n, 4) x1 y1 x2 y2; labels by the checkpoint."""

    boxes: F32
    scores: F32
    labels: list[str]


class ReidResult(TypedDict):
    """embedding: (512,) float32, L2-normalised."""

    embedding: F32


class PetResult(TypedDict):
    """probabilities: label of the checkpoint → softmax probability."""

    probabilities: dict[str, float]


class DepthResult(TypedDict):
    """depth: (h, w) float32, 0…1 over the whole image, 1 is nearest, in the network's resolution."""

    depth: F32


Result = PoseResult | ThreatResult | ReidResult | PetResult | DepthResult


class Failure(TypedDict):
    """One item's failure, given back as a value so that its neighbours in the batch keep their answers."""

    error: Literal["model_unavailable", "internal"]
    message: str


class ModelStatus(TypedDict):
    """One model as its runner knows it. `input` is the model card's, None while there are no weights."""

    state: State
    engine: str | None
    precision: str | None
    weights: str | None
    untrained: bool
    detail: str | None
    input: Mapping[str, Any] | None


class RunnerStatus(TypedDict):
    """A runner process as a whole."""

    pid: int
    gpu: str | None
    gpu_memory_used_gb: float
    models: dict[ModelName, ModelStatus]
