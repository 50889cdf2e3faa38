"""The messages between the API and a runner, beside the items and results of tasks/.

They are plain dicts because BentoML runs pydantic over every internal call, and pydantic would convert a dataclass.
BentoML pickles them with numpy's buffers out of band.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypedDict

from models.catalogue import ModelName
from models.state import ModelStatus, State

_WARMING: Final = frozenset({State.UNLOADED, State.LOADING})


def unsettled(status: RunnerStatus, preload: Sequence[ModelName]) -> list[ModelName]:
    """The models of `preload` that are still to be loaded."""
    return [name for name in preload if status["models"][name]["state"] in _WARMING]


class Failure(TypedDict):
    """One item's failure. It is a value, so that the other items of the batch keep their answers."""

    error: Literal["model_unavailable", "runner_unavailable", "timeout", "internal"]
    message: str


class Managed(TypedDict):
    """The answer to a request to load or unload a model."""

    model: ModelStatus


class DeviceStatus(TypedDict):
    """The device of a runner. index: physical, in PCI order. memory_gb: in 10⁹ bytes, None if NVML does not know it.

    On a CPU everything except the name is None.
    """

    name: str
    index: int | None
    memory_gb: float | None
    driver: str | None


class MemoryStatus(TypedDict):
    """Memory of a runner process in MB (10⁶ bytes).

    used_mb: on a GPU its device memory, CUDA context included; on a CPU the growth of its resident memory.
    budget_mb: None = no limit. out_of_memory: the number of batches for which the device had too little memory.
    """

    used_mb: int
    budget_mb: int | None
    out_of_memory: int


class RunnerStatus(TypedDict):
    """The state of a runner process. fault: the sticky error because of which it is about to end."""

    pid: int
    device: DeviceStatus
    memory: MemoryStatus
    fault: str | None
    models: dict[ModelName, ModelStatus]
