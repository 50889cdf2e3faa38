"""What the API and a runner say to each other, beside the items and results of tasks/.

Plain dicts on purpose: BentoML's internal calls pickle them with numpy's buffers out of band, and pydantic, which
BentoML runs over every internal call, would take a dataclass apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypedDict

from models.catalogue import ModelName
from models.state import ModelStatus, State

_WARMING: Final = frozenset({State.UNLOADED, State.LOADING})


def unsettled(status: RunnerStatus, preload: Sequence[ModelName]) -> list[ModelName]:
    """Those of the models to be preloaded which are neither loaded nor given up."""
    return [name for name in preload if status["models"][name]["state"] in _WARMING]


class Failure(TypedDict):
    """One item's failure, given back as a value so that its neighbours in the batch keep their answers."""

    error: Literal["model_unavailable", "runner_unavailable", "timeout", "internal"]
    message: str


class Managed(TypedDict):
    """What became of a request to load or unload a model."""

    model: ModelStatus


class DeviceStatus(TypedDict):
    """What a runner computes on. index: physical, in PCI order. All but the name are None on a CPU.

    memory_gb is None on a GPU, too, where NVML does not know it.
    """

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
