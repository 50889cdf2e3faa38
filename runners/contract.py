"""What crosses the process boundary between the API and a runner.

Plain dicts on purpose: BentoML's internal calls pickle them with numpy's buffers out of band, and pydantic, which
BentoML runs over every internal call, would take a dataclass apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from models.catalogue import ModelName

F32 = NDArray[np.float32]


class State(StrEnum):
    """Where a model is in its life."""

    DISABLED = "disabled"  # assigned to the heavy service
    ABSENT = "absent"  # no weights in the model store
    UNLOADED = "unloaded"  # loads on the first request
    LOADING = "loading"
    BUILDING_ENGINE = "building_engine"  # ready on torch while a TensorRT engine is being built
    READY = "ready"
    FAILED = "failed"


def refusal(name: ModelName, state: State, detail: str | None) -> str:
    """What a caller is told of a model that can't answer. Why one failed may name paths, which only /health does."""
    return f"{name} is absent: {detail}" if state == State.ABSENT else f"{name} has failed: /health says why"


_WARMING: Final = frozenset({State.UNLOADED, State.LOADING})


def unsettled(status: RunnerStatus, preload: Sequence[ModelName]) -> list[ModelName]:
    """Those of the models to be preloaded which are neither loaded nor given up."""
    return [name for name in preload if status["models"][name]["state"] in _WARMING]


class Item(TypedDict):
    """One request to a model: `image` (h, w, 3) uint8 RGB, already of the size that the network takes.

    id: by which `Runner.abandon` finds it. expires: when nobody waits any more, by time.monotonic(), which on Linux is
    one clock for all processes of a machine.
    """

    image: NDArray[np.uint8]
    min_confidence: NotRequired[float]
    id: NotRequired[str]
    expires: NotRequired[float]


class SharedImage(TypedDict):
    """Where an image is that is not sent itself (runners/shared_memory.py). pid, fd: of the API. shape: (h, w, 3)."""

    pid: int
    fd: int
    name: str
    shape: tuple[int, ...]


class SentItem(TypedDict):
    """An item as it crosses the boundary."""

    image: NDArray[np.uint8] | SharedImage
    min_confidence: NotRequired[float]
    id: NotRequired[str]
    expires: NotRequired[float]


class Timing(TypedDict):
    """When a runner was at an item: ns since the epoch, by the clock that all processes of a machine share.

    taken: its batch came out of the queue. loaded: the model was there, and the forward pass began. forwarded: it had
    ended. interpreted: the item's result was there. batch: items in the batch.
    """

    taken: int
    loaded: int
    forwarded: int
    interpreted: int
    batch: int
    engine: str


class Timed(TypedDict):
    """What every result has beside its own: the runner adds it to what a model's `interpret` gives."""

    timing: NotRequired[Timing]


class PoseResult(Timed):
    """n persons, best first; pixels of the network's input. boxes (n, 4) x1 y1 x2 y2; keypoints (n, 17, 3) x y conf."""

    boxes: F32
    scores: F32
    keypoints: F32


class ThreatResult(Timed):
    """n detections, best first; pixels of the network's input. boxes (n, 4) x1 y1 x2 y2; labels by the checkpoint."""

    boxes: F32
    scores: F32
    labels: list[str]


class ReidResult(Timed):
    """embedding: (512,) float32, L2-normalised. model_id: ModelCard.model_id of the weights that made it."""

    embedding: F32
    model_id: str


class PetResult(Timed):
    """probabilities: label of the checkpoint → softmax probability."""

    probabilities: dict[str, float]


class DepthResult(Timed):
    """depth: (h, w) float32, 0…1 over the whole image, 1 is nearest, in the network's resolution."""

    depth: F32


Result = PoseResult | ThreatResult | ReidResult | PetResult | DepthResult


class Failure(TypedDict):
    """One item's failure, given back as a value so that its neighbours in the batch keep their answers."""

    error: Literal["model_unavailable", "runner_unavailable", "timeout", "internal"]
    message: str


class Unreadable(TypedDict):
    """In place of one item's result: why its image, which is in shared memory, can't be read from there."""

    unreadable: str


class ModelStatus(TypedDict):
    """One model as its runner knows it.

    input: the model card's, None while there are no weights. memory_mb: what loading it was measured to take, None
    before its first load. loads: how often it was loaded in this process. last_used: when its last call ended or it was
    loaded, in seconds since the epoch; None while it is not loaded. engine_build_failed: it runs on torch because no
    TensorRT engine could be built for it.
    """

    state: State
    engine: str | None
    precision: str | None
    weights: str | None
    untrained: bool
    detail: str | None
    input: Mapping[str, Any] | None
    memory_mb: int | None
    loads: int
    last_used: float | None
    engine_build_failed: bool


class Managed(TypedDict):
    """What became of a request to load or unload a model."""

    model: ModelStatus


class DeviceStatus(TypedDict):
    """What a runner computes on. index: physical, in PCI order. All but the name are None on a CPU."""

    name: str
    index: int | None
    memory_gb: float | None
    driver: str | None


class MemoryStatus(TypedDict):
    """Memory of a runner process in MB (10⁶ bytes): on a GPU the device's, CUDA context included; on a CPU its growth.

    budget_mb: None = no limit. out_of_memory: batches for which the device had too little.
    """

    used_mb: int
    budget_mb: int | None
    out_of_memory: int


class RunnerStatus(TypedDict):
    """A runner process as a whole. fault: the sticky error for which it is about to end."""

    pid: int
    device: DeviceStatus
    memory: MemoryStatus
    fault: str | None
    models: dict[ModelName, ModelStatus]
